"""The C library's heap while a model trains: what one step frees, the next one takes, instead of new pages."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator

# mallopt(3) of the GNU C library: each option with its value while training, and its default.
_M_TRIM_THRESHOLD = (-1, 2**31 - 1, 128 * 1024)  # keep as much as is free
_M_TOP_PAD = (-2, 2**20, 128 * 1024)  # take a little more than is asked for: the same size again must fit aligned, too
_M_MMAP_MAX = (-4, 0, 65_536)  # give no tensor pages of its own


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory in this process, and hand it back to the system at the end.

    By default large tensors are pages of their own, which the system makes and clears anew for each: on a CPU a tenth
    of a training step. Does nothing where the C library is another one.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if library is None or not hasattr(library, "mallopt"):
        yield
        return
    options = (_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX)
    for option, kept, _ in options:
        library.mallopt(option, kept)
    try:
        yield
    finally:
        for option, _, default in options:
            library.mallopt(option, default)
        library.malloc_trim(0)
