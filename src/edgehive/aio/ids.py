"""Random ids in bulk."""

import os
from typing import Final

_AT_ONCE: Final = 256


class RandomIds:
    """Gives UUIDs of version 4; `uuid.uuid4` asks the kernel for each, and costs four times as much."""

    def __init__(self) -> None:
        self._digits = ""
        self._at = 0

    def __call__(self) -> str:
        """A new one."""
        at = self._at
        if at == len(self._digits):
            self._digits = os.urandom(16 * _AT_ONCE).hex()
            at = 0
        self._at = at + 32
        d = self._digits[at : self._at]
        return f"{d[:8]}-{d[8:12]}-4{d[13:16]}-{_VARIANT[d[16]]}{d[17:20]}-{d[20:]}"


_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
