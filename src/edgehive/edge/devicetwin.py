"""The device twin of this node: the shell around `twin.core`.

One worker does what clients, mappers and the cloud ask, in the order in which they ask. It takes what has gathered
meanwhile as one batch: decide, store in one transaction, then publish and answer, then tell the cloud. What cannot
be stored has not happened, and its sender hears so.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from edgehive.beehive.hive import Delivery
from edgehive.beehive.inbox import InboxFull
from edgehive.edge.hub import CONNECTION_RESOURCE
from edgehive.edge.store import EdgeStore
from edgehive.edge.twin_objects import read_device
from edgehive.edge.twin_rows import TwinRows
from edgehive.kit.errors import EdgehiveError, ProtocolError, StorageError
from edgehive.kit.text import safe_label
from edgehive.twin import topics
from edgehive.twin.core import TwinCore
from edgehive.twin.effects import Effect, Forget, Kind, Owe, Publish, Save, ToCloud
from edgehive.twin.reports import Reports
from edgehive.wire import classify as cls
from edgehive.wire import resource as res
from edgehive.wire.message import DELETE, INSERT, UPDATE, Message, Stamp, content_data
from edgehive.wire.outbox import Entry, Settled
from edgehive.wire.resource import find_resource
from edgehive.wire.rows import answer_error

if TYPE_CHECKING:
    from edgehive.edge.dmi import TwinReport

log = logging.getLogger(__name__)

_BATCH = 256
_QUEUE = 4096
_QUEUE_BYTES = 8 << 20
_RETRY_SECONDS = 5.0
_GATHER = 8  # rounds of the event loop between two batches


class Cloud(Protocol):
    """What the twin asks of the link (`edge.hub.EdgeHub`)."""

    def send_kept(self, message: Message, *, replace: bool = False, durable: bool = True) -> Entry: ...
    def forget_kept(self, resource: str) -> None: ...
    def send_once(self, message: Message) -> bool: ...
    def on_connection(self, callback: Callable[[bool], None]) -> None: ...
    def on_settled(self, callback: Callable[[Settled], None]) -> None: ...
    def on_given_up(self, callback: Callable[[Entry], None]) -> None: ...


class DeviceObjects(Protocol):
    """Who else wants the objects (`edge.dmi.Dmi`)."""

    def set_model(self, raw: bytes) -> None: ...
    def set_device(self, raw: bytes) -> None: ...
    def remove_model(self, namespace: str, name: str) -> None: ...
    def remove_device(self, namespace: str, name: str) -> None: ...


@dataclass(slots=True, eq=False)
class _Job:
    """Something to do; `do` changes only the core, and may be called again after what it did was undone."""

    do: Callable[[], list[Effect]]
    not_done: Callable[[str], list[Effect]] | None = None
    """What to publish if it cannot be stored."""
    done: "asyncio.Future[None] | None" = None
    size: int = 0
    effects: list[Effect] = field(default_factory=list)
    problem: Exception | None = None


@dataclass(slots=True)
class TwinStats:
    """Counters since start."""

    requests: int = 0
    refused: int = 0
    """Requests that found the queue full."""
    not_stored: int = 0
    reports: int = 0
    given_up: int = 0
    """Reports the cloud has not taken: it does not know the device."""


class DeviceTwin:
    """The beehive module ``twin``, and the sink of what mappers report."""

    def __init__(self, *, node: str, store: EdgeStore, cloud: Cloud, stamp: Stamp) -> None:
        self._store = store
        self._rows = TwinRows(store)
        self._cloud = cloud
        self._stamp = stamp
        self._core = TwinCore(node=node, stamp=stamp, devices=self._rows.load())
        self._reports = Reports()
        for device, kind in self._rows.owed():
            self._owe_all(device, kind)
        self._objects: list[DeviceObjects] = []
        self._publish: Callable[[str, bytes], None] = lambda topic, payload: None
        self._jobs: deque[_Job] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._clean: set[str] = set()
        self._said_twice: set[tuple[str, str]] = set()
        self._reconcile = False
        self._unstored = False
        """Whether the last change could not be stored, and that has been logged."""
        self.stats = TwinStats()
        cloud.on_connection(self._connection)
        cloud.on_settled(self._settled)
        cloud.on_given_up(self._given_up)

    def attach(self, objects: DeviceObjects) -> None:
        """Give `objects` every device and model, now and from now on."""
        self._objects.append(objects)
        for row in self._store.rows(res.DEVICE_MODEL):
            objects.set_model(row.value)
        for row in self._store.rows(res.DEVICE):
            objects.set_device(row.value)

    def publish_to(self, publish: Callable[[str, bytes], None]) -> None:
        """Publish through `publish` from now on; it must not block."""
        self._publish = publish

    @property
    def core(self) -> TwinCore:
        """The devices, to be looked at."""
        return self._core

    def gauges(self) -> dict[str, Callable[[], float]]:
        """What the local metrics page shows."""
        return {
            "edgehive_devices": lambda: float(len(self._core)),
            "edgehive_device_requests_total": lambda: float(self.stats.requests),
            "edgehive_device_requests_refused_total": lambda: float(self.stats.refused),
            "edgehive_device_requests_not_stored_total": lambda: float(self.stats.not_stored),
            "edgehive_device_reports_total": lambda: float(self.stats.reports),
            "edgehive_device_reports_given_up_total": lambda: float(self.stats.given_up),
            "edgehive_device_reports_waiting": lambda: float(len(self._reports) + self._reports.unanswered),
        }

    async def run(self) -> None:
        """Work until cancelled; first make up for what happened to the objects while this did not run."""
        self._reconcile = True
        while True:
            if self._reconcile:
                self._reconcile = False
                self._jobs.appendleft(_Job(self._compare_objects))
            await self._work()
            self._wake.clear()
            try:
                async with asyncio.timeout(_RETRY_SECONDS if self._later() else None):
                    await self._wake.wait()
            except TimeoutError:
                self._reports.retry()
                self._forget_owed()
            else:
                await asyncio.sleep(0)  # what arrives together is done together

    # -- what is asked

    def mqtt(self, topic: str, payload: bytes) -> None:
        """A message of an MQTT client on a ``$hw/events/device`` or ``$hw/events/node`` topic."""
        if topics.parse_topic(topic) is None:
            return
        job = _Job(
            lambda: self._core.mqtt(topic, payload),
            lambda reason: self._core.not_done(topic, payload, reason),
            size=len(payload),
        )
        if not self._add(job):
            for effect in self._core.not_done(topic, payload, "too many requests are waiting"):
                self._do(effect)

    async def report_twins(self, namespace: str, name: str, twins: Sequence["TwinReport"]) -> None:
        """`edge.dmi.DeviceSink`: what a mapper has read; returns when it is stored.

        Raises:
            ProtocolError: some of it could not be taken; the rest was.
            StorageError: it could not be stored.
            InboxFull: too much is waiting.
        """
        problems: list[str] = []
        reports = [(twin.name, twin.reported, twin.observed_desired) for twin in twins]

        def do() -> list[Effect]:
            effects, problem = self._core.report_twins(f"{namespace}/{name}", reports)
            problems[:] = [problem] if problem else []
            return effects

        await self._ask(_Job(do, size=sum(len(one[1] or "") for one in reports)))
        if problems:
            raise ProtocolError(problems[0])

    async def report_state(self, namespace: str, name: str, state: str) -> None:
        """`edge.dmi.DeviceSink`: the state of a device; returns when it is stored.

        Raises:
            ProtocolError: there is no such state.
            StorageError: it could not be stored.
            InboxFull: too much is waiting.
        """
        await self._ask(_Job(lambda: self._core.report_state(f"{namespace}/{name}", state)))

    async def receive(self, delivery: Delivery[Message]) -> None:
        """Take a message of group ``twin``, or a stored object that MetaManager hands on."""
        message = delivery.message
        if message.resource == CONNECTION_RESOURCE or message.parent_id:
            return  # the link tells directly; an answer whose question is forgotten
        try:
            await self._receive(message)
        except EdgehiveError as exc:
            what = safe_label(f"{message.operation} {message.resource}")
            log.warning("devices: %s: %s", what, safe_label(str(exc)))

    async def _receive(self, message: Message) -> None:
        content = content_data(message.content)
        match message.resource.split("/"):
            case [*_, "membership", "detail"]:
                await self._must(_Job(lambda: self._core.membership(content, detail=True)))
            case [*_, "membership"]:
                await self._must(_Job(lambda: self._core.membership(content, detail=False)))
            case [*_, "device", namespace, name, "twin", "cloud_updated"]:
                await self._must(_Job(lambda: self._core.cloud_updated(f"{namespace}/{name}", content)))
            case _:
                await self._object(message, content)

    async def _object(self, message: Message, content: bytes) -> None:
        target = find_resource(message.resource)
        if target is None or not target.name or message.operation not in (INSERT, UPDATE, DELETE):
            log.debug("not for the twin: %s %s", message.operation, safe_label(message.resource))
            return
        namespace = target.namespace or "default"
        gone = message.operation == DELETE
        if target.type == res.DEVICE_MODEL:
            for objects in self._objects:
                if gone:
                    objects.remove_model(namespace, target.name)
                else:
                    objects.set_model(content)
        elif target.type == res.DEVICE:
            await self._device(namespace, target.name, None if gone else content)

    async def _device(self, namespace: str, name: str, raw: bytes | None) -> None:
        device = f"{namespace}/{name}"
        self._reports.known(device)
        try:
            if raw is None:
                await self._must(_Job(lambda: self._core.object_gone(device)))
            else:
                await self._must(_Job(lambda: self._here(device, raw)))
        except StorageError:
            self._reconcile = True  # the object is stored and acknowledged: it will not come again
            self._wake.set()
            raise
        finally:
            for objects in self._objects:
                if raw is None:
                    objects.remove_device(namespace, name)
                else:
                    objects.set_device(raw)

    def _here(self, device: str, raw: bytes) -> list[Effect]:
        facts = read_device(raw)
        return self._core.device_object(device, facts.description, facts.desired)

    def _compare_objects(self) -> list[Effect]:
        """Make devices and objects agree: what was stored and not told, or deleted and not heard of."""
        effects: list[Effect] = []
        there: set[str] = set()
        for row in self._store.rows(res.DEVICE):
            target = find_resource(row.key)
            if target is None:
                continue
            device = f"{target.namespace or 'default'}/{target.name}"
            there.add(device)
            try:
                effects += self._here(device, row.value)
            except ProtocolError as exc:
                log.warning("devices: %s: %s", safe_label(row.key), safe_label(str(exc)))
        for device in self._core.object_ids():
            if device not in there:
                effects += self._core.object_gone(device)
        return effects

    # -- doing it

    def _add(self, job: _Job) -> bool:
        if len(self._jobs) >= _QUEUE or self._bytes + job.size > _QUEUE_BYTES:
            self.stats.refused += 1
            return False
        self._append(job)
        return True

    def _append(self, job: _Job) -> None:
        self._jobs.append(job)
        self._bytes += job.size
        self._wake.set()

    async def _ask(self, job: _Job) -> None:
        """Have a job done, if there is room for it."""
        job.done = asyncio.get_running_loop().create_future()
        if not self._add(job):
            raise InboxFull("too many requests are waiting for the device twin")
        await job.done

    async def _must(self, job: _Job) -> None:
        """Have a job done; for the cloud's messages, of which there is one at a time."""
        job.done = asyncio.get_running_loop().create_future()
        self._append(job)
        await job.done

    async def _work(self) -> None:
        while self._jobs:
            batch = [self._jobs.popleft() for _ in range(min(_BATCH, len(self._jobs)))]
            self._bytes -= sum(job.size for job in batch)
            self.stats.requests += len(batch)
            if not self._try(batch):
                for job in batch:  # perhaps only one of them does not fit any more
                    if not self._try([job]):
                        self._not_stored(job)
            self._finish(batch)
            self._tell()
            # While a batch is stored nothing is read: let those who were answered ask again, so that they share the next.
            for _ in range(_GATHER if len(batch) > 1 else 1):
                await asyncio.sleep(0)
        self._tell()

    def _try(self, batch: list[_Job]) -> bool:
        """Decide and store; what cannot be stored is undone."""
        for job in batch:
            job.problem = None
            try:
                job.effects = job.do()
            except ProtocolError as exc:
                job.effects, job.problem = [], exc
            except StorageError as exc:  # the objects cannot be read; nothing was decided
                job.effects, job.problem, self._reconcile = [], exc, True
            except Exception:
                # The boundary of one request: a fault that it finds is not that of all devices, as in the original.
                log.exception("devices: a request failed")
                self._core.reset(self._rows.load())
                for one in batch:
                    one.effects, one.problem = [], EdgehiveError("internal error")
                return False
        effects = [effect for job in batch for effect in job.effects]
        if not any(isinstance(effect, Save | Forget | Owe) for effect in effects):
            return True
        try:
            self._rows.apply(effects, clean=self._clean)
        except StorageError as exc:
            touched = {e.device.id for e in effects if isinstance(e, Save)}
            touched |= {e.id for e in effects if isinstance(e, Forget)}
            for device in touched:
                self._core.restore(device, self._rows.device(device))
            for job in batch:
                job.problem = exc
            return False
        self._clean.clear()
        if self._unstored:
            self._unstored = False
            log.info("devices: what comes is stored again")
        return True

    def _not_stored(self, job: _Job) -> None:
        self.stats.not_stored += 1
        if not self._unstored:  # a full disk says the same twice a second for each device
            log.error("devices: %s; further ones are counted", job.problem)
        self._unstored = True
        job.effects = job.not_done(str(job.problem)) if job.not_done is not None else []
        if job.not_done is None and job.done is None:
            self._reconcile = True

    def _finish(self, batch: list[_Job]) -> None:
        for job in batch:
            for effect in job.effects:
                self._do(effect)
            if job.done is not None and not job.done.done():
                if job.problem is None:
                    job.done.set_result(None)
                else:
                    job.done.set_exception(job.problem)

    def _do(self, effect: Effect) -> None:
        match effect:
            case Publish(topic, payload):
                self._publish(topic, payload)
            case Owe(device, kind, names):
                self._reports.owe(device, kind, names)
                self._clean.discard(device)
            case Forget(device):
                self._reports.forget(device)
                for (
                    kind
                ) in Kind:  # a cloud that has forgotten the device first does not answer the last report
                    self._cloud.forget_kept(topics.report_resource(device, kind.value))
                self._clean.discard(device)
                self._said_twice = {key for key in self._said_twice if key[0] != device}
            case Save():
                pass

    # -- the cloud

    def _owe_all(self, device: str, kind: Kind) -> None:
        """Report everything of a device: it is not known what the cloud has heard."""
        known = self._core.devices.get(device)
        if known is not None and (known.twins if kind is Kind.TWINS else known.state):
            self._reports.owe(device, kind, known.twins if kind is Kind.TWINS else ())

    def _connection(self, up: bool) -> None:
        self._reports.connection(up)
        if up:
            self._cloud.send_once(self._message(self._core.detail_request()))
            self._tell()

    def _tell(self) -> None:
        for due in self._reports.take():
            report = self._core.report(due.id, due.kind, due.names)
            if report is None:
                self._reports.forget(due.id)
                continue
            message = self._message(report)
            try:
                # Not on disk a second time: what is owed is stored with the twins, and composed anew after a restart.
                self._cloud.send_kept(message, replace=True, durable=False)
            except StorageError as exc:
                log.warning("a report of %s waits: %s", safe_label(due.id), exc)
                self._reports.failed(due)
                self._wake.set()
                return
            self._reports.sent(due, message.id)
            self.stats.reports += 1

    def _settled(self, settled: Settled) -> None:
        self._answered(settled.entry.message, heard=answer_error(settled.answer.content) is None)

    def _given_up(self, entry: Entry) -> None:
        self._answered(entry.message, heard=False)

    def _answered(self, message: Message, *, heard: bool) -> None:
        about = topics.reported_device(message.resource) if message.source == cls.TWIN_SOURCE else None
        if about is None:
            return
        device, kind = about[0], Kind(about[1])
        names = self._reports.settled(device, kind, message.id, heard=heard)
        self._say_again(device, names)
        if not heard:
            self.stats.given_up += 1
            log.warning("the cloud does not take reports of %s: does it know the device?", safe_label(device))
        elif self._reports.clean(device):
            self._clean.add(device)
        self._wake.set()

    def _say_again(self, device: str, names: Iterable[str]) -> None:
        """Report the first value of a twin twice: the original's cloud only makes room for it the first time."""
        twins = self._core.devices[device].twins if device in self._core.devices else {}
        for name in names:
            key = (device, name)
            if key in self._said_twice:
                self._said_twice.discard(key)
            elif (twin := twins.get(name)) is not None and twin.first:
                self._said_twice.add(key)
                self._reports.owe(device, Kind.TWINS, [name])

    def _forget_owed(self) -> None:
        """Note what the cloud has confirmed; late is early enough, a report may come twice."""
        try:
            self._rows.apply((), clean=self._clean)
        except StorageError as exc:
            log.warning("devices: %s", exc)
        else:
            self._clean.clear()

    def _later(self) -> bool:
        return self._reconcile or bool(self._clean) or self._reports.has_failed

    def _message(self, report: ToCloud) -> Message:
        new_id, timestamp = self._stamp()
        return Message(
            id=new_id,
            timestamp=timestamp,
            operation=report.operation,
            resource=report.resource,
            content=report.content,
            source=cls.TWIN_SOURCE,
            group=cls.RESOURCE_GROUP,
        )
