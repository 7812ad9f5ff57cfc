"""Exit with 1 unless every package here is whole: an install killed halfway leaves packages without their files."""

from __future__ import annotations

import sys
from importlib import metadata

import byheart

broken: list[str] = []
for distribution in metadata.distributions(path=[path for path in sys.path if path.startswith(sys.prefix)]):
    files = distribution.files
    # Compiled .pyc files come and go; all else that was installed must still be there.
    missing = [file for file in files or [] if file.suffix != ".pyc" and not file.locate().exists()]
    if files is None or missing:
        name = distribution.metadata["Name"] or str(distribution)
        broken.append(f"{name}: {'no list of files' if files is None else f'lacks {missing[0]}'}")
if broken:
    sys.exit("damaged packages:\n" + "\n".join(broken))
print(f"setup: byheart {byheart.__version__} on Python {sys.version.split()[0]}", file=sys.stderr)
