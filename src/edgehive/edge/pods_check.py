"""Whether edged is in step with the database, and the cluster with edged.

Nothing should ever be found here: changes are told when they happen. But what is told once and goes wrong would stay
wrong until the next restart, so edged looks every ``syncFrequency``, puts right what it finds, and says so.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from edgehive.edge.metaclient import MetaClient
from edgehive.edge.pods_held import HeldPods
from edgehive.edge.pods_spec import JsonObject, Pod, parse_pod
from edgehive.edge.pods_static import Mirrors, is_static
from edgehive.edge.pods_worker import PodWorker
from edgehive.edge.podstatus import TERMINAL
from edgehive.edge.podstatus_writer import StatusWriter
from edgehive.kit.errors import ProtocolError, StorageError
from edgehive.kit.malformed import MALFORMED
from edgehive.kit.text import safe_label
from edgehive.kube.meta import decode_partial

log = logging.getLogger(__name__)


def out_of_step(desired: Iterable[Pod], here: Mapping[str, Pod], ending: Collection[str]) -> list[str]:
    """Say what is wrong with the pods that run or are held (`here`, by uid); `ending` are uids of pods on their way out."""
    found = []
    wanted = set()
    for pod in desired:
        wanted.add(pod.uid)
        mine = here.get(pod.uid)
        if mine is None:
            if pod.uid not in ending:
                found.append(f"{pod.key} is missing")
        elif _differs(pod, mine):
            found.append(f"{pod.key} is not up to date")
    return found + [f"{pod.key} is not desired" for uid, pod in here.items() if uid not in wanted]


def _differs(pod: Pod, mine: Pod) -> bool:
    if mine.deleting and not pod.deleting:
        return False  # what is being deleted stays so
    return _wish(pod) != _wish(mine)


def _wish(pod: Pod) -> tuple[object, ...]:
    meta = pod.metadata
    return pod.deleting, pod.grace, meta.labels, meta.annotations, pod.spec


def is_untold(shown: JsonObject, status: JsonObject) -> bool:
    """Whether the cluster shows another status than `status` in what others act on.

    It was refused, got lost, or somebody has changed it since: a node controller marks the pods of a node that it does
    not hear of as not ready, and leaves it to the node to mark them as ready again.
    """
    if shown.get("phase") in TERMINAL:
        return False  # that is never undone
    return _essence(shown, status) != _essence(status, status)


def _essence(status: JsonObject, reported: JsonObject) -> tuple[object, ...]:
    """What counts of a status; of its conditions only those that are reported."""
    own = {c["type"] for c in reported.get("conditions", ())}
    conditions = {c.get("type"): c.get("status") for c in _dicts(status.get("conditions"))}
    containers = {
        (kind, c.get("name")): (c.get("ready"), c.get("restartCount"), c.get("containerID"))
        for kind in ("initContainerStatuses", "containerStatuses")
        for c in _dicts(status.get(kind))
    }
    shown = {kind: value for kind, value in conditions.items() if kind in own}
    return status.get("phase"), status.get("podIP"), shown, containers


def _dicts(entries: Any) -> list[JsonObject]:
    return [one for one in entries or () if isinstance(one, dict)]


class Desired(NamedTuple):
    """The pods of the database."""

    pods: list[Pod]
    unreadable: set[str]
    """Uids of those that make no sense here: they are not started and not brought up to date, but not ended either."""
    empty: bool


def _unreadable_uid(raw: bytes) -> str:
    """The uid of a pod that cannot be parsed; empty for one that can, or that has none."""
    try:
        parse_pod(raw)
    except ProtocolError:
        try:
            return decode_partial(raw).metadata.uid
        except MALFORMED:
            return ""
    return ""


class Patience:
    """How often a status is told again that the cluster does not show: ever less often while it does not help."""

    def __init__(self) -> None:
        self._rounds: dict[str, int] = {}

    def again(self, untold: Collection[str]) -> list[str]:
        """Return which of the pods (uids) that are untold in this round to tell now."""
        self._rounds = {uid: self._rounds.get(uid, 0) + 1 for uid in untold}
        return [uid for uid, rounds in self._rounds.items() if rounds & (rounds - 1) == 0]


class PodCheck:
    """Looks at the workers, the database and what the cluster shows; `due` says when to."""

    def __init__(
        self,
        *,
        meta: MetaClient,
        writer: StatusWriter,
        workers: Mapping[str, PodWorker],
        held: HeldPods,
        mirrors: Mirrors,
        parse: Callable[[bytes], Pod | None],
    ) -> None:
        """`parse` gives the pods that are this node's to run."""
        self._meta = meta
        self._writer = writer
        self._workers = workers
        self._held = held
        self._mirrors = mirrors
        self._parse = parse
        self._patience = Patience()
        self.due = False

    def desired(self) -> Desired:
        """Read the database.

        Raises:
            StorageError: It cannot be read.
        """
        pods: list[Pod] = []
        unreadable: set[str] = set()
        rows = self._meta.pods()
        for raw in rows:
            if (pod := self._parse(raw)) is not None:
                pods.append(pod)
            else:
                unreadable.add(_unreadable_uid(raw))
        return Desired(pods, unreadable - {""}, not rows)

    def finds_pods(self) -> bool:
        """Whether the pods here are not those of the database, so that all have to be read again.

        Tells again what the cluster does not show. To be called when everything that was told has been taken.
        """
        self.due = False
        try:
            desired, unreadable, _ = self.desired()
        except StorageError as exc:
            log.warning("the pods cannot be compared with the database: %s", exc)
            return False
        self._tell_again({pod.uid: pod for pod in desired})
        here, ending = self._held.pods(), set()
        for uid, worker in self._workers.items():
            if worker.core.gone:
                ending.add(uid)
            elif not is_static(worker.core.pod):
                here[uid] = worker.core.pod
        wrong = out_of_step(desired, {u: pod for u, pod in here.items() if u not in unreadable}, ending)
        if not desired and not self._meta.connected:
            return False  # a site that has lost its database while offline keeps running
        if wrong:
            log.warning("the pods here were not those of the database: %s", safe_label(", ".join(wrong), 300))
        return bool(wrong)

    def desires(self, pod: Pod) -> bool:
        """Whether the database has this very pod."""
        try:
            raw = self._meta.pod(pod.metadata.namespace, pod.metadata.name)
        except StorageError:
            return False
        found = self._parse(raw) if raw is not None else None
        return found is not None and found.uid == pod.uid

    def _tell_again(self, shown: Mapping[str, Pod]) -> None:
        untold: dict[str, JsonObject] = {}
        for uid, worker in self._workers.items():
            pod, status = worker.core.pod, worker.core.status
            row = self._mirrors.mirror(pod) if is_static(pod) else shown.get(uid)
            if row is None or worker.core.gone or not (self._meta.connected and self._writer.idle(uid)):
                continue
            if is_untold(row.status, status):
                untold[uid] = row.status
        for uid in self._patience.again(untold):
            core = self._workers[uid].core
            log.info("pod %s: the cluster shows another status; it is told again", safe_label(core.pod.key))
            self._writer.renew(core.pod, core.status, untold[uid])
