"""Memory that training frees is taken again without new pages, and given back at the end. Each in a process of its own,
whose heap nothing has been in before."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs the GNU C library"
)

LAB = """
import resource
from pathlib import Path
import numpy
from byheart.train.heap import freed_memory_kept

NUMBERS = 2**24  # 64 MB in fp32: always pages of its own by default
PAGES = NUMBERS * 4 // resource.getpagesize()

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    numpy.ones(NUMBERS, numpy.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def fewest_new_pages():
    return min(new_pages() for _ in range(20))  # until there is a gap that it fits into

def resident_pages():
    return int(Path("/proc/self/statm").read_text().split()[1])
"""


def in_a_process(code: str) -> None:
    small_pages = os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"}  # as torch has them
    done = subprocess.run(
        [sys.executable, "-c", LAB + code], check=False, capture_output=True, text=True, env=small_pages
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_what_one_tensor_frees_the_next_one_takes() -> None:
    in_a_process("""
assert fewest_new_pages() > 0.9 * PAGES
with freed_memory_kept():
    assert fewest_new_pages() < 0.1 * PAGES
""")


def test_memory_is_given_back_at_the_end_of_training_that_fails_too() -> None:
    in_a_process("""
try:
    with freed_memory_kept():
        new_pages()
        held = resident_pages()
        raise ZeroDivisionError
except ZeroDivisionError:
    assert resident_pages() < held - 0.9 * PAGES
""")
