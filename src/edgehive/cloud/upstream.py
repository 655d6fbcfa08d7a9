"""The edge controller's upward half: KubeEdge's table of requests an edge may send, over the Kubernetes API.

Every handler is idempotent, since an edge repeats what was not answered. What is unknown is logged and, as in the
original, not answered.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from edgehive.cloud.edgerequest import (
    Answers,
    EdgeRequest,
    FailureAnswer,
    as_failure,
    as_object_failure,
    as_silence,
    of_cloudcore,
)
from edgehive.cloud.impersonation import Impersonation
from edgehive.cloud.upstream_nodes import NodeRequests
from edgehive.cloud.upstream_objects import ObjectRequests
from edgehive.cloud.upstream_pods import PodRequests
from edgehive.kit.errors import EdgehiveError
from edgehive.kit.linebudget import LineBudget
from edgehive.kit.text import safe_label
from edgehive.kube.refs import is_dns_subdomain
from edgehive.kube.status import ApiStatus, bad_request
from edgehive.wire import resource as res
from edgehive.wire.message import DELETE, INSERT, PATCH, QUERY, UPDATE, Message, Stamp

log = logging.getLogger(__name__)

_ANY = ""
_SAME_OBJECT = {
    res.NODEPATCH: res.NODE,
    res.NODESTATUS: res.NODE,
    res.PODPATCH: res.POD,
    res.PODSTATUS: res.POD,
}


@dataclass(frozen=True, slots=True)
class _Row:
    handle: Callable[[EdgeRequest], Awaitable[Answers]]
    on_failure: FailureAnswer


@dataclass(slots=True)
class UpstreamStats:
    """Counters."""

    requests: int = 0
    failures: int = 0
    unknown: int = 0


class EdgeController:
    """Answers the requests of edges."""

    def __init__(
        self,
        *,
        nodes: NodeRequests,
        pods: PodRequests,
        objects: ObjectRequests,
        stamp: Stamp,
        impersonation: Impersonation,
        now: Callable[[], float],
    ) -> None:
        self._stamp = stamp
        self._now = now
        self._lines = LineBudget()
        self._impersonation = impersonation
        self.stats = UpstreamStats()
        self._rows: dict[tuple[str, str], _Row] = {
            (res.NODE, INSERT): _Row(nodes.create, as_object_failure),
            (res.NODE, QUERY): _Row(nodes.query, as_failure),
            (res.NODE, UPDATE): _Row(nodes.update, as_failure),
            (res.NODEPATCH, _ANY): _Row(nodes.patch_status, as_object_failure),
            (res.NODESTATUS, INSERT): _Row(nodes.old_register, as_failure),
            (res.NODESTATUS, UPDATE): _Row(nodes.old_status, as_failure),
            (res.LEASE, INSERT): _Row(nodes.write_lease, as_object_failure),
            (res.LEASE, UPDATE): _Row(nodes.write_lease, as_object_failure),
            (res.LEASE, QUERY): _Row(nodes.query_lease, as_object_failure),
            (res.POD, INSERT): _Row(pods.create, as_object_failure),
            (res.POD, DELETE): _Row(pods.delete, as_failure),
            (res.PODPATCH, _ANY): _Row(pods.patch_status, as_object_failure),
            (res.PODSTATUS, UPDATE): _Row(pods.old_status, as_failure),
            (res.CONFIGMAP, QUERY): _Row(objects.query_cached, as_failure),
            (res.SECRET, QUERY): _Row(objects.query_cached, as_failure),
            (res.PERSISTENT_VOLUME, QUERY): _Row(objects.query_live, as_failure),
            (res.PERSISTENT_VOLUME_CLAIM, QUERY): _Row(objects.query_live, as_failure),
            (res.VOLUME_ATTACHMENT, QUERY): _Row(objects.query_live, as_failure),
            (res.CSI_DRIVER, QUERY): _Row(objects.query_live, as_failure),
            (res.RUNTIME_CLASS, QUERY): _Row(objects.query_live, as_failure),
            (res.TOKEN, QUERY): _Row(objects.create_token, as_failure),
            (res.CSR, INSERT): _Row(objects.create_csr, as_object_failure),
            (res.CSR, QUERY): _Row(objects.query_live, as_failure),
            (res.EVENT, INSERT): _Row(objects.write_event, as_silence),
            (res.EVENT, UPDATE): _Row(objects.write_event, as_silence),
            (res.EVENT, PATCH): _Row(objects.write_event, as_silence),
        }

    async def handle(self, node: str, message: Message) -> tuple[Message, ...]:
        """Carry out one request; returns the answers to send to `node`."""
        target = res.find_resource(message.resource) or _nameless(message.resource)
        row = None
        if target is not None:
            row = self._rows.get((target.type, message.operation)) or self._rows.get((target.type, _ANY))
        if target is None or row is None:
            self.stats.unknown += 1
            log.info(
                "node %s: request %s %s is not known",
                node,
                safe_label(message.operation, 40),
                safe_label(message.resource),
            )
            return ()
        self.stats.requests += 1
        request = EdgeRequest(node, message, target, self._stamp, self._impersonation)
        try:
            _check_names(target)
            answers = await row.handle(request)
        except EdgehiveError as exc:
            self.stats.failures += 1
            self._say(node, message.operation, target, exc)
            answers = row.on_failure(request, of_cloudcore(exc))
        if answers is None:
            return ()
        return answers if isinstance(answers, tuple) else (answers,)

    def _say(self, node: str, operation: str, target: res.Resource, problem: EdgehiveError) -> None:
        """Without an API server every edge's every request fails: a few lines a minute say so, not thousands."""
        if isinstance(problem, ApiStatus) and (problem.code in (404, 409) or problem.namespace_ends):
            log.debug("node %s: %s %s: %s", node, operation, target, safe_label(str(problem), 400))
            return
        if hidden := self._lines.hidden(self._now()):
            log.warning("%d more requests of edges have failed", hidden)
        if self._lines.admits():
            log.warning("node %s: %s %s: %s", node, operation, target, safe_label(str(problem), 400))


def _nameless(resource: str) -> res.Resource | None:
    """A certificate request that the API server is to name: the original's edge leaves the name empty."""
    found = res.find_resource(resource.removesuffix("/"))
    return found if found is not None and found.type == res.CSR and not found.name else None


def order_key(message: Message) -> str:
    """Requests with the same key are carried out one after the other, in order."""
    target = res.find_resource(message.resource)
    if target is None:
        return message.resource
    return str(res.Resource(target.namespace, _SAME_OBJECT.get(target.type, target.type), target.name))


def _check_names(target: res.Resource) -> None:
    # They go into a URL: only what Kubernetes itself would accept may.
    for part in (target.namespace, target.name):
        if part and not is_dns_subdomain(part):
            raise bad_request(f"{safe_label(part)} is not the name of a Kubernetes object")
