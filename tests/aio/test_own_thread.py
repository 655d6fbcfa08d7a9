"""Blocking calls in a thread of their own."""

import asyncio
import threading

import pytest

from edgehive.aio.own_thread import OwnThread, StillBusy


async def test_calls_return_and_raise_what_they_do():
    own = OwnThread("t")
    assert await own.run(lambda a, b: a + b, 1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        await own.run(lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await own.run(next, iter(()))
    assert await own.run(threading.get_ident) == await own.run(threading.get_ident) != threading.get_ident()
    own.close()
    own.close()


async def test_a_call_that_was_given_up_keeps_the_next_ones_out_until_it_returns():
    own, release = OwnThread("t"), threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await own.run(release.wait)
    with pytest.raises(StillBusy):
        await own.run(int)
    release.set()
    async with asyncio.timeout(5):
        while True:
            try:
                assert await own.run(int) == 0
                break
            except StillBusy:
                await asyncio.sleep(0.005)
    own.close()


def test_a_loop_that_ends_before_the_call_does_is_no_error():
    release, over = threading.Event(), threading.Event()
    own = OwnThread("t")

    def call():
        release.wait()
        over.set()

    async def give_up():
        async with asyncio.timeout(0.01):
            await own.run(call)

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    thread = own._thread
    own.close()
    release.set()
    assert over.wait(5)
    assert thread is not None
    thread.join(5)
    assert not thread.is_alive()
