"""Memory that training frees is taken again without new pages, and given back at the end."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

import pytest
import torch

from byheart.train.heap import freed_memory_kept

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs the GNU C library"
)
NUMBERS = 16 * 2**20  # 64 MB in fp32: always pages of its own by default
PAGES = NUMBERS * 4 // resource.getpagesize()


def new_pages() -> int:
    """Return how many pages the system has to make for a tensor."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(NUMBERS)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])


def fewest_new_pages() -> int:
    return min(new_pages() for _ in range(20))  # until there is a gap that it fits into


def test_what_one_tensor_frees_the_next_one_takes() -> None:
    assert fewest_new_pages() > 0.9 * PAGES
    with freed_memory_kept():
        assert fewest_new_pages() < 0.1 * PAGES


def test_memory_is_given_back_at_the_end_of_training_that_fails_too() -> None:
    with pytest.raises(ZeroDivisionError), freed_memory_kept():
        new_pages()
        held = resident_pages()
        raise ZeroDivisionError
    assert resident_pages() < held - 0.9 * PAGES
