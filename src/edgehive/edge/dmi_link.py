"""What one mapper has been told, and telling it what it has not: calls that are repeated until they succeed.

KubeEdge calls a mapper once and forgets: a mapper that is busy or restarting misses devices for good. Here the wanted
state is compared with the last successfully told one, so the newest wins and nothing piles up while a mapper is away.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from edgehive.aio import dmi_messages as dmi
from edgehive.aio import protobuf
from edgehive.aio.grpc import DEADLINE_EXCEEDED, UNAVAILABLE, GrpcClient, GrpcError
from edgehive.kit.backoff import Backoff
from edgehive.kit.errors import ProtocolError, Transient
from edgehive.kit.text import safe_label

log = logging.getLogger(__name__)

_CALL_SECONDS = 10.0
_LANES = 8  # calls at once
_REFUSALS = 5  # a mapper that refuses an object this often is not asked again until the object changes
_NOT_NOW = (DEADLINE_EXCEEDED, UNAVAILABLE)


class Kind(Enum):
    """What a key names."""

    MODEL = "model"
    DEVICE = "device"


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """A device or model."""

    kind: str
    namespace: str
    name: str


def device_key(namespace: str, name: str) -> Key:
    """The key of a device."""
    return Key(Kind.DEVICE.value, namespace, name)


def model_key(namespace: str, name: str) -> Key:
    """The key of a model."""
    return Key(Kind.MODEL.value, namespace, name)


@dataclass(slots=True)
class MapperInfo:
    """A mapper, as it has introduced itself."""

    name: str
    protocol: str
    address: str
    version: str = ""
    api_version: str = ""
    state: str = ""


@dataclass(slots=True)
class _Told:
    wanted: dict[Key, bytes] = field(default_factory=dict)
    """Encoded messages: a tenth of what they take as objects."""
    sent: dict[Key, bytes] = field(default_factory=dict)
    """What the mapper has; empty: something, perhaps."""
    refused: dict[Key, int] = field(default_factory=dict)


Note = Callable[[Mapping[Key, bytes | None], bool], None]
"""Keeps what a mapper has been told (``None``: it was taken away); the flag says that this is all it has."""


class MapperLink:
    """One mapper: `want` and `drop` say what it should have, `run` makes it so."""

    def __init__(
        self,
        info: MapperInfo,
        *,
        rng: Callable[[], float],
        note: Note = lambda told, everything: None,
        connect: Callable[[str], GrpcClient] = GrpcClient,
        backoff: Backoff | None = None,
    ) -> None:
        self.info = info
        self._note = note
        self._client = connect(info.address)
        self._told = _Told()
        self._changed = asyncio.Event()
        self._greeted = asyncio.Event()
        self._backoff = backoff or Backoff(0.5, 30.0, jitter=0.2, rng=rng)

    def registered(self, info: MapperInfo, objects: Mapping[Key, bytes]) -> None:
        """The mapper has (re)started and got exactly `objects` in the answer to its registration."""
        if info.address != self.info.address:
            raise ProtocolError("a mapper's link cannot change its address")
        self.info = info
        self._told = _Told(dict(objects), dict(objects))
        self._note(objects, True)
        self._greet()

    def adopt(self, objects: Mapping[Key, bytes], told: Mapping[Key, bytes]) -> None:
        """We have restarted: the mapper should have `objects` and was `told` those before.

        It is not asked what it has: KubeEdge's mappers die of the question (their GetDevice looks for a field in a
        pointer). One that has restarted, too, registers again.
        """
        self._told = _Told(
            dict(objects), {key: _shared(body, objects.get(key)) for key, body in told.items()}
        )
        self._greet()

    def want(self, key: Key, body: bytes) -> None:
        """The mapper should have this."""
        self._told.wanted[key] = body
        self._told.refused.pop(key, None)
        self._changed.set()

    def drop(self, key: Key) -> None:
        """The mapper should no longer have this."""
        self._told.wanted.pop(key, None)
        self._told.refused.pop(key, None)
        self._changed.set()

    @property
    def pending(self) -> int:
        """How many objects the mapper has not been told of yet."""
        return len(self._todo())

    async def run(self) -> None:
        """Tell the mapper what it should know, until cancelled."""
        try:
            while True:
                self._changed.clear()
                self._greeted.clear()
                if not await self._pass():
                    with contextlib.suppress(TimeoutError):  # news alone do not wake a mapper that is away
                        async with asyncio.timeout(self._backoff.next()):
                            await self._greeted.wait()
                    continue
                self._backoff.reset()
                await self._changed.wait()
        finally:
            await self._client.close()

    def _greet(self) -> None:
        self._backoff.reset()
        self._greeted.set()
        self._changed.set()

    def _todo(self) -> list[Key]:
        """Keys that differ: models before the devices that use them, removals last and the other way round."""
        told = self._told
        give = [k for k, body in told.wanted.items() if told.sent.get(k) != body]
        take = [k for k in told.sent if k not in told.wanted]
        keys = [*sorted(give, key=lambda k: k.kind, reverse=True), *sorted(take, key=lambda k: k.kind)]
        return [k for k in keys if told.refused.get(k, 0) < _REFUSALS]

    async def _pass(self) -> bool:
        """Go once through everything; whether nothing is left to be tried again."""
        results: list[bool] = []
        away = asyncio.Event()
        for _, stage in itertools.groupby(self._todo(), lambda k: (k.kind, k in self._told.wanted)):
            waiting = iter(list(stage))

            async def lane(keys: Iterator[Key] = waiting) -> None:
                for key in keys:
                    if away.is_set():
                        return
                    results.append(await self._one(key, away))

            async with asyncio.TaskGroup() as group:
                for _ in range(_LANES):
                    group.create_task(lane())
        return not away.is_set() and (all(results) or not self._todo())

    async def _one(self, key: Key, away: asyncio.Event) -> bool:
        """Tell one thing; whether it has been told."""
        told = self._told
        body = told.wanted.get(key)
        try:
            await (self._remove(key) if body is None else self._give(key, body))
        except Transient as exc:
            if not away.is_set():
                log.info("mapper %s does not answer: %s", safe_label(self.info.name), safe_label(str(exc)))
            away.set()
            if told is not self._told:
                self._overtaken(key)
            return False
        except (GrpcError, ProtocolError) as exc:
            if told is not self._told:
                self._overtaken(key)
                return False
            if not (isinstance(exc, GrpcError) and exc.code in _NOT_NOW):
                told.refused[key] = told.refused.get(key, 0) + 1
            log.warning(
                "mapper %s does not take %s %s/%s: %s",
                safe_label(self.info.name),
                key.kind,
                safe_label(key.namespace),
                safe_label(key.name),
                safe_label(str(exc)),
            )
            return False
        if told is not self._told:
            self._overtaken(key)
            return False
        told.refused.pop(key, None)
        if body is None:
            told.sent.pop(key, None)
        else:
            told.sent[key] = body
        self._note({key: body}, False)
        return True

    def _overtaken(self, key: Key) -> None:
        """The mapper registered while it was told of `key`: which of the two it took last is not known."""
        told = self._told
        if key in told.wanted:
            told.sent[key] = b""
        else:
            told.sent.setdefault(key, b"")
        self._changed.set()

    async def _give(self, key: Key, body: bytes) -> None:
        known = key in self._told.sent
        if key.kind == Kind.MODEL.value:
            method = "UpdateDeviceModel" if known else "CreateDeviceModel"
            await self._call(method, protobuf.encode(dmi.MODEL_REQUEST, {"model": body}))
            return
        method = "UpdateDevice" if known else "RegisterDevice"
        await self._call(method, protobuf.encode(dmi.DEVICE_REQUEST, {"device": body}))

    async def _remove(self, key: Key) -> None:
        if key.kind == Kind.MODEL.value:
            name = {"modelName": key.name, "modelNamespace": key.namespace}
            await self._call("RemoveDeviceModel", protobuf.encode(dmi.MODEL_NAME, name))
        else:
            name = {"deviceName": key.name, "deviceNamespace": key.namespace}
            await self._call("RemoveDevice", protobuf.encode(dmi.DEVICE_NAME, name))

    async def _call(self, method: str, request: bytes) -> bytes:
        return await self._client.call(dmi.MAPPER_SERVICE + method, request, timeout=_CALL_SECONDS)


def _shared(told: bytes, wanted: bytes | None) -> bytes:
    """One object in memory for what is equal."""
    return wanted if wanted is not None and wanted == told else told
