"""Sending values to where a property's push methods say, beside edgecore: a slow receiver costs values, never time.

Each receiver has a queue of its own; when it is full the oldest value is dropped and counted.
"""

import asyncio
import json
import logging
from collections import deque
from typing import Any, cast

import aiohttp

from edgehive.kit.errors import EdgehiveError, Unreachable
from edgehive.kit.text import safe_label
from edgehive.mapper.model import Device, PushTarget
from edgehive.mapper.push_clients import Database, Sender, Unsupported, is_database, make_sender
from edgehive.mapper.worker import Reading

log = logging.getLogger(__name__)

_QUEUE = 256
_RECEIVERS = 256
_IDLE = 300.0  # seconds after which a receiver nobody sends to is let go
_RETRY = 5.0


class _Receiver:
    """One destination: its queue and the task that empties it."""

    def __init__(self, target: PushTarget, session: aiohttp.ClientSession) -> None:
        self.dropped = 0
        self.sent = 0
        self.failed = 0
        self.kind = target.kind
        self._target = target
        self._session = session
        self._queue: deque[Reading] = deque(maxlen=_QUEUE)
        self._sender: Sender | None = None
        self._filled = asyncio.Event()

    def put(self, reading: Reading) -> None:
        if len(self._queue) == _QUEUE:
            self.dropped += 1
        self._queue.append(reading)
        self._filled.set()

    async def run(self) -> None:
        """Send until nobody has sent for a while."""
        try:
            sender = self._sender = make_sender(self._target, self._session)
        except Unsupported as exc:
            log.warning("values cannot be pushed: %s", safe_label(str(exc)))
            self._queue.clear()
            await asyncio.sleep(_IDLE)
            return
        silent = False
        try:
            while True:
                while self._queue:
                    reading = self._queue[0]
                    try:
                        await sender.send(reading)
                    except EdgehiveError as exc:
                        self.failed += 1
                        if not silent:
                            log.warning("pushing by %s: %s", self._target.kind, safe_label(str(exc)))
                        silent = True
                        if isinstance(exc, Unreachable):
                            await asyncio.sleep(_RETRY)
                            continue
                    else:
                        self.sent += 1
                        silent = False
                    if self._queue and self._queue[0] is reading:
                        self._queue.popleft()
                self._filled.clear()
                async with asyncio.timeout(_IDLE):
                    await self._filled.wait()
        except TimeoutError:
            return
        finally:
            self._sender = None
            await sender.close()

    async def history(self, device: Device, prop: str, limit: int) -> list[dict[str, Any]] | None:
        """What the destination has of a property; None when it is no database that can be asked."""
        if self._sender is None or not is_database(self._sender):
            return None
        return await cast(Database, self._sender).history(device, prop, limit)


class PushHub:
    """All receivers of one mapper."""

    def __init__(self) -> None:
        self._receivers: dict[str, _Receiver] = {}
        self._gone: dict[str, tuple[int, int, int]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._session: aiohttp.ClientSession | None = None

    def push(self, reading: Reading) -> None:
        """Queue a value for every push method of its property."""
        for target in reading.prop.push:
            key = _key(target)
            receiver = self._receivers.get(key)
            if receiver is None:
                if self._group is None or self._session is None or len(self._receivers) >= _RECEIVERS:
                    continue
                receiver = self._receivers[key] = _Receiver(target, self._session)
                self._group.create_task(self._keep(key, receiver))
            receiver.put(reading)

    async def history(self, device: Device, limit: int) -> list[dict[str, Any]] | None:
        """What databases have of a device, `limit` values a property; None when it has none to ask.

        Raises:
            EdgehiveError: the database does not answer.
        """
        found: list[dict[str, Any]] | None = None
        for prop in device.properties.values():
            for target in prop.push:
                receiver = self._receivers.get(_key(target))
                rows = await receiver.history(device, prop.name, limit) if receiver is not None else None
                if rows is not None:
                    found = (found or []) + rows
                    break
        return found

    def counts(self) -> dict[str, tuple[int, int, int]]:
        """Values sent, failed and dropped, by kind of push method, since the mapper started."""
        result = dict(self._gone)
        for receiver in self._receivers.values():
            _add(result, receiver)
        return result

    async def run(self) -> None:
        """Send until cancelled."""
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            self._session, self._group = session, group
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self._session = self._group = None

    async def _keep(self, key: str, receiver: _Receiver) -> None:
        try:
            await receiver.run()
        finally:
            self._receivers.pop(key, None)
            _add(self._gone, receiver)


def _key(target: PushTarget) -> str:
    return target.kind + json.dumps(target.options, sort_keys=True, default=str)


def _add(totals: dict[str, tuple[int, int, int]], receiver: _Receiver) -> None:
    sent, failed, dropped = totals.get(receiver.kind, (0, 0, 0))
    totals[receiver.kind] = (sent + receiver.sent, failed + receiver.failed, dropped + receiver.dropped)
