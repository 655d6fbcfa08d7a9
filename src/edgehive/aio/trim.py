"""Giving freed memory back to the system.

A TLS connection on uvloop has a buffer of 256 KiB of which it touches a few pages. glibc takes such buffers, once some
were freed, out of what small pieces have left, so that each crowd of connections touches other pages of them: 2,000
connections that come and go cost 100 MiB, then 170, 230, ..., and nothing of it comes back by itself. `malloc_trim`
gives free pages back wherever they lie.
"""

import asyncio
import ctypes
import logging
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

PERIOD: Final = 15.0
_WORTH_IT: Final = 8 << 20
"""Bytes that have been freed, or come to be resident, since the last time."""


class _Mallinfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    )


class Trimmer:
    """Trims when there is something to gain; where the C library is not glibc, never."""

    def __init__(self) -> None:
        self._free = self._resident = 0
        self._heap: Callable[[], int] | None = None
        libc = ctypes.CDLL(None)
        try:
            self._trim = libc.malloc_trim
            info = libc.mallinfo2
        except AttributeError:
            return
        info.restype = _Mallinfo
        self._heap = lambda: int(info().fordblks)

    def look(self) -> bool:
        """Trim if it is worth it, and tell whether it was."""
        if self._heap is None:
            return False
        free, resident = self._heap(), resident_bytes()
        if free - self._free < _WORTH_IT and resident - self._resident < _WORTH_IT:
            self._free = min(self._free, free)
            return False
        self._trim(0)
        self._free, self._resident = self._heap(), resident_bytes()
        log.debug("trimmed memory: %d KiB less", (resident - self._resident) >> 10)
        return True

    async def run(self) -> None:
        """Look every now and then until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(PERIOD)


def resident_bytes() -> int:
    """The resident memory of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
