"""Pods as replicas: made from a template, counted, and the order in which surplus ones go. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import msgspec

from edgehive.controllers.claims import Owner
from edgehive.controllers.objects import Condition, Pod, condition, pod_active, pod_ready
from edgehive.controllers.times import format_time, parse_time
from edgehive.kube.reflector import CachedObject

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASES = {"": 0, "Pending": 0, "Unknown": 1, "Running": 2}


@dataclass(frozen=True, slots=True)
class Replica:
    """A pod with the cached object it was read from."""

    cached: CachedObject
    pod: Pod


def pod_from_template(template: Mapping[str, Any], owner: Owner, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the pod to create for `owner`; its name is left to the server."""
    meta = template.get("metadata") or {}
    wanted: dict[str, Any] = {
        "generateName": f"{owner.meta.name[:57]}-",
        "namespace": owner.meta.namespace,
        "labels": {**(meta.get("labels") or {}), **labels},
        "ownerReferences": [owner.reference()],
    }
    for key in ("annotations", "finalizers"):
        if meta.get(key):
            wanted[key] = deepcopy(meta[key])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": wanted,
        "spec": deepcopy(dict(template.get("spec") or {})),
    }


def pod_available(pod: Pod, min_ready: float, now: float) -> float | None:
    """Return in how many seconds the ready pod becomes available (0: it is); None when not ready."""
    if not pod_ready(pod):
        return None
    if min_ready <= 0:
        return 0.0
    ready = condition(pod.status.conditions, "Ready")
    since = parse_time(ready.last_transition_time) if ready else None
    if since is None:
        return min_ready
    return max(0.0, since + min_ready - now)


def order_for_deletion(victims: Sequence[Replica], related: Iterable[Pod], now: float) -> list[Replica]:
    """Return `victims`, those to delete first in front.

    Kubernetes' preference: unassigned, then by phase, not ready, cheaper by annotation, on a node that has more
    of `related` (the active pods of all sibling replicasets), ready for a shorter time, restarted more, younger.
    """
    crowd = Counter(p.spec.node_name for p in related if pod_active(p))

    def rank(replica: Replica) -> tuple[Any, ...]:
        pod = replica.pod
        ready = condition(pod.status.conditions, "Ready")
        ready_since = parse_time(ready.last_transition_time) if ready and ready.status == "True" else None
        restarts = max((s.restart_count for s in pod.status.container_statuses or ()), default=0)
        return (
            bool(pod.spec.node_name),
            _PHASES.get(pod.status.phase, 2),
            pod_ready(pod),
            _cost(pod),
            -crowd[pod.spec.node_name],
            -(ready_since if ready_since is not None else now),
            -restarts,
            -(parse_time(pod.metadata.creation_timestamp) or 0.0),
            pod.metadata.name,
        )

    return sorted(victims, key=rank)


def _cost(pod: Pod) -> int:
    text = (pod.metadata.annotations or {}).get(DELETION_COST, "0")
    try:
        return int(text)
    except ValueError:
        return 0


def set_condition(
    conditions: Sequence[Condition] | None,
    wanted: Condition,
    now: float,
    *,
    updates: bool = False,
    touch: bool = False,
) -> tuple[Condition, ...]:
    """Return `conditions` with `wanted` in it; its transition time moves only with its status.

    `updates` keeps ``lastUpdateTime`` as well (deployments); `touch` moves it even if nothing else changes.
    """
    old = condition(tuple(conditions or ()), wanted.type)
    stamp = format_time(now)
    moved, updated = stamp, stamp
    if old is not None:
        if old.status == wanted.status:
            moved = old.last_transition_time or stamp
        if not touch and (old.status, old.reason, old.message) == (
            wanted.status,
            wanted.reason,
            wanted.message,
        ):
            updated = old.last_update_time or stamp
    new = msgspec.structs.replace(
        wanted, last_transition_time=moved, last_update_time=updated if updates else None
    )
    return (*drop_condition(conditions, wanted.type), new)


def drop_condition(conditions: Sequence[Condition] | None, kind: str) -> tuple[Condition, ...]:
    """Return `conditions` without that type."""
    return tuple(c for c in conditions or () if c.type != kind)


def conditions_json(conditions: Sequence[Condition]) -> list[dict[str, Any]]:
    """Return conditions as they are written, empty fields left out."""
    names = {
        "type": "type",
        "status": "status",
        "observed_generation": "observedGeneration",
        "last_heartbeat_time": "lastHeartbeatTime",
        "last_probe_time": "lastProbeTime",
        "last_update_time": "lastUpdateTime",
        "last_transition_time": "lastTransitionTime",
        "reason": "reason",
        "message": "message",
    }
    return [{name: getattr(c, key) for key, name in names.items() if getattr(c, key)} for c in conditions]
