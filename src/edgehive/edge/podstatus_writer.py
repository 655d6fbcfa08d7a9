"""Carries pod statuses and final deletes to the cluster: the newest of each pod, one at a time a pod."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from edgehive.edge.metaclient import MetaClient, Ok
from edgehive.edge.pods_spec import JsonObject, Pod
from edgehive.edge.podstatus import either, status_patch
from edgehive.kit.text import safe_label

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Entry:
    pod: Pod
    sent: JsonObject
    """What was reported last."""
    shown: JsonObject
    """Whatever the cluster may show: what it had, and all that was reported since."""
    status: JsonObject | None = None
    delete: bool = False
    busy: bool = False
    target: str = ""


class StatusWriter:
    """A queue of at most one entry a pod; `run` empties it with a few concurrent requests."""

    def __init__(
        self,
        *,
        meta: MetaClient,
        on_answer: Callable[[bytes], None],
        target: Callable[[Pod], Pod | None] = lambda pod: pod,
        parallel: int = 4,
    ) -> None:
        self._meta = meta
        self._on_answer = on_answer
        self._target = target
        self._parallel = parallel
        self._entries: dict[str, _Entry] = {}
        self._ready: OrderedDict[str, None] = OrderedDict()
        self._signal = asyncio.Event()

    def put(self, pod: Pod, status: JsonObject) -> None:
        """Have `status` reported unless it is what was reported last."""
        entry = self._entries.setdefault(pod.uid, _Entry(pod, pod.status, pod.status))
        if (entry.status or entry.sent) == status:
            return
        entry.status = status
        self._enqueue(pod.uid)

    def renew(self, pod: Pod, status: JsonObject, shown: JsonObject | None = None) -> None:
        """Have `status` reported whole: the object that shows `pod` in the cluster is a new one, or `shown` there."""
        entry = self._entries.setdefault(pod.uid, _Entry(pod, {}, {}))
        entry.status = status
        entry.shown = either(entry.shown, shown or {})
        self._enqueue(pod.uid)

    def idle(self, uid: str) -> bool:
        """Whether nothing about the pod waits here, or for an answer."""
        entry = self._entries.get(uid)
        return entry is None or not (entry.busy or uid in self._ready)

    def delete(self, pod: Pod) -> None:
        """Ask for the final delete, after any status that is still waiting."""
        entry = self._entries.setdefault(pod.uid, _Entry(pod, pod.status, pod.status))
        entry.delete = True
        self._enqueue(pod.uid)

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._entries.pop(uid, None)
        self._ready.pop(uid, None)

    def _enqueue(self, uid: str) -> None:
        self._ready[uid] = None
        self._signal.set()

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._parallel):
                group.create_task(self._send_all(), name=f"pod status {number}")

    async def _send_all(self) -> None:
        while True:
            uid = next((u for u in self._ready if not self._entries[u].busy), None)
            if uid is None:
                self._signal.clear()
                await self._signal.wait()
                continue
            del self._ready[uid]
            entry = self._entries[uid]
            entry.busy = True
            try:
                await self._send(uid, entry)
            finally:
                entry.busy = False
                if uid in self._ready:
                    self._signal.set()

    async def _send(self, uid: str, entry: _Entry) -> None:
        pod = self._target(entry.pod)
        if pod is None:
            return  # what shows it in the cluster is not there yet; `renew` follows
        if pod.uid not in (uid, entry.target):
            entry.sent = entry.shown = pod.status
        entry.target = uid = pod.uid
        meta = pod.metadata
        status, entry.status = entry.status, None
        if status is not None:
            # A patch that waits for the cloud may be replaced by this one, so this says all that was to be undone.
            patch = msgspec.json.encode(status_patch(uid, status, entry.shown))
            entry.sent, entry.shown = status, either(entry.shown, status)
            reply = await self._meta.patch_pod_status(meta.namespace, meta.name, uid, patch)
            if isinstance(reply, Ok):
                entry.shown = status
                self._on_answer(reply.object)
            elif not reply.status.retryable:
                # 404: the pod is gone and its removal is on the way. Anything else would be refused again as it
                # is; the next change of the status is sent whole.
                log.info(
                    "pod %s: status refused: %s", safe_label(entry.pod.key), safe_label(str(reply.status))
                )
        if entry.delete:
            entry.delete = False
            reply = await self._meta.delete_pod(meta.namespace, meta.name, uid)
            if not isinstance(reply, Ok):
                log.info("pod %s: final delete: %s", safe_label(entry.pod.key), safe_label(str(reply.status)))
