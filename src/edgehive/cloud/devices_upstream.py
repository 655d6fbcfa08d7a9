"""The device controller's upward half: what devices report becomes their DeviceStatus.

A report is answered only when the write that contains it is stored, since the edge forgets it then. Reports of one
device are written together, about once a second however many come. Several instances may do this at once: each has
its own nodes, and a write is refused by the API server if another has written since it was prepared.

Not answered are reports on a device that is not there, or not on that node: either the Device is just being created
or moved and this instance does not know it yet, or the edge will soon be told that it has the device no more. The
edge keeps such a report and sends it again, for as long as it has the device.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from edgehive.cloud.devices_index import DeviceIndex, DevicePlace
from edgehive.cloud.devices_status import DeviceState, new_status, parse_status, status_fields
from edgehive.cloud.edgerequest import encode_error
from edgehive.cloud.impersonation import Impersonation
from edgehive.cloud.paced import Paced, PacedRunner
from edgehive.kit.errors import EdgehiveError, ProtocolError
from edgehive.kit.text import safe_label
from edgehive.kube.api import MERGE_PATCH, KubeApi, ListOptions, WriteOptions
from edgehive.kube.crd_devices import DEVICE_STATUSES
from edgehive.kube.reflector import Key, decode_cached
from edgehive.kube.status import ApiStatus, bad_request
from edgehive.wire.devices import DeviceReport, parse_report, report_answer
from edgehive.wire.message import OK, Message, Stamp
from edgehive.wire.outbound import Outbound

log = logging.getLogger(__name__)

_WAITING: Final = 512
"""Reports of one device that wait for a write; one more is not taken, and the edge sends it again."""
_FINAL: Final = frozenset({400, 405, 413, 415, 422})
"""What the API server will say to the same write for ever."""
_PAGE: Final = 500
_WARNED: Final = 256


class Nodes(Protocol):
    """The connected nodes."""

    def answer(self, node: str, message: Outbound) -> None:
        """Send `message` if `node` is connected."""
        ...


@dataclass(slots=True)
class ReportStats:
    """Counters."""

    reports: int = 0
    answered: int = 0
    writes: int = 0
    """Requests that stored something."""
    failures: int = 0
    malformed: int = 0
    refused: int = 0
    """Refused by the API server for good."""
    unknown: int = 0
    """About a device that is not there."""
    foreign: int = 0
    """About a device of another node."""
    overflowed: int = 0
    properties: int = 0
    """Values of properties that their device does not have."""


@dataclass(slots=True)
class _Open:
    """A device that reports: what is stored, as far as known, and what is to be."""

    waiting: list[tuple[str, str, DeviceReport]] = field(default_factory=list)
    """Node, message id, report; in the order they came."""
    state: DeviceState | None = None
    version: str = ""
    uid: str = ""
    """Of the device that `state` belongs to."""


Written = Callable[[Key, DeviceState], None]


class DeviceReports:
    """Takes reports, writes DeviceStatuses, answers."""

    def __init__(
        self,
        *,
        api: KubeApi,
        index: DeviceIndex,
        nodes: Nodes,
        stamp: Stamp,
        impersonation: Impersonation,
        types: Callable[[Key], Mapping[str, str]] = lambda model: {},
        interval: float = 1.0,
        written: Written = lambda key, state: None,
        found: Written = lambda key, state: None,
    ) -> None:
        """Wire up.

        `impersonation` says in whose name reports are written, `types` what a model's properties are; `interval` is the
        least time between two writes of one device in seconds; `written` hears of what is stored, `found` of what
        was stored before this process began.
        """
        self._api = api
        self._index = index
        self._nodes = nodes
        self._stamp = stamp
        self._impersonation = impersonation
        self._types = types
        self._written = written
        self._found = found
        self._open: dict[Key, _Open] = {}
        self._missing: set[Key] = set()
        self._runner: PacedRunner[Key] = PacedRunner(Paced(interval=interval), self._work)
        self._warned: set[tuple[str, str]] = set()
        self._listed = False
        self._failing = False
        self.stats: Final = ReportStats()

    @property
    def pending(self) -> int:
        """Devices with something to write."""
        return self._runner.plan.depth

    def receive(self, node: str, message: Message) -> None:
        """Take a report off a connection."""
        self.stats.reports += 1
        try:
            report = parse_report(message)
        except ProtocolError as exc:
            self.stats.malformed += 1
            self._warn(node, "malformed", f"{safe_label(message.resource)}: {exc}")
            self._answer(node, message.id, encode_error(bad_request(str(exc))))
            return
        key = (report.namespace, report.name)
        place = self._index.place(key)
        if place is None:
            self.stats.unknown += 1
            self._warn(
                node, "unknown", f"reports on the device {safe_label('/'.join(key))}, which does not exist"
            )
            return
        if place.node != node:
            self.stats.foreign += 1
            self._warn(node, "foreign", f"reports on the device {'/'.join(key)}, which is not on it")
            return
        device = self._open.setdefault(key, _Open())
        if len(device.waiting) >= _WAITING:
            self.stats.overflowed += 1
            return
        device.waiting.append((node, message.id, report))
        self._runner.want(key)

    def device_added(self, key: Key) -> None:
        """There is a new device: its DeviceStatus is made, with nothing in it."""
        if self._listed:
            self._missing.add(key)
            self._runner.want(key)

    def device_gone(self, key: Key) -> None:
        """The device was deleted, or left its node."""
        self._open.pop(key, None)
        self._missing.discard(key)
        self._runner.plan.forget(key)

    async def run(self, devices: Callable[[], Awaitable[Iterable[Key]]]) -> None:
        """Write until cancelled; `devices` waits until all are known, and gives them."""
        self._missing |= set(await devices()) - await self._existing()
        self._listed = True
        for key in self._missing:
            self._runner.want(key)
        await self._runner.run()

    async def _existing(self) -> set[Key]:
        """The devices that have a status; whatever is left out is made again, which does no harm."""
        found: set[Key] = set()
        token = ""
        try:
            while True:
                page = await self._api.list(DEVICE_STATUSES, ListOptions(limit=_PAGE, continue_token=token))
                for raw in page.items:
                    key = decode_cached(raw).key
                    found.add(key)
                    self._found(key, parse_status(raw)[0])
                token = page.continue_token
                if not token:
                    return found
        except EdgehiveError as exc:
            log.debug("the DeviceStatuses cannot be listed: %s", exc)
            return found

    # -- writing

    async def _work(self, key: Key) -> bool:
        device, place = self._open.get(key, _Open()), self._index.place(key)
        if place is None:
            return True
        batch, device.waiting = device.waiting, []
        try:
            if batch:
                await self._store(key, place, device, batch)
            elif key in self._missing:
                await self._create(key, place)
            self._missing.discard(key)
        except ApiStatus as exc:
            return self._refused(key, device, batch, exc)
        except EdgehiveError as exc:
            return self._put_back(key, device, batch, exc)
        except BaseException:
            device.state = None  # what was merged into it is not stored
            device.waiting = batch + device.waiting
            raise
        self._failing = False
        for node, message_id, _ in batch:
            self._answer(node, message_id, OK)
        self.stats.answered += len(batch)
        return True

    async def _store(
        self, key: Key, place: DevicePlace, device: _Open, batch: list[tuple[str, str, DeviceReport]]
    ) -> None:
        if device.state is None or device.uid != place.uid:
            await self._load(key, place, device)
        state = device.state
        assert state is not None, "just loaded"
        dropped = changed = state.keep_only(place.properties)
        for _, _, report in batch:
            new, foreign = state.apply(report, place.properties)
            changed = changed or new
            self.stats.properties += foreign
        if not changed:
            return
        status = status_fields(state, self._types(place.model) if place.model is not None else None)
        if dropped:
            status.setdefault("twins", [])  # or the last of them would stay
        body = {"metadata": {"resourceVersion": device.version}, "status": status}
        raw = await self._api.patch(
            DEVICE_STATUSES, key[1], msgspec.json.encode(body), MERGE_PATCH, self._options(key, place.node)
        )
        self.stats.writes += 1
        device.version = decode_cached(raw).meta.resource_version
        self._written(key, state)

    async def _load(self, key: Key, place: DevicePlace, device: _Open) -> None:
        """Read what is stored, making it if it is not there."""
        options = WriteOptions(namespace=key[0], field_manager="cloudcore")
        try:
            raw = await self._api.get(DEVICE_STATUSES, key[1], options)
        except ApiStatus as exc:
            if exc.code != 404:
                raise
            raw = await self._create(key, place)
        state, version, owner = parse_status(raw)
        if owner and owner != place.uid:
            # Left over from a device of the same name; Kubernetes is about to collect it.
            await self._api.delete(DEVICE_STATUSES, key[1], options)
            state, version, owner = parse_status(await self._create(key, place))
        device.state, device.version, device.uid = state, version, place.uid

    async def _create(self, key: Key, place: DevicePlace) -> bytes:
        options = WriteOptions(namespace=key[0], field_manager="cloudcore")
        try:
            raw = await self._api.create(DEVICE_STATUSES, new_status(key, place.uid), options)
        except ApiStatus as exc:
            if exc.reason != "AlreadyExists":
                raise
            return await self._api.get(DEVICE_STATUSES, key[1], options)
        self.stats.writes += 1
        return raw

    def _options(self, key: Key, node: str) -> WriteOptions:
        return self._impersonation.options(node, key[0], field_manager="cloudcore")

    def _refused(
        self, key: Key, device: _Open, batch: list[tuple[str, str, DeviceReport]], exc: ApiStatus
    ) -> bool:
        if exc.code not in _FINAL:
            return self._put_back(key, device, batch, exc)
        device.state = None
        self._missing.discard(key)
        self.stats.refused += len(batch)
        log.warning("the status of device %s/%s is refused: %s", *key, safe_label(str(exc), 400))
        for node, message_id, _ in batch:
            self._answer(node, message_id, encode_error(exc))
        return True

    def _put_back(
        self, key: Key, device: _Open, batch: list[tuple[str, str, DeviceReport]], exc: EdgehiveError
    ) -> bool:
        device.state = None  # what is stored is not known any more
        device.waiting = (batch + device.waiting)[:_WAITING]
        self.stats.failures += 1
        expected = isinstance(exc, ApiStatus) and exc.code in (404, 409)
        # Once for all devices: an API server that is away fails each of them, again and again.
        level = logging.DEBUG if expected or self._failing else logging.WARNING
        self._failing = self._failing or not expected
        log.log(level, "the status of device %s/%s is not stored: %s", *key, safe_label(str(exc), 400))
        return False

    def _answer(self, node: str, message_id: str, content: bytes) -> None:
        self._nodes.answer(node, report_answer(message_id, content, stamp=self._stamp))

    def _warn(self, node: str, about: str, text: str) -> None:
        """Warn once a node about the same thing, so that a peer cannot fill the log."""
        first = (node, about) not in self._warned and len(self._warned) < _WARNED
        if first:
            self._warned.add((node, about))
        log.log(logging.WARNING if first else logging.DEBUG, "node %s %s", node, safe_label(text, 300))
