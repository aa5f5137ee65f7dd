"""A file mapped into memory without keeping it open.

Reads: the file's pages, by the system, when they are touched. Writes: nothing. Python's `mmap` keeps a file descriptor for
every map, of which a process often may have 1,024; a build has a file or more for every fifty million tokens.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from pathlib import Path

import pyarrow as pa

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_FAILED = ctypes.c_void_p(-1).value


class Mapping:
    """The bytes of a file in memory, for reading; unmapped when nothing refers to it any more.

    Attributes:
        address: of the first byte.
        size: bytes.

    Raises:
        OSError: the file cannot be opened or mapped.
        ValueError: it is empty.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self.size = os.fstat(descriptor).st_size
            if self.size == 0:
                raise ValueError("the file is empty")
            found = _LIBC.mmap(None, self.size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
        finally:
            os.close(descriptor)
        if found == _FAILED:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
        self.address: int = found
        # Not at the end of the process, which unmaps everything by itself: another thread may still be reading.
        weakref.finalize(self, _LIBC.munmap, found, self.size).atexit = False

    def buffer(self) -> pa.Buffer:
        """Return the bytes for Arrow; what is read from them keeps the map alive."""
        return pa.foreign_buffer(self.address, self.size, base=self)

    def advise(self, advice: int, first: int | None = None, last: int | None = None) -> None:
        """Tell the system what will be done with the bytes from address `first` to `last`, all by default: `mmap.MADV_...`."""
        begin = (self.address if first is None else first) // mmap.PAGESIZE * mmap.PAGESIZE
        end = self.address + self.size if last is None else last + 1
        _LIBC.madvise(begin, end - begin, advice)  # only a hint: a system that does not know it may refuse
