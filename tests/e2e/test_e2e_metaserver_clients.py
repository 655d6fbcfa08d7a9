"""Client libraries watch at the edge while cloudcore and edgecore are killed: each change is seen, and seen once."""

import asyncio
import json
import os
import signal
from contextlib import AsyncExitStack

import pytest

from tests.support.installation import Installation
from tests.support.kubernetes_clients import CLIENTS, Client, lacks, running

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


class Changes:
    """ConfigMaps that are made, changed and deleted in the cluster."""

    def __init__(self, up: Installation) -> None:
        self._up = up
        self._count = 0
        self.made: list[tuple[str, str, str | None]] = []

    async def make(self) -> None:
        """Some changes of each kind."""
        for _ in range(3):
            self._count += 1
            name, value = f"m{self._count}", str(self._count)
            await self._kubectl("create", "configmap", name, f"--from-literal=v={value}")
            self.made.append(("ADDED", name, value))
        value = f"at {self._count}"
        patch = json.dumps({"data": {"v": value}})
        await self._kubectl("patch", "configmap", "m1", "--type=merge", "-p", patch)
        self.made.append(("MODIFIED", "m1", value))
        if self._count > 3:
            name = f"m{self._count - 3}"
            await self._kubectl("delete", "configmap", name)
            self.made.append(("DELETED", name, None))

    async def _kubectl(self, *words: str) -> None:
        await asyncio.to_thread(self._up.kubectl, *words)

    def seen_by(self, client: Client) -> bool:
        """Whether it has seen the last state of everything."""
        return all(change in client.events for change in self.made)


async def test_clients_see_each_change_once_whatever_is_killed(up: Installation):
    server = f"http://127.0.0.1:{up.ports_from + 101}"
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(running(name, server)) for name in CLIENTS if not lacks(name)
        ]
        assert clients
        for client in clients:
            await client.until(lambda c=client: c.events)
            client.events.clear()
        changes = Changes(up)
        for killed in ((), ("cloudcore",), ("edgecore-edge-1",), ("cloudcore", "edgecore-edge-1")):
            for name in killed:
                os.kill(up.pid(name), signal.SIGKILL)
            await changes.make()
            for client in clients:
                await client.until(lambda c=client: changes.seen_by(c))
        for client in clients:
            assert sorted(map(str, client.events)) == sorted(map(str, changes.made))
