"""What the replica follows: selections of the Kubernetes API that the cloud watches for this edge.

A selection (a *scope*) is begun when a client first lists or watches it. Following it means a watch in the cloud and
one complete list after it. It ends some minutes after the last client. After a reconnect everything is listed again,
so that nothing that happened meanwhile is missed. When the cloud is silent, what is held is the answer.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from edgehive.edge.metaserver_store import Replica
from edgehive.kit.errors import EdgehiveError, ProtocolError, StorageError, Unreachable
from edgehive.kit.malformed import MALFORMED
from edgehive.kit.text import safe_label
from edgehive.kube.meta import decode_partial
from edgehive.kube.refs import GVR
from edgehive.kube.status import ApiStatus
from edgehive.wire import application as apps
from edgehive.wire.application import Application, ResourceKey
from edgehive.wire.message import Message, Stamp
from edgehive.wire.outbound import parse_version

log = logging.getLogger(__name__)

ANSWER_WAIT: Final = 10.0
"""Seconds to wait for the cloud when it alone can answer, as in KubeEdge."""
LOCAL_WAIT: Final = 2.0
"""Seconds to wait for it when there is a local answer."""
_SILENT = 10.0  # after a wait in vain, local answers are given at once for so long
_IDLE = 300.0  # how long a scope is followed after its last client
_TICK = 15.0
_SOON = 0.5  # seconds; doubled with every failure
_FIRST = ("/version", "/api", "/apis", "/api/v1")
MAX_SCOPES: Final = 200


class Link(Protocol):
    """What is used of `edge.hub.EdgeHub`."""

    connected: bool

    async def request(self, message: Message, timeout: float = 60.0) -> Message: ...
    def on_connection(self, callback: Callable[[bool], None]) -> None: ...


@dataclass(frozen=True, slots=True)
class Scope:
    """A selection: empty strings select everything."""

    gvr: GVR
    namespace: str = ""
    labels: str = ""
    fields: str = ""

    def __str__(self) -> str:
        return f"{ResourceKey(self.gvr, self.namespace)}?{self.labels}?{self.fields}"

    def covers(self, other: "Scope") -> bool:
        """Tell whether everything `other` selects is selected."""
        return (
            self.gvr == other.gvr
            and self.namespace in ("", other.namespace)
            and self.labels in ("", other.labels)
            and self.fields in ("", other.fields)
        )


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far an answer can be trusted: it is of now, or of `as_of` (seconds since the epoch; 0: never complete)."""

    live: bool
    as_of: float = 0.0
    notice: str = ""
    """What else the client should know."""


@dataclass(slots=True, eq=False)
class _Followed:
    scope: Scope
    application: Application
    used: float
    watchers: int = 0
    live: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


Selects = Callable[[Scope], Callable[[bytes], bool]]
"""Makes the test whether an object belongs to a scope."""


