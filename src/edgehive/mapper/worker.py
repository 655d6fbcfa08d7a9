"""One device at work: connected, read in its cycles, brought to its desired values, reported."""

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from edgehive.aio.own_thread import OwnThread
from edgehive.kit.backoff import Backoff
from edgehive.kit.errors import EdgehiveError
from edgehive.kit.text import safe_label
from edgehive.mapper.driver import DeviceError, Driver
from edgehive.mapper.model import Device, Property
from edgehive.mapper.reconcile import Reconciler
from edgehive.mapper.values import Value, ValueProblem, format_value

log = logging.getLogger(__name__)

T = TypeVar("T")

ONLINE = "online"
OFFLINE = "offline"
_REPEAT = 30.0  # an unchanged value is reported this often, so that its timestamp says it is alive
_FAILURES = 3  # reads that fail in a row before the connection is made anew


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one property at one moment."""

    device: Device
    prop: Property
    value: Value
    at: float
    """Seconds since the epoch."""

    @property
    def text(self) -> str:
        """The value's text."""
        return format_value(self.value)


class Reports(Protocol):
    """Where a device's news go; both return whether they arrived."""

    async def twins(self, device: Device, twins: list[dict[str, Any]]) -> bool:
        """Report values."""

    async def state(self, device: Device, state: str) -> bool:
        """Report the device's state."""

    def push(self, reading: Reading) -> None:
        """Hand a value to the push methods of its property."""


@dataclass(slots=True)
class Counters:
    """What has happened, for the metrics."""

    reads: int = 0
    read_errors: int = 0
    writes: int = 0
    write_errors: int = 0
    connects: int = 0


@dataclass(slots=True)
class _Point:
    """One property at work."""

    reconcile: Reconciler
    reading: Reading | None = None
    collect_at: float = 0.0
    push_at: float = 0.0
    told: tuple[str, str | None] | None = None
    told_at: float = 0.0
    complained: str = ""

    @property
    def prop(self) -> Property:
        return self.reconcile.prop


@dataclass(slots=True)
class _State:
    now: str = OFFLINE
    told: str = ""
    told_at: float = 0.0
    error: str = ""
    failures: int = 0
    tried: bool = False
    """Whether it is known if the device can be reached; before that there is nothing to tell."""
    points: dict[str, _Point] = field(default_factory=dict)


