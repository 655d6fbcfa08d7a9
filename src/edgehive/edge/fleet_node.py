"""One simulated edge: what it says, and what it does with what it hears. No socket, no clock.

It behaves as an edgecore without pods would: keepalive at once, registration, lease, status reports, and an
acknowledgement for everything that wants one.
"""

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from edgehive.kit.errors import ProtocolError
from edgehive.kit.malformed import MALFORMED
from edgehive.kube.meta import decode_partial
from edgehive.wire import resource as res
from edgehive.wire.classify import EDGE_HUB, EDGED, META_GROUP, RESOURCE_GROUP, requires_ack
from edgehive.wire.held import holding, holdings_message
from edgehive.wire.message import (
    DELETE,
    INSERT,
    KEEPALIVE,
    PATCH,
    RESPONSE,
    UPDATE,
    Message,
    Stamp,
    content_data,
    decode_message,
    encode_message,
)

_LEASES: Final = "kube-node-lease"
_LEASE_SECONDS: Final = 40
_LABELS: Final = {
    "kubernetes.io/os": "linux",
    "node-role.kubernetes.io/agent": "",
    "node-role.kubernetes.io/edge": "",
}

REGISTER, LEASE, STATUS, POD_STATUS = "register", "lease", "status", "pod status"


class Samples:
    """Latencies in seconds; of more than `limit` every second one is thrown away, evenly over time."""

    def __init__(self, limit: int = 20_000) -> None:
        self._limit = limit
        self._kept: list[float] = []
        self._step = 1
        self.count = 0

    def add(self, seconds: float) -> None:
        """Take one in."""
        if self.count % self._step == 0:
            self._kept.append(seconds)
            if len(self._kept) > self._limit:
                self._kept = self._kept[::2]
                self._step *= 2
        self.count += 1

    def quantile(self, q: float) -> float:
        """The latency that the share `q` stays below; 0 without samples."""
        if not self._kept:
            return 0.0
        ordered = sorted(self._kept)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


@dataclass(slots=True)
class FleetStats:
    """Counters of all nodes together."""

    sent: int = 0
    received: int = 0
    acknowledged: int = 0
    failures: int = 0
    """Requests answered with an error."""
    duplicates: int = 0
    registered: int = 0
    latency: dict[str, Samples] = field(default_factory=dict)

    def note(self, what: str, seconds: float) -> None:
        """Count one answered request."""
        self.latency.setdefault(what, Samples()).add(seconds)


Observer = Callable[[str, Message], None]
"""Told of every message a node receives."""


