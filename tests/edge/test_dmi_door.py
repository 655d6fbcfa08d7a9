"""The socket of the mappers' interface before there is one."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edgehive.edge.dmi_door import SOCKET_NAME, DmiDoor
from edgehive.kit.errors import UserError


class Twin:
    """Notes who wants the objects."""

    def __init__(self) -> None:
        self.attached: list[Any] = []
        self.knocked = asyncio.Event()

    def attach(self, objects: Any) -> None:
        self.attached.append(objects)
        self.knocked.set()


class Rows:
    """A database with the given registrations."""

    def __init__(self, *mappers: bytes) -> None:
        self.saved = list(mappers)

    def mappers(self) -> list[bytes]:
        return self.saved


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="door-", dir="/tmp") as directory:
        yield Path(directory)


def door(place: Path, twin: Twin, *mappers: bytes) -> DmiDoor:
    return DmiDoor(directory=place, twin=twin, rows=Rows(*mappers), rng=lambda: 0.5)  # type: ignore[arg-type]


async def listening(path: Path) -> None:
    async with asyncio.timeout(10):
        while not path.exists():
            await asyncio.sleep(0.01)


async def ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_nobody_is_attached_until_somebody_connects_and_he_is_served(place: Path) -> None:
    twin = Twin()
    one = door(place, twin)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(one.run())
        await listening(place / SOCKET_NAME)
        assert (place / SOCKET_NAME).stat().st_mode & 0o777 == 0o600
        assert (twin.attached, one.gauges()["edgehive_dmi_reports_total"]()) == ([], 0.0)
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_unix_connection(place / SOCKET_NAME)
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
            assert (await reader.readexactly(9))[3] == 4, "the server's SETTINGS"
        assert len(twin.attached) == 1
        writer.close()
        await ended(task)
    assert not (place / SOCKET_NAME).exists()


async def test_a_mapper_that_registered_before_does_not_have_to_knock(place: Path) -> None:
    twin = Twin()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(door(place, twin, b'{"name":"m"}').run())
        async with asyncio.timeout(10):
            await twin.knocked.wait()
        await ended(task)


async def test_a_socket_that_nobody_used_is_taken_away(place: Path) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(door(place, Twin()).run())
        await listening(place / SOCKET_NAME)
        await ended(task)
    assert not (place / SOCKET_NAME).exists()


async def test_a_file_in_its_place_is_left_alone(place: Path) -> None:
    (place / SOCKET_NAME).write_text("mine")
    with pytest.raises(UserError, match="cannot be used"):
        await door(place, Twin()).run()
    assert (place / SOCKET_NAME).read_text() == "mine"
