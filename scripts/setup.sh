#!/usr/bin/env bash
# Sets up .venv so that `byheart` runs; with `dev`, so that the tests run too. Does nothing when it is set up already.
#
#   scripts/setup.sh [dev]
#
# .venv/.ready is written last and names what was installed: a .venv without it is half-made. It is completed in
# place, since it may be yours with your own torch in it; where that does not make it whole, it is made anew.
set -euo pipefail

extra=${1:-}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
cd "$root"
unset PYTHONHOME PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_USER=0 PIP_REQUIRE_VIRTUALENV=0

say() { printf 'setup: %s\n' "$*" >&2; }

wanted() { # what has to be installed, as one hash; the folder is in it because scripts in .venv hold its path
  { cat pyproject.toml constraints.txt; printf '%s' "$root"; } | cksum | tr ' ' '-'
}

is_ready() {
  [ -x "$venv/bin/python" ] && [ -f "$venv/.ready" ] || return 1
  read -r hash kind <"$venv/.ready" || return 1
  [ "$hash" = "$(wanted)" ] && { [ "$kind" = dev ] || [ "$kind" = "${extra:-run}" ]; }
}

find_python() { # the first Python of 3.11 or later that can make a venv
  local candidate old=""
  for candidate in python3.11 python3.12 python3.13 python3 python; do
    command -v "$candidate" >/dev/null || continue
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
    old="$old $candidate ($("$candidate" --version 2>/dev/null || echo 'does not run'))"
  done
  say "needs Python 3.11 or later with venv. Found:${old:- none}."
  say "Install one, for example: sudo apt install python3 python3-venv, or: brew install python@3.12"
  return 1
}

has_torch() { # whole, that is with its list of files, which pip writes last
  "$1" -c 'import importlib.metadata, sys; sys.exit(not importlib.metadata.files("torch"))' 2>/dev/null
}

torch_index() { # on Linux without an NVIDIA GPU, plain PyPI would bring gigabytes of CUDA: ask for the CPU build
  [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null || return 0
  local index=https://download.pytorch.org/whl/cpu
  local probe="import urllib.request; urllib.request.urlopen('$index/torch/', timeout=3)"
  if timeout 4 "$1" -c "$probe" 2>/dev/null; then
    printf '%s' "--extra-index-url $index"
  fi
}

install() { # byheart at the tested versions; the user's own torch, perhaps built for their GPU, is not replaced
  local python=$venv/bin/python constraints=$venv/.constraints.txt
  if has_torch "$python"; then
    grep -v '^torch==' constraints.txt >"$constraints"
  else
    cp constraints.txt "$constraints"
    # shellcheck disable=SC2046  # two words or none
    "$python" -m pip install --quiet --constraint "$constraints" $(torch_index "$python") torch || return 1
  fi
  "$python" -m pip install --quiet --constraint "$constraints" --editable ".${extra:+[$extra]}" || return 1
}

make_venv() {
  local python site=""
  python=$(find_python)
  if has_torch "$python"; then
    say "keeps the torch of $python"
    site=--system-site-packages
  fi
  rm -rf "$venv"
  "$python" -m venv $site "$venv"
}

complete() { "$venv/bin/python" "$root/scripts/check_venv.py"; }

is_ready && exit 0

say "sets up $venv (a few minutes, once)"
rm -f "$venv/.ready"
if ! { "$venv/bin/python" -m pip --version && "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; } \
  >/dev/null 2>&1; then
  make_venv
fi
if ! { install && complete; }; then
  say "$venv is damaged or an install failed: making it anew"
  make_venv
  install
  complete
fi
printf '%s %s\n' "$(wanted)" "${extra:-run}" >"$venv/.ready"
say "done"