class FleetNode:
    """One node. `take()` gives the frames to send after any call."""

    __slots__ = (
        "_lease_made",
        "_out",
        "_patched",
        "_pending",
        "_pods",
        "_seen",
        "_stamp",
        "_stats",
        "_tell",
        "_wall",
        "name",
        "registered",
    )

    def __init__(
        self, *, name: str, stats: FleetStats, stamp: Stamp, wall: Callable[[], float], tell: Observer | None
    ) -> None:
        self.name: Final = name
        self.registered = False
        self._stats = stats
        self._stamp = stamp
        self._wall = wall
        self._tell = tell
        self._out: list[bytes] = []
        self._pending: dict[str, tuple[str, float]] = {}
        self._pods: dict[str, str] = {}
        """UID by ``namespace/name`` of the pods that are here."""
        self._seen: dict[str, tuple[str, str]] = {}
        """UID and newest version of each object, to tell what came twice and what is there."""
        self._lease_made = False
        self._patched = 0

    def take(self) -> list[bytes]:
        """Frames to send."""
        out, self._out = self._out, []
        return out

    def opened(self, *, wants_holdings: bool = False) -> None:
        """The link is there: what was asked over the old one will not be answered."""
        self._pending.clear()
        self.keepalive()
        if wants_holdings:
            found = (holding(resource, *seen) for resource, seen in self._seen.items())
            self._push(holdings_message([h for h in found if h is not None], stamp=self._stamp))

    @property
    def outstanding(self) -> int:
        """Requests without an answer."""
        return len(self._pending)

    # -- what it says

    def keepalive(self) -> None:
        """Show life."""
        self._send(KEEPALIVE, "node", b'"ping"', source=EDGE_HUB, group=RESOURCE_GROUP)

    def register(self, now: float) -> None:
        """Make the Node."""
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": {**_LABELS, "kubernetes.io/hostname": self.name}},
            "spec": {},
            "status": self._status(),
        }
        self._ask(REGISTER, INSERT, res.format_resource(None, res.NODE, self.name), node, now)

    def renew_lease(self, now: float) -> None:
        """Create or renew the lease."""
        when = self._time("microseconds")
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": _LEASES},
            "spec": {"holderIdentity": self.name, "leaseDurationSeconds": _LEASE_SECONDS, "renewTime": when},
        }
        operation = UPDATE if self._lease_made else INSERT
        self._ask(LEASE, operation, res.format_resource(_LEASES, res.LEASE, self.name), lease, now)

    def report_status(self, now: float) -> None:
        """Patch the node's status, with something new in it each time."""
        self._patched += 1
        status = self._status()
        status["conditions"][0]["message"] = f"report {self._patched}"
        patch = {"status": {"conditions": status["conditions"]}}
        self._ask_text(STATUS, res.format_resource(None, res.NODEPATCH, self.name), patch, now)

    def report_pods(self, now: float) -> None:
        """Patch the status of every pod that is here."""
        self._patched += 1
        condition = {"type": "Ready", "status": "True", "lastTransitionTime": self._time("seconds")}
        for key, uid in self._pods.items():
            namespace, _, name = key.partition("/")
            patch = {
                "metadata": {"uid": uid},
                "status": {
                    "phase": "Running",
                    "message": f"report {self._patched}",
                    "conditions": [condition],
                },
            }
            self._ask_text(POD_STATUS, res.format_resource(namespace, res.PODPATCH, name), patch, now)

    # -- what it hears

    def receive(self, data: bytes, now: float) -> None:
        """Take one message.

        Raises:
            ProtocolError: it is none.
        """
        message = decode_message(data)
        self._stats.received += 1
        if message.operation == RESPONSE and message.parent_id in self._pending:
            self._answered(message, now)
        elif message.operation == DELETE:
            self._seen.pop(message.resource, None)
            self._pods.pop(message.resource.replace("/pod/", "/", 1), None)
        elif message.resource_version:
            self._note_version(message)
        if requires_ack(message):
            self._stats.acknowledged += 1
            message_id, timestamp = self._stamp()
            self._push(message.reply(new_id=message_id, timestamp=timestamp))
        if self._tell is not None:
            self._tell(self.name, message)

    def _note_version(self, message: Message) -> None:
        known = self._seen.get(message.resource)
        if known is not None and known[1] == message.resource_version:
            self._stats.duplicates += 1
        uid = _uid(message.content)
        self._seen[message.resource] = (uid, message.resource_version)
        target = res.find_resource(message.resource)
        if target is None or target.type != res.POD or not target.namespace:
            return
        key = f"{target.namespace}/{target.name}"
        self._pods[key] = uid

    def _answered(self, message: Message, now: float) -> None:
        what, asked = self._pending.pop(message.parent_id)
        self._stats.note(what, now - asked)
        code = _error_code(message.content)
        if what == REGISTER and code in (0, 409):
            self.registered = True
            self._stats.registered += 1
        elif what == LEASE:
            self._lease_made = code in (0, 409)
        elif code:
            self._stats.failures += 1

    # -- helpers

    def _ask(self, what: str, operation: str, resource: str, body: Any, now: float) -> None:
        content = msgspec.json.encode(body)
        self._pending[self._send(operation, resource, content)] = (what, now)

    def _ask_text(self, what: str, resource: str, patch: Any, now: float) -> None:
        # The original sends a patch as a JSON string.
        content = msgspec.json.encode(msgspec.json.encode(patch).decode())
        self._pending[self._send(PATCH, resource, content)] = (what, now)

    def _send(
        self, operation: str, resource: str, content: bytes, *, source: str = EDGED, group: str = META_GROUP
    ) -> str:
        message_id, timestamp = self._stamp()
        self._push(Message(message_id, timestamp, operation, resource, content, source=source, group=group))
        return message_id

    def _push(self, message: Message) -> None:
        self._stats.sent += 1
        self._out.append(encode_message(message))

    def _status(self) -> dict[str, Any]:
        now = self._time("seconds")
        amounts = {"cpu": "4", "memory": "4Gi", "pods": "110"}
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "EdgeReady",
            "message": "edge is posting ready status",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        return {"capacity": amounts, "allocatable": amounts, "conditions": [ready]}

    def _time(self, precision: str) -> str:
        moment = datetime.datetime.fromtimestamp(self._wall(), datetime.UTC)
        return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def _uid(content: bytes) -> str:
    try:
        return decode_partial(content_data(content)).metadata.uid
    except (*MALFORMED, ProtocolError):
        return ""


class _Failure(msgspec.Struct, rename={"status": "ErrStatus"}):
    status: "_Code | None" = None


class _Code(msgspec.Struct):
    code: int = 0


class _Answer(msgspec.Struct, rename={"error": "Err", "status": "ErrStatus"}):
    error: _Failure | None = None
    status: _Code | None = None


_answer: Final = msgspec.json.Decoder(_Answer)


def _error_code(content: bytes) -> int:
    """The HTTP code of an answer that carries an error; 0 for the others."""
    if not content.startswith(b"{"):
        return 0
    try:
        answer = _answer.decode(content)
    except MALFORMED:
        return 500
    found = answer.status or (answer.error.status if answer.error is not None else None)
    if found is None:
        return 0 if answer.error is None else 500
    return found.code or 500
