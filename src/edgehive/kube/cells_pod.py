"""Cells of ``kubectl get pods``: Kubernetes' rules for READY, STATUS and RESTARTS."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from edgehive.kube.durations import NONE, human_duration, parse_time_or_none

Object = Mapping[str, Any]


def _spec(pod: Object) -> Object:
    spec = pod.get("spec")
    return spec if isinstance(spec, Mapping) else {}


def _status(pod: Object) -> Object:
    status = pod.get("status")
    return status if isinstance(status, Mapping) else {}


def _objects(value: Any) -> list[Object]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _state(status: Object, which: str) -> Object | None:
    state = status.get("state")
    found = state.get(which) if isinstance(state, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _restartable_inits(pod: Object) -> set[Any]:
    return {
        c.get("name")
        for c in _objects(_spec(pod).get("initContainers"))
        if c.get("restartPolicy") == "Always"
    }


def pod_ready(pod: Object, _now: datetime) -> str:
    """``ready/all`` containers; restartable init containers count."""
    sidecars = _restartable_inits(pod)
    total = len(_objects(_spec(pod).get("containers"))) + len(sidecars)
    status = _status(pod)
    ready = sum(
        1
        for c in _objects(status.get("initContainerStatuses"))
        if c.get("name") in sidecars and c.get("ready") and c.get("started")
    )
    ready += sum(
        1
        for c in _objects(status.get("containerStatuses"))
        if c.get("ready") and (_state(c, "running") is not None or not c.get("state"))
    )
    return f"{ready}/{total}"


def pod_status(pod: Object, _now: datetime) -> str:
    """The word in the STATUS column: a reason when there is one, else the phase."""
    status = _status(pod)
    reason = str(status.get("reason") or status.get("phase") or "")
    for condition in _objects(status.get("conditions")):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    initializing = _init_reason(pod)
    starting = initializing and not _initialized(status)
    reason = initializing if starting else _main_reason(status, reason)
    meta = pod.get("metadata")
    if isinstance(meta, Mapping) and meta.get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if status.get("phase") not in ("Failed", "Succeeded"):
            return "Terminating"
    return reason


def _initialized(status: Object) -> bool:
    return any(
        c.get("type") == "Initialized" and c.get("status") == "True"
        for c in _objects(status.get("conditions"))
    )


def _init_reason(pod: Object) -> str:
    sidecars = _restartable_inits(pod)
    total = len(_objects(_spec(pod).get("initContainers")))
    for index, container in enumerate(_objects(_status(pod).get("initContainerStatuses"))):
        terminated = _state(container, "terminated")
        waiting = _state(container, "waiting")
        if terminated is not None and terminated.get("exitCode", 0) == 0:
            continue
        if container.get("name") in sidecars and container.get("started"):
            continue
        if terminated is not None:
            return f"Init:{_end(terminated)}"
        if waiting is not None and waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{total}"
    return ""


def _end(terminated: Object) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _main_reason(status: Object, reason: str) -> str:
    running = False
    for container in reversed(_objects(status.get("containerStatuses"))):
        waiting, terminated = _state(container, "waiting"), _state(container, "terminated")
        if waiting is not None and waiting.get("reason"):
            reason = str(waiting["reason"])
        elif terminated is not None:
            reason = _end(terminated)
        elif container.get("ready") and _state(container, "running") is not None:
            running = True
    if reason == "Completed" and running:
        ready = any(
            c.get("type") == "Ready" and c.get("status") == "True" for c in _objects(status.get("conditions"))
        )
        return "Running" if ready else "NotReady"
    return reason


def pod_restarts(pod: Object, now: datetime) -> str:
    """How often containers were restarted, and when last: ``3 (2m ago)``."""
    status = _status(pod)
    sidecars = _restartable_inits(pod)
    inits = _objects(status.get("initContainerStatuses"))
    if _init_reason(pod) and not _initialized(status):
        counted = inits
    else:
        counted = [c for c in inits if c.get("name") in sidecars] + _objects(status.get("containerStatuses"))
    count = sum(int(c.get("restartCount") or 0) for c in counted)
    ends = []
    for container in counted:
        last = container.get("lastState")
        terminated = last.get("terminated") if isinstance(last, Mapping) else None
        if isinstance(terminated, Mapping):
            ends.append(parse_time_or_none(terminated.get("finishedAt")))
    latest = max((end for end in ends if end is not None), default=None)
    if not count or latest is None:
        return str(count)
    return f"{count} ({human_duration((now - latest).total_seconds())} ago)"


def pod_ip(pod: Object, _now: datetime) -> str:
    """The pod's first address."""
    ips = _objects(_status(pod).get("podIPs"))
    return str((ips[0].get("ip") if ips else None) or _status(pod).get("podIP") or NONE)


def pod_node(pod: Object, _now: datetime) -> str:
    """The node it is bound to."""
    return str(_spec(pod).get("nodeName") or NONE)


def pod_nominated(pod: Object, _now: datetime) -> str:
    """The node it may preempt others on."""
    return str(_status(pod).get("nominatedNodeName") or NONE)


def pod_gates(pod: Object, _now: datetime) -> str:
    """Fulfilled and all readiness gates."""
    gates = [gate.get("conditionType") for gate in _objects(_spec(pod).get("readinessGates"))]
    if not gates:
        return NONE
    true = {c.get("type") for c in _objects(_status(pod).get("conditions")) if c.get("status") == "True"}
    return f"{sum(gate in true for gate in gates)}/{len(gates)}"