class Follower:
    """Keeps the replica's scopes up to date, and carries single requests; `run` drives it."""

    def __init__(
        self,
        *,
        node: str,
        link: Link,
        replica: Replica,
        stamp: Stamp,
        selects: Selects,
        now: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self.node = node
        self._link = link
        self._replica = replica
        self._stamp = stamp
        self.selects = selects
        self._now = now
        self._wall = wall
        self._followed: dict[Scope, _Followed] = {}
        self._known = replica.scopes()
        self._silent_until = 0.0
        self._reconnected = asyncio.Event()
        self._stale = False
        link.on_connection(self._connection_changed)

    def __len__(self) -> int:
        return len(self._followed)

    @property
    def connected(self) -> bool:
        """Whether the cloud is there."""
        return self._link.connected

    @property
    def patience(self) -> float:
        """How long to wait for the cloud when there is a local answer."""
        return 0.0 if self._now() < self._silent_until or not self._link.connected else LOCAL_WAIT

    @property
    def hope(self) -> float:
        """How long to wait for the cloud when there is no local answer; less if it has just been silent."""
        return LOCAL_WAIT if self._now() < self._silent_until else ANSWER_WAIT

    async def run(self) -> None:
        """Renew what is followed after every reconnect, and end what nobody uses; until cancelled."""
        again = _SOON
        while True:
            self._reconnected.clear()
            if self._lacking:
                await self._renew()
            self._end_idle()
            if self._stale and self._link.connected:
                await self._tell_watches()
            # What the cloud could not do just now it can do soon: nobody should see an old state for long.
            again = min(2 * again, _TICK) if self._lacking else _SOON
            try:
                async with asyncio.timeout(again if self._lacking else _TICK):
                    await self._reconnected.wait()
            except TimeoutError:
                if not self._lacking:
                    await self.prefetch()
            else:
                again = _SOON

    @property
    def _lacking(self) -> bool:
        """Whether there is a cloud and something followed is not up to date."""
        return self._link.connected and any(not f.live for f in self._followed.values())

    async def prefetch(self) -> None:
        """Keep what every client asks first, so that one that never came while there was a cloud can work offline."""
        for path in _FIRST:
            if not self._link.connected or self._replica.document(path) is not None:
                continue
            try:
                self._replica.keep_document(path, await self.ask(self.application(path, apps.GET)))
            except (ApiStatus, EdgehiveError) as exc:
                log.info("%s is not kept for offline use now: %s", path, safe_label(str(exc)))
                return

    # single requests

    async def ask(self, application: Application, wait: float = ANSWER_WAIT) -> bytes:
        """Send one request to the cloud and return the body of its answer.

        Raises:
            ApiStatus: the cloud refused.
            Unreachable: it is not there, or did not answer in time.
        """
        message = apps.request_message(application.identified(), stamp=self._stamp)
        try:
            async with asyncio.timeout(wait):
                answer = await self._link.request(message, wait + 1.0)
        except TimeoutError:
            self._silent_until = self._now() + _SILENT
            raise Unreachable("timeout to get response for message " + message.id) from None
        self._silent_until = 0.0
        try:
            done = apps.decode_application(answer.content)
        except ProtocolError as exc:
            raise ApiStatus(500, "InternalError", str(exc)) from exc
        failure = done.failure()
        if failure is not None:
            raise failure
        return done.response

    def application(self, key: ResourceKey | str, verb: str, option: object = None) -> Application:
        """A request of this node."""
        return Application(str(key), verb, self.node, msgspec.json.encode(option or {}))

    # scopes

    def live(self, scope: Scope) -> bool:
        """Whether a followed scope that is up to date covers `scope`."""
        return any(f.live and s.covers(scope) for s, f in self._followed.items())

    def freshness(self, scope: Scope) -> Freshness:
        """How fresh the answer for `scope` is now."""
        if self._link.connected and self.live(scope):
            return Freshness(True)
        times = [at for name, (_, at) in self._known.items() if _covers(name, scope)]
        return Freshness(False, max(times, default=0.0))

    async def ensure(self, scope: Scope) -> Freshness:
        """Follow `scope` if that is possible in good time, and say how fresh its answer is.

        Raises:
            ApiStatus: the cloud refuses, and nothing of it was ever complete here.
            Unreachable: there is no cloud and nothing of it here.
        """
        for held, followed in self._followed.items():
            if followed.live and held.covers(scope):
                followed.used = self._now()
                return self.freshness(scope)
        local = self.freshness(scope).as_of > 0
        wait = self.patience if local or self._replica.has(scope.gvr) else self.hope
        try:
            if wait and self._link.connected:
                async with asyncio.timeout(wait):
                    await self._follow(self._begin(scope))
            elif not local and not self._replica.has(scope.gvr):
                raise Unreachable("the cloud is not reachable, and nothing of it is kept here")
        except TimeoutError:
            self._silent_until = self._now() + _SILENT
            self._reconnected.set()  # it goes on without this client
            if not local and not self._replica.has(scope.gvr):
                raise Unreachable("the cloud does not answer, and nothing of it is kept here") from None
        except Unreachable:
            if not local and not self._replica.has(scope.gvr):
                raise
        except ApiStatus as exc:
            if not (exc.retryable and local):
                raise
        return self.freshness(scope)

    @asynccontextmanager
    async def watching(self, scope: Scope) -> AsyncIterator[None]:
        """Keep `scope` followed while a client watches it."""
        followed = self._begin(scope)
        followed.watchers += 1
        if not followed.live:
            self._reconnected.set()
        try:
            yield
        finally:
            followed.watchers -= 1
            followed.used = self._now()

    def _begin(self, scope: Scope) -> _Followed:
        covering = next((f for s, f in self._followed.items() if s.covers(scope)), None)
        if covering is not None:
            covering.used = self._now()
            return covering
        if len(self._followed) >= MAX_SCOPES:
            raise ApiStatus(429, "TooManyRequests", f"more than {MAX_SCOPES} selections are followed at once")
        option = {"sendInitialEvents": False} | _selectors(scope)
        application = self.application(ResourceKey(scope.gvr, scope.namespace), apps.WATCH, option)
        followed = _Followed(scope, application.identified(), self._now())
        self._followed[scope] = followed
        return followed

    async def _follow(self, followed: _Followed) -> None:
        """Watch, then list; raises `ApiStatus` or `Unreachable`."""
        async with followed.lock:
            if followed.live:
                return
            try:
                await self.ask(followed.application)
                await self._list(followed.scope)
            except ApiStatus:
                if not followed.watchers:
                    self._followed.pop(followed.scope, None)
                    self._stale = True
                raise
            followed.live = self._link.connected

    async def _list(self, scope: Scope) -> None:
        key = ResourceKey(scope.gvr, scope.namespace)
        body = await self.ask(self.application(key, apps.LIST, _selectors(scope)))
        try:
            found = msgspec.json.decode(body, type=_List)
            raws = [bytes(item) for item in found.items or ()]
            seen = {(m.namespace, m.name) for m in (decode_partial(raw).metadata for raw in raws)}
        except MALFORMED as exc:
            raise ApiStatus(500, "InternalError", f"the cloud did not answer with a list: {exc}") from exc
        revision = parse_version(found.metadata.resource_version)
        selects = self.selects(scope)
        gone = []
        prefix = f"{scope.namespace}/" if scope.namespace else ""
        for short, record in self._replica.scan(scope.gvr, prefix):
            namespace, _, name = short.rpartition("/")
            if (namespace, name) not in seen and selects(record.value):
                gone.append(ResourceKey(scope.gvr, namespace, name))
        self._replica.replace(scope.gvr, raws, revision, gone)
        self._known[str(scope)] = (revision, self._wall())
        self._replica.keep_scope(str(scope), scope.gvr, revision, self._wall())

    async def _renew(self) -> None:
        try:
            if not await self._tell_watches():
                return
            for followed in list(self._followed.values()):
                if not followed.live and followed.scope in self._followed:
                    await self._follow_quietly(followed)
        except Unreachable as exc:
            log.info("what is followed cannot be renewed now: %s", exc)

    async def _follow_quietly(self, followed: _Followed) -> None:
        try:
            await self._follow(followed)
        except ApiStatus as exc:
            log.warning(
                "%s is not followed any more: %s", safe_label(str(followed.scope)), safe_label(str(exc))
            )
        except StorageError as exc:  # it is tried again, as long as the disk takes nothing
            log.warning("%s is not kept: %s", safe_label(str(followed.scope)), exc)

    async def _tell_watches(self) -> bool:
        """Tell the cloud everything that is watched; one message."""
        self._stale = False
        watches = [followed.application for followed in self._followed.values()]
        try:
            await self._link.request(apps.watch_sync_message(watches, stamp=self._stamp), ANSWER_WAIT)
        except Unreachable:
            self._stale = True
            return False
        return True

    def _end_idle(self) -> None:
        now = self._now()
        for scope, followed in list(self._followed.items()):
            if not followed.watchers and now - followed.used > _IDLE:
                del self._followed[scope]
                self._stale = True

    def _connection_changed(self, up: bool) -> None:
        for followed in self._followed.values():
            if followed.live:
                self._mark(followed)
            followed.live = False
        if up:
            self._silent_until = 0.0
            self._reconnected.set()

    def _mark(self, followed: _Followed) -> None:
        """Note until when a scope was complete."""
        revision = self._known.get(str(followed.scope), (0, 0.0))[0]
        self._known[str(followed.scope)] = (revision, self._wall())
        try:
            self._replica.keep_scope(str(followed.scope), followed.scope.gvr, revision, self._wall())
        except EdgehiveError as exc:
            log.warning("the time of the last contact is not kept: %s", exc)


class _Meta(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _List(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)
    items: list[msgspec.Raw] | None = None


def _selectors(scope: Scope) -> dict[str, object]:
    found: dict[str, object] = {"labelSelector": scope.labels, "fieldSelector": scope.fields}
    return {key: value for key, value in found.items() if value}


def _covers(name: str, scope: Scope) -> bool:
    """Whether the scope written as `name` covers `scope`."""
    key, _, selectors = name.partition("?")
    labels, _, fields = selectors.partition("?")
    held = apps.parse_key(key)
    return Scope(held.gvr, held.namespace, labels, fields).covers(scope)
