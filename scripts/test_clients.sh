#!/usr/bin/env bash
# Real clients against a running server, and a fuzzer on its OpenAPI document. Clients are installed into .venv-clients
# and .node-clients, once. Without Node, its clients are left out, loudly.
#
#   scripts/test_clients.sh [CASES]     how many requests the fuzzer makes, at least (5000)
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cases=${1:-5000}
clients=tests/clients
venv=.venv-clients
node=.node-clients

say() { printf 'test-clients: %s\n' "$*" >&2; }

if ! cmp -s "$clients/requirements.txt" "$venv/.installed"; then
  say "sets up $venv"
  .venv/bin/python -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --requirement "$clients/requirements.txt"
  cp "$clients/requirements.txt" "$venv/.installed"
fi
if command -v npm >/dev/null && ! cmp -s "$clients/package.json" "$node/.installed"; then
  say "sets up $node"
  mkdir -p "$node"
  cp "$clients/package.json" "$clients/package-lock.json" "$node/"
  npm ci --prefix "$node" --no-audit --no-fund --silent
  cp "$clients/package.json" "$node/.installed"
fi

work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
.venv/bin/python "$clients/server.py" >"$work/address" 2>"$work/log" &
server=$!
for _ in $(seq 1200); do
  [ -s "$work/address" ] && break
  kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
  sleep 0.1
done
address=$(cat "$work/address")

bash "$clients/check_curl.sh" "$address"
"$venv/bin/python" "$clients/check_python.py" "$address"
if command -v node >/dev/null; then
  cp "$clients/check_node.mjs" "$node/"
  node "$node/check_node.mjs" "$address"
else
  say "NODE IS NOT INSTALLED: openai for Node and the ai SDK were not tried"
fi
"$venv/bin/python" "$clients/fuzz.py" "$address" "$cases"
kill -0 "$server" || { say "the server died:"; cat "$work/log" >&2; exit 1; }
