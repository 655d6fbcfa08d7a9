import asyncio
import errno
import socket

import pytest

from edgehive.aio.oserrors import reason_of


async def test_a_refused_connection_is_two_words() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(OSError) as refused:
            await asyncio.open_connection("127.0.0.1", unused.getsockname()[1])
    assert reason_of(refused.value) == "Connection refused"


def test_what_has_no_number_keeps_its_words() -> None:
    with pytest.raises(OSError) as unknown:
        socket.getaddrinfo("no such name", 1)
    assert reason_of(unknown.value) == unknown.value.strerror
    assert reason_of(TimeoutError()) == "no answer in time"
    assert reason_of(TimeoutError(errno.ETIMEDOUT, "x")) == "Connection timed out"
    assert reason_of(ConnectionResetError()) == "ConnectionResetError"
    assert reason_of(OSError("Multiple exceptions: a, b")) == "Multiple exceptions: a, b"
