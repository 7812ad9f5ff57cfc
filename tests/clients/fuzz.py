"""Fuzz the API from its OpenAPI document with schemathesis, and ask the server itself what it answered.

python fuzz.py http://127.0.0.1:8000 [CASES]
"""

from __future__ import annotations

import collections
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

ROUND_S = 60  # then another round, with another seed
HERE = Path(__file__).parent


def statuses(address: str) -> collections.Counter[str]:
    """Return how many responses the server has counted, by status."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    found: collections.Counter[str] = collections.Counter()
    for status, count in re.findall(r'^byheart_requests_total\{.*status="(\d+)"\} (\S+)$', text, re.MULTILINE):
        found[status] += int(float(count))
    return found


def main(address: str, cases: int) -> int:
    before = statuses(address)
    seed, answered = 0, before - before
    while sum(answered.values()) < cases:
        seed += 1
        command = [
            str(Path(sys.executable).with_name("st")), "--config-file", str(HERE / "schemathesis.toml"), "run",
            f"{address}/openapi.json", "--max-time", str(ROUND_S), "--max-examples", "60", "--continue-on-failure",
            "--seed", str(seed), "--warnings", "off", "--no-color",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        answered = statuses(address) - before
        if done.returncode:
            print("\n".join(line[:500] for line in done.stdout.splitlines()), file=sys.stderr)
            print(done.stderr[-2000:], file=sys.stderr)
            return 1
    broken = {status: count for status, count in answered.items() if status.startswith("5")}
    print(f"schemathesis: {sum(answered.values()):,} requests, by status {dict(sorted(answered.items()))}")
    if broken:
        print(f"fuzz: the server failed: {broken}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5000))
