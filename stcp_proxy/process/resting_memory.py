"""Give back the memory that only the start needed.

Free blocks of the C library go back to the system, and the garbage collector no longer walks the objects that stay for ever.
Pages of libraries are unmapped: most of what `cryptography` maps is used once, when it is loaded. Such a page comes back from the
page cache when it is used again.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from typing import Final

_COLLECT_AFTER: Final = 20_000
"""Objects, net, between two collections: some two hundred connections' worth."""
_MADV_DONTNEED: Final = 4


def settle() -> None:
    """Call this when everything that serves has been loaded: in each process, and also before worker processes are forked."""
    gc.collect()
    gc.freeze()  # what the start built stays: no collection walks it again, and worker processes go on sharing its pages
    gc.set_threshold(_COLLECT_AFTER, 10, 10)
    library = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError):  # a C library other than glibc
        library.malloc_trim(0)
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    with contextlib.suppress(OSError):  # a kernel without /proc/self/smaps: the pages stay
        for address, length in _unwritten():
            library.madvise(address, length, _MADV_DONTNEED)


def _unwritten() -> Iterator[tuple[int, int]]:
    """The address and the length of each read-only mapping of a file without a page that differs from the file.

    The dynamic loader writes to some mappings before it makes them read-only, and a debugger writes to code. Their pages are
    anonymous from then on, and would be lost.
    """
    mapping: tuple[int, int] | None = None
    with open("/proc/self/smaps", "rb") as lines:
        for line in lines:
            words = line.split(None, 5)
            if not words[0].endswith(b":"):
                first, end = (int(number, 16) for number in words[0].split(b"-"))
                permissions, inode = words[1], words[4]
                of_file = inode != b"0" and permissions[1:2] == b"-" and permissions.endswith(b"p")
                mapping = (first, end - first) if of_file else None
            elif words[0] == b"Anonymous:" and mapping is not None and int(words[1]) == 0:
                yield mapping
