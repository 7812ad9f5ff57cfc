"""Write constraints.txt from this environment: what byheart and its extras need, at the versions installed here.

Stops at a version that the oldest Python which byheart supports could not install.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

OLDEST_PYTHON = "3.11.0"  # of requires-python in pyproject.toml

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# The versions that byheart is tested with. Written by scripts/lock.py; installed by scripts/setup.sh.
# torch without "+cpu": the same line fits the CPU build and, on a machine with a GPU, the CUDA build.
"""


def closure(root: str, extras: set[str]) -> dict[str, str]:
    """Return all packages that `root` needs here, with their versions."""
    found: dict[str, str] = {}
    todo = [(root, extras)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, wanted = todo.pop()
        if (name, frozenset(wanted)) in seen:
            continue
        seen.add((name, frozenset(wanted)))
        distribution = metadata.distribution(name)
        needs = distribution.metadata["Requires-Python"] or ""
        if not SpecifierSet(needs).contains(OLDEST_PYTHON):
            raise SystemExit(f"{name} {distribution.version} needs Python {needs}: install an older one here first.")
        found[distribution.metadata["Name"].lower().replace("_", "-")] = distribution.version.partition("+")[0]
        for line in distribution.requires or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in wanted | {""}):
                todo.append((requirement.name, set(requirement.extras)))
    return found


if __name__ == "__main__":
    packages = closure("byheart", {"deepspeed", "dev", "postgres"})
    del packages["byheart"]
    lines = "".join(f"{name}=={version}\n" for name, version in sorted(packages.items()))
    (ROOT / "constraints.txt").write_text(HEADER + lines, encoding="utf-8")