class DeviceWorker:
    """Runs one driver for one device."""

    def __init__(
        self,
        device: Device,
        *,
        driver: Callable[[Device], Driver],
        reports: Reports,
        rng: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.device = device
        self.counters = Counters()
        self._make = driver
        self._reports = reports
        self._clock = clock
        self._wall = wall
        self._driver: Driver | None = None
        self._limit = Driver.timeout
        self._thread = OwnThread(f"device {device.id}")
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        self._state = _State(points={p.name: _Point(Reconciler(p)) for p in device.properties.values()})
        self._backoff = Backoff(0.5, 30.0, jitter=0.2, rng=rng)

    # -- seen from outside

    @property
    def state(self) -> str:
        """``online`` or ``offline``."""
        return self._state.now

    @property
    def error(self) -> str:
        """What went wrong last, empty while all is well."""
        return self._state.error

    def reading(self, name: str) -> Reading | None:
        """The last value of a property."""
        point = self._state.points.get(name)
        return point.reading if point is not None else None

    def update(self, device: Device) -> None:
        """Take over what can change without a new connection: desired values, cycles, push methods."""
        self.device = device
        points = self._state.points
        self._state.points = {}
        for prop in device.properties.values():
            point = points.get(prop.name) or _Point(Reconciler(prop))
            point.reconcile.update(prop)
            self._state.points[prop.name] = point
        self._wake.set()

    def retell(self) -> None:
        """The other side has restarted: report everything again."""
        self._state.told = ""
        for point in self._state.points.values():
            point.told = None
        if self._state.tried:
            self._news.set()

    async def call_method(self, method: str, name: str, text: str) -> None:
        """Run a device method from outside.

        Raises:
            ValueProblem: no such method or property, or the value does not fit.
            DeviceError: the device did not do it.
        """
        found = self.device.methods.get(method)
        prop = self.device.properties.get(name)
        if found is None or prop is None or name not in found.properties:
            raise ValueProblem(f"{self.device.id} has no method {method} for {name}")
        if not prop.writable:
            raise ValueProblem(f"{name} is read-only")
        value = prop.parse_wanted(text)
        driver = self._driver
        if driver is None:
            raise DeviceError(f"{self.device.id} is offline")
        run = driver.call if type(driver).call is not Driver.call else None
        await (self._do(run, found, prop, value) if run else self._do(driver.write, prop, value))
        self.counters.writes += 1
        if (point := self._state.points.get(name)) is not None:
            point.reconcile.overridden()
            point.collect_at = 0.0
            self._wake.set()

    # -- the work

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._telling(), name=f"reports of {self.device.id}")
                await self._connections()
        finally:
            self._thread.close()

    async def _connections(self) -> None:
        while True:
            driver = self._make(self.device)
            self._limit = driver.timeout
            try:
                try:
                    if type(driver).connect is not Driver.connect:
                        await self._do(driver.connect)
                    self.counters.connects += 1
                    self._driver = driver
                    await self._work(driver)
                except DeviceError as exc:
                    self._complain(str(exc))
            finally:
                self._driver = None
                self._state.now = OFFLINE
                self._state.tried = True
                self._news.set()
                await self._close(driver)
            await asyncio.sleep(self._backoff.next())

    async def _work(self, driver: Driver) -> None:
        """Serve one connection until it breaks."""
        state = self._state
        state.failures = 0
        for point in state.points.values():
            point.collect_at = 0.0
        while True:
            self._wake.clear()
            now = self._clock()
            due = [p for p in state.points.values() if p.collect_at <= now]
            for point in due:
                await self._collect(driver, point)
            for point in state.points.values():
                await self._apply(driver, point)
            if state.failures == 0:
                self._online()
            state.tried = True
            self._news.set()
            if state.failures >= _FAILURES:
                raise DeviceError(state.error or "the device does not answer")
            await self._pause()

    def _online(self) -> None:
        if self._state.now != ONLINE:
            log.info("device %s is online", safe_label(self.device.id))
        self._state.now = ONLINE
        self._state.error = ""
        self._backoff.reset()

    async def _collect(self, driver: Driver, point: _Point) -> None:
        prop = point.prop
        now = self._clock()
        point.collect_at = now + prop.collect_cycle
        try:
            value = await self._do(driver.read, prop)
            self.counters.reads += 1
            self._state.failures = 0
            if value is None:
                return
            converted = prop.parse(value)
        except DeviceError as exc:
            self.counters.read_errors += 1
            self._state.failures += 1
            self._complain(f"{prop.name}: {exc}")
            return
        except ValueProblem as exc:
            self.counters.read_errors += 1
            self._complain_once(point, f"{prop.name}: {exc}")
            return
        point.complained = ""
        point.reading = Reading(self.device, prop, converted, self._wall())
        point.reconcile.observed(converted)
        if prop.push and now >= point.push_at:
            point.push_at = now + prop.report_cycle
            self._reports.push(point.reading)

    async def _apply(self, driver: Driver, point: _Point) -> None:
        if point.reconcile.problem:
            self._complain_once(point, point.reconcile.problem)
            return
        value = point.reconcile.due(self._clock())
        if value is None:
            return
        point.reconcile.wrote(self._clock())
        try:
            await self._do(driver.write, point.prop, value)
        except (DeviceError, ValueProblem) as exc:
            self.counters.write_errors += 1
            self._complain(f"{point.prop.name}: {exc}")
            return
        self.counters.writes += 1
        await self._collect(driver, point)

    async def _telling(self) -> None:
        """Report what is news, beside the control of the device: an edgecore that is slow or away never delays it."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self._tell()

    async def _tell(self) -> None:
        """Report what has changed, and now and then what has not."""
        await self._tell_state()
        now = self._clock()
        twins, told = [], []
        for point in self._state.points.values():
            reading, prop = point.reading, point.prop
            if reading is None or not prop.report_to_cloud:
                continue
            news = (reading.text, prop.desired)
            if point.told != news or now - point.told_at >= _REPEAT:
                twins.append(_twin(reading, prop))
                told.append((point, news))
        if twins and await self._reports.twins(self.device, twins):
            for point, news in told:
                point.told, point.told_at = news, now

    async def _tell_state(self) -> None:
        state, now = self._state, self._clock()
        repeat = self.device.state_cycle and now - state.told_at >= self.device.state_cycle
        if (state.now != state.told or repeat) and await self._reports.state(self.device, state.now):
            state.told, state.told_at = state.now, now

    async def _pause(self) -> None:
        """Wait for the next cycle, or for news from outside."""
        times = [point.collect_at for point in self._state.points.values()]
        delay = max(0.0, min(times) - self._clock()) if times else 1.0
        try:
            async with asyncio.timeout(min(delay, 1.0)):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _close(self, driver: Driver) -> None:
        if type(driver).close is Driver.close:
            return
        try:
            await self._do(driver.close)
        except DeviceError as exc:
            log.debug("closing %s: %s", safe_label(self.device.id), safe_label(str(exc)))

    async def _do(self, function: Callable[..., Awaitable[T] | T], *arguments: Any) -> T:
        """Run a driver's method, a plain one in a thread; every failure becomes `DeviceError`."""
        async with self._lock:
            try:
                async with asyncio.timeout(self._limit):
                    result = (
                        function(*arguments)
                        if inspect.iscoroutinefunction(function)
                        else await self._thread.run(function, *arguments)
                    )
                    return await result if inspect.isawaitable(result) else result
            except TimeoutError as exc:
                raise DeviceError(f"no answer within {self._limit:g} s") from exc
            except (DeviceError, ValueProblem):
                raise
            except EdgehiveError as exc:
                raise DeviceError(str(exc)) from exc
            except Exception as exc:
                # The boundary of foreign code: a fault in one driver is that device's problem.
                log.debug("driver of %s failed", safe_label(self.device.id), exc_info=True)
                raise DeviceError(f"{type(exc).__name__}: {exc}") from exc
            finally:
                # Foreign code may swallow a cancellation, as asyncio.wait_for does in Python 3.11 when the
                # answer comes at the same moment. Without this the worker would go on for ever.
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise asyncio.CancelledError

    def _complain(self, text: str) -> None:
        if text != self._state.error:
            log.warning("device %s: %s", safe_label(self.device.id), safe_label(text))
        self._state.error = text

    @staticmethod
    def _said(point: _Point, text: str) -> bool:
        old, point.complained = point.complained, text
        return old == text

    def _complain_once(self, point: _Point, text: str) -> None:
        if not self._said(point, text):
            log.warning("device %s: %s", safe_label(self.device.id), safe_label(text))


def _twin(reading: Reading, prop: Property) -> dict[str, Any]:
    metadata = {"timestamp": str(int(reading.at * 1000)), "type": prop.type.lower()}
    return {
        "propertyName": prop.name,
        "reported": {"value": reading.text, "metadata": metadata},
        # Always there, as KubeEdge's mappers send it: its edgecore dies of a twin that lacks one of the two.
        "observedDesired": {"value": prop.desired or "", "metadata": metadata},
    }


def needs_new_connection(old: Device, new: Device) -> bool:
    """Whether a change touches how the device is reached; else it is taken over on the fly."""

    def essence(device: Device) -> tuple[Any, ...]:
        return (device.protocol, dict(device.config), _visitors(device.properties.values()))

    return essence(old) != essence(new)


def _visitors(properties: Iterable[Property]) -> Mapping[str, Any]:
    return {p.name: (p.type, p.access, dict(p.visitor)) for p in properties}
