"""What restarts a service and what ends all of them."""

import asyncio

import pytest

from edgehive.aio.supervise import Service, ServiceExited, supervise
from edgehive.kit.errors import StorageError, Transient, Unreachable


class Flaky:
    """Fails as told, then runs."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.running = asyncio.Event()

    async def run(self) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.running.set()
        await asyncio.get_running_loop().create_future()

    async def run_in_a_group(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.run())
            await asyncio.sleep(0)
            await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("grouped", [False, True])
async def test_what_passes_restarts_a_service(grouped: bool) -> None:
    flaky = Flaky(Transient("the port is taken"), Unreachable("nobody there"))
    run = flaky.run_in_a_group if grouped else flaky.run
    async with asyncio.TaskGroup() as group:
        task = group.create_task(supervise(Service("flaky", run, backoff=0.001)))
        async with asyncio.timeout(5):
            await flaky.running.wait()
        task.cancel()
    assert not flaky.failures


async def test_a_group_in_which_all_pass_is_no_end() -> None:
    flaky = Flaky(ExceptionGroup("two", [Transient("a"), ExceptionGroup("one", [Transient("b")])]))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(supervise(Service("flaky", flaky.run, backoff=0.001)))
        async with asyncio.timeout(5):
            await flaky.running.wait()
        task.cancel()


@pytest.mark.parametrize(
    "failure", [StorageError("full"), ExceptionGroup("both", [Transient("a"), StorageError("full")])]
)
async def test_anything_else_ends_all(failure: Exception) -> None:
    other = Flaky()
    with pytest.raises(ExceptionGroup) as caught:
        await supervise(Service("bad", Flaky(failure).run, backoff=0.001), Service("other", other.run))
    assert caught.group_contains(StorageError)


async def test_a_service_does_not_return() -> None:
    async def nothing() -> None:
        return

    with pytest.raises(ExceptionGroup) as caught:
        await supervise(Service("short", nothing))
    assert caught.group_contains(ServiceExited)
