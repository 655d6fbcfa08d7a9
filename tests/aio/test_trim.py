"""Freed memory goes back to the system."""

import ctypes

import pytest

from edgehive.aio.trim import Trimmer, resident_bytes

MIB = 1 << 20


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_what_is_freed_below_something_alive_is_given_back() -> None:
    trimmer = Trimmer()
    trimmer.look()
    before = resident_bytes()
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    pieces = []
    for _ in range(1024):
        piece = libc.malloc(100_000)  # below the threshold from which glibc gives back at once
        ctypes.memset(piece, 1, 100_000)
        pieces.append(piece)
    last = pieces.pop()  # on top of the others
    assert resident_bytes() - before > 90 * MIB
    assert trimmer.look(), "it has grown"
    assert not trimmer.look(), "and has nothing more to give"
    for piece in pieces:
        libc.free(piece)
    assert trimmer.look(), "much was freed"
    assert resident_bytes() - before < 20 * MIB
    assert not trimmer.look()
    libc.free(last)
