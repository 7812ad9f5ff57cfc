"""scripts/setup.sh, with a stand-in for Python that writes down what it was asked to do and installs nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("bash", "env", "cat", "cksum", "tr", "dirname", "uname", "grep", "rm", "cp", "mkdir", "timeout")
FAKE_PYTHON = """#!/usr/bin/env bash
here=$(cd "$(dirname "$0")/.." && pwd)
echo "$*" >>"$LOG"
case "$*" in
  "-m venv"*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
  *metadata*) [ -n "${HAS_TORCH:-}" ] || exit 1 ;;
  *urlopen*) [ -n "${ONLINE:-}" ] || exit 1 ;;
  *check_venv*) [ ! -f "$here/damaged" ] || exit 1 ;;
  *"pip install"*) [ -z "${PIP_FAILS:-}" ] || exit 1 ;;
esac
exit 0
"""


class Clone:
    """A clone of the project whose only Python is the stand-in."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a clone"
        self.log = folder / "log"
        self.bin = folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(str(shutil.which(tool)))
        self.root.mkdir()
        for name in ("pyproject.toml", "constraints.txt", "scripts"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, self.root / name)
        self.ready = self.root / ".venv" / ".ready"

    def add_python(self, path: Path | None = None) -> None:
        target = path or self.bin / "python3.11"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(FAKE_PYTHON)
        target.chmod(0o755)

    def setup(self, *arguments: str, **environment: str) -> tuple[int, str, list[str]]:
        """Return exit code, what was said, and the calls of Python."""
        self.log.write_text("")
        ended = subprocess.run(
            [str(self.bin / "bash"), str(self.root / "scripts" / "setup.sh"), *arguments],
            cwd="/",
            env={"PATH": str(self.bin), "LOG": str(self.log), "HOME": str(self.root), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return ended.returncode, ended.stderr, self.log.read_text().splitlines()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def pips(calls: list[str]) -> list[str]:
    return [call for call in calls if "pip install" in call]


def venvs(calls: list[str]) -> list[str]:
    return [call for call in calls if call.startswith("-m venv")]


def test_without_a_python_it_says_what_to_install(clone: Clone) -> None:
    code, said, _ = clone.setup()
    assert code != 0
    assert "needs Python 3.11 or later" in said
    assert "apt install python3" in said


def test_it_installs_once_and_then_does_nothing(clone: Clone) -> None:
    clone.add_python()
    code, said, calls = clone.setup()
    assert code == 0, said
    assert len(venvs(calls)) == 1
    assert pips(calls)[0].endswith("torch")
    assert pips(calls)[1].endswith("--editable .")
    assert "torch==" in (clone.root / ".venv" / ".constraints.txt").read_text()
    assert clone.setup() == (0, "", [])


def test_tests_need_more_than_the_demo_and_not_the_other_way_round(clone: Clone) -> None:
    clone.add_python()
    clone.setup()
    code, _, calls = clone.setup("dev")
    assert code == 0
    assert pips(calls)[-1].endswith("--editable .[dev]")
    assert venvs(calls) == []
    assert clone.setup()[2] == []


def test_a_new_dependency_is_installed_into_the_venv_that_is_there(clone: Clone) -> None:
    clone.add_python()
    clone.setup()
    with (clone.root / "constraints.txt").open("a") as constraints:
        constraints.write("another==1.0\n")
    code, _, calls = clone.setup()
    assert code == 0
    assert len(pips(calls)) == 2
    assert venvs(calls) == []


def test_a_half_made_venv_is_completed_or_else_made_anew(clone: Clone) -> None:
    clone.add_python()
    clone.setup()
    clone.ready.unlink()
    assert venvs(clone.setup()[2]) == []  # whole, only the stamp was missing
    clone.ready.unlink()
    (clone.root / ".venv" / "damaged").touch()
    code, said, calls = clone.setup()
    assert code == 0
    assert "making it anew" in said
    assert len(venvs(calls)) == 1
    shutil.rmtree(clone.root / ".venv")
    (clone.root / ".venv" / "bin").mkdir(parents=True)  # killed before it had a Python
    assert clone.setup()[0] == 0
    assert clone.ready.exists()


def test_a_failed_install_is_an_error_and_leaves_no_stamp(clone: Clone) -> None:
    clone.add_python()
    code, _, _ = clone.setup(PIP_FAILS="1")
    assert code != 0
    assert not clone.ready.exists()


def test_the_users_own_torch_is_kept(clone: Clone) -> None:
    clone.add_python()
    code, _, calls = clone.setup(HAS_TORCH="1")
    assert code == 0
    assert "--system-site-packages" in venvs(calls)[0]
    assert [call.rpartition(" ")[2] for call in pips(calls)] == ["."]
    assert "torch==" not in (clone.root / ".venv" / ".constraints.txt").read_text()


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="elsewhere PyPI has no CUDA builds")
def test_the_cpu_build_is_asked_for_where_there_is_no_gpu_and_its_index_answers(clone: Clone) -> None:
    clone.add_python()
    assert "download.pytorch.org/whl/cpu" in pips(clone.setup(ONLINE="1")[2])[0]
    shutil.rmtree(clone.root / ".venv")
    assert "download.pytorch.org" not in pips(clone.setup()[2])[0]
    shutil.rmtree(clone.root / ".venv")
    clone.add_python(clone.bin / "nvidia-smi")
    assert "download.pytorch.org" not in pips(clone.setup(ONLINE="1")[2])[0]
