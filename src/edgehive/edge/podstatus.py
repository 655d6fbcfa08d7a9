"""The status of a pod as its node reports it: phase, conditions, container statuses. A pure function."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgehive.edge.pods_actions import Problem
from edgehive.edge.pods_spec import Container, JsonObject, Pod, format_time
from edgehive.edge.runtime import ContainerInfo, State

PENDING, RUNNING, SUCCEEDED, FAILED = "Pending", "Running", "Succeeded", "Failed"
TERMINAL = frozenset((SUCCEEDED, FAILED))


@dataclass(frozen=True, slots=True)
class StatusInput:
    """Everything a status is made of."""

    pod: Pod
    latest: Mapping[str, ContainerInfo]
    """The newest container of each name."""
    before: Mapping[str, ContainerInfo]
    """The newest container that ended before it."""
    waiting: Mapping[str, Problem]
    """Why a container that does not run is being waited for."""
    restarts: Mapping[str, int]
    sandbox_ready: bool
    pod_ip: str
    host_ip: str
    start_time: str
    runtime_name: str
    previous: JsonObject
    """The status reported before: transition times are kept from it."""
    now: float
    initialized: bool = False
    """Main containers were started: init containers have done their work even when they are gone."""
    final: Problem | None = None
    """Reason and message of a phase decided elsewhere (``DeadlineExceeded``), with `final_phase`."""
    final_phase: str = ""
    true_since: Mapping[str, float] = field(default_factory=dict)
    """When conditions became true, for a pod that is adopted and whose reported status is older than that."""
    stopped: bool = False
    """The pod is being ended and nothing of it runs."""
    going: bool = False
    """Containers run that have to end before a phase that is final may be told."""
    unready: frozenset[str] = field(default_factory=frozenset)
    """Running containers whose readiness probe fails."""
    unstarted: frozenset[str] = field(default_factory=frozenset)
    """Running containers whose startup probe has not succeeded."""


def compute_status(given: StatusInput) -> JsonObject:
    """Return the whole ``status`` of the pod."""
    spec = given.pod.spec
    init = [_container_status(given, one, init=True) for one in spec.init_containers]
    main = [_container_status(given, one, init=False) for one in spec.containers]
    phase = given.final_phase or pod_phase(given, init, main)
    if phase in TERMINAL:
        if given.going:
            # Whoever sees a pod that has failed makes another one, and takes what it had for free.
            told = given.previous.get("phase")
            phase = told if told in (PENDING, RUNNING) else RUNNING
        else:
            init, main = _all_ended(init, main)
    status: JsonObject = {
        "phase": phase,
        "conditions": _conditions(given, phase, init, main),
        "hostIP": given.host_ip,
        "hostIPs": [{"ip": given.host_ip}],
        "startTime": given.start_time,
        "qosClass": given.pod.qos_class,
        "containerStatuses": main,
    }
    if init:
        status["initContainerStatuses"] = init
    if passing := [_container_status(given, one, init=False) for one in spec.ephemeral_containers]:
        # The API has neither for them.
        status["ephemeralContainerStatuses"] = [one | {"ready": False, "restartCount": 0} for one in passing]
    if given.pod_ip:
        status["podIP"] = given.pod_ip
        status["podIPs"] = [{"ip": given.pod_ip}]
    if given.final is not None and phase in TERMINAL:
        status["reason"] = given.final.reason
        status["message"] = given.final.message
    return status


def held_status(pod: Pod, now: float) -> JsonObject:
    """Return the status of a pod that waits to be let in (KubeEdge: condition ``HeldUpgrade``)."""
    told = [c for c in pod.status.get("conditions") or () if isinstance(c, dict)]
    others = [c for c in told if c.get("type") != "HeldUpgrade"]
    held = next((c for c in told if c.get("type") == "HeldUpgrade" and c.get("status") == "True"), None)
    new = {
        "type": "HeldUpgrade",
        "status": "True",
        "reason": "HoldUpgradeEnabled",
        "message": "Upgrade is currently held due to edge-hold-upgrade annotation",
        "lastProbeTime": None,
        "lastTransitionTime": format_time(now),
    }
    return {**pod.status, "phase": PENDING, "conditions": [*others, held or new]}


def pod_phase(given: StatusInput, init: Sequence[JsonObject], main: Sequence[JsonObject]) -> str:
    """Return the phase by the rules of the pod lifecycle documentation."""
    never = given.pod.spec.restart_policy == "Never"
    pending_init = False
    if not given.initialized:
        for container, status in zip(given.pod.spec.init_containers, init, strict=True):
            ended = status["state"].get("terminated") or status["lastState"].get("terminated")
            if container.restart_policy == "Always":
                pending_init = pending_init or not status["started"]
            elif ended is None or "running" in status["state"]:
                pending_init = True
            elif ended["exitCode"] != 0:
                if never:
                    return FAILED
                pending_init = True
    if pending_init and not given.stopped:
        return PENDING
    running = sum("running" in one["state"] for one in main)
    ended = [one["state"].get("terminated") or one["lastState"].get("terminated") for one in main]
    stopped = [
        e for one, e in zip(main, ended, strict=True) if e is not None and "running" not in one["state"]
    ]
    if given.stopped:
        done = len(stopped) == len(main) and all(e["exitCode"] == 0 for e in stopped)
        return SUCCEEDED if done else FAILED
    if running + len(stopped) < len(main):
        return PENDING
    if running:
        return RUNNING
    if spec_restarts(given.pod.spec.restart_policy, [e["exitCode"] for e in stopped]):
        return RUNNING
    return SUCCEEDED if all(e["exitCode"] == 0 for e in stopped) else FAILED


def spec_restarts(policy: str, exit_codes: Iterable[int]) -> bool:
    """Whether `policy` restarts any container that ended with one of `exit_codes`."""
    return policy == "Always" or (policy == "OnFailure" and any(exit_codes))


def _container_status(given: StatusInput, container: Container, *, init: bool) -> JsonObject:
    name = container.name
    info = given.latest.get(name)
    if info is None and (given.final_phase or given.stopped) and (told := _told(given, name, init=init)):
        return told  # it ended and was removed since; what was reported stays true
    before = given.before.get(name)
    problem = given.waiting.get(name)
    state: JsonObject
    last: JsonObject = {}
    if before is not None:
        last = {"terminated": _terminated(given, before)}
    if info is not None and info.state is State.RUNNING:
        state = {"running": {"startedAt": format_time(info.started_at)}}
    elif info is not None and info.state in (State.EXITED, State.UNKNOWN):
        ended = {"terminated": _terminated(given, info)}
        if problem is not None:
            state, last = _waiting(problem), ended
        else:
            state = ended
    else:
        default = "PodInitializing" if given.pod.spec.init_containers else "ContainerCreating"
        state = _waiting(problem or Problem(default, ""))
    running = "running" in state
    sidecar = init and container.restart_policy == "Always"
    if init and not sidecar:
        ready = "terminated" in state and state["terminated"]["exitCode"] == 0
    else:
        ready = running and name not in given.unready
    status: JsonObject = {
        "name": name,
        "state": state,
        "lastState": last,
        "ready": ready,
        "restartCount": given.restarts.get(name, 0),
        "image": container.image,
        "imageID": info.image_id if info else "",
        "started": running and name not in given.unstarted,
    }
    if info is not None:
        status["containerID"] = f"{given.runtime_name}://{info.id}"
    return status


def _all_ended(
    init: Sequence[JsonObject], main: Sequence[JsonObject]
) -> tuple[list[JsonObject], list[JsonObject]]:
    """Of a pod that has ended, no container waits any more (as the kubelet has it).

    Only init containers after the last that was started still do, and with them what they are for.
    """
    begun = [index for index, one in enumerate(init) if _was_begun(one)]
    if not init or any(_was_begun(one) for one in main):
        return [_ended(one) for one in init], [_ended(one) for one in main]
    upto = begun[-1] + 1 if begun else 0
    return [*map(_ended, init[:upto]), *init[upto:]], [*main]


def _was_begun(status: JsonObject) -> bool:
    return "waiting" not in status["state"] or "terminated" in status["lastState"]


def _ended(status: JsonObject) -> JsonObject:
    if "terminated" in status["state"]:
        return status
    text = "The container was never started, or nothing is known of its end"
    unknown = {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": text}
    return status | {"state": {"terminated": unknown}, "ready": False, "started": False}


def _told(given: StatusInput, name: str, *, init: bool) -> JsonObject | None:
    statuses = given.previous.get("initContainerStatuses" if init else "containerStatuses", ())
    told = next((one for one in statuses if isinstance(one, dict) and one.get("name") == name), None)
    if told is None or "terminated" not in (told.get("state") or {}):
        return None
    return {"lastState": {}, "started": False, "ready": False, "restartCount": 0} | told


def _waiting(problem: Problem) -> JsonObject:
    return {"waiting": {"reason": problem.reason} | ({"message": problem.message} if problem.message else {})}


def _terminated(given: StatusInput, info: ContainerInfo) -> JsonObject:
    ended: JsonObject = {
        "exitCode": info.exit_code,
        "reason": info.reason or ("Completed" if info.exit_code == 0 else "Error"),
        "startedAt": format_time(info.started_at or info.created_at),
        "finishedAt": format_time(info.finished_at or info.started_at or info.created_at),
        "containerID": f"{given.runtime_name}://{info.id}",
    }
    if info.message:
        ended["message"] = info.message
    return ended


def _conditions(
    given: StatusInput, phase: str, init: Sequence[JsonObject], main: Sequence[JsonObject]
) -> list[JsonObject]:
    ended = phase in TERMINAL
    waiting_init = [
        status["name"]
        for container, status in zip(given.pod.spec.init_containers, init, strict=True)
        if not (status["started"] if container.restart_policy == "Always" else status["ready"])
    ]
    initialized = _condition("Initialized")
    if waiting_init and not given.initialized and phase != SUCCEEDED:
        initialized = _condition(
            "Initialized",
            "ContainersNotInitialized",
            f"containers with incomplete status: {_names(waiting_init)}",
        )
    elif phase == SUCCEEDED:
        initialized["reason"] = "PodCompleted"

    sidecars = [
        s for c, s in zip(given.pod.spec.init_containers, init, strict=True) if c.restart_policy == "Always"
    ]
    unready = [one["name"] for one in (*sidecars, *main) if not one["ready"]]
    if ended:
        reason = "PodCompleted" if phase == SUCCEEDED else "PodFailed"
        containers_ready = _condition("ContainersReady", reason)
    elif unready:
        text = f"containers with unready status: {_names(unready)}"
        containers_ready = _condition("ContainersReady", "ContainersNotReady", text)
    else:
        containers_ready = _condition("ContainersReady")
    ready = containers_ready | {"type": "Ready"}
    if ready["status"] == "True" and (missing := _failed_gates(given)):
        ready = _condition("Ready", "ReadinessGatesNotReady", f"readiness gates not met: {_names(missing)}")

    started = _condition("PodReadyToStartContainers")
    started["status"] = "True" if given.sandbox_ready and given.pod_ip else "False"
    conditions = [started, initialized, ready, containers_ready, _condition("PodScheduled")]
    old = {c.get("type"): c for c in given.previous.get("conditions", ()) if isinstance(c, dict)}
    for one in conditions:
        was = old.get(one["type"], {})
        same = was.get("status") == one["status"] and was.get("lastTransitionTime")
        one["lastProbeTime"] = None
        since = given.true_since.get(one["type"], 0.0) if one["status"] == "True" else 0.0
        one["lastTransitionTime"] = was["lastTransitionTime"] if same else format_time(since or given.now)
    return conditions


def _condition(kind: str, reason: str = "", message: str = "") -> JsonObject:
    one: JsonObject = {"type": kind, "status": "False" if reason else "True"}
    if reason:
        one["reason"] = reason
    if message:
        one["message"] = message
    return one


def _failed_gates(given: StatusInput) -> list[str]:
    held = {
        c.get("type"): c.get("status") for c in given.pod.status.get("conditions", ()) if isinstance(c, dict)
    }
    gates = (gate.get("conditionType", "") for gate in given.pod.spec.readiness_gates)
    return [gate for gate in gates if held.get(gate) != "True"]


def _names(names: Sequence[str]) -> str:
    return "[" + " ".join(names) + "]"


def either(one: JsonObject, other: JsonObject) -> JsonObject:
    """Return a status with whatever one of both has: the cluster may show the one or the other."""
    body = {**one, **other}
    for key, name in (("podIPs", "ip"), ("hostIPs", "ip"), ("conditions", "type")):
        merged: dict[str, JsonObject] = {}
        for entry in (*one.get(key, ()), *other.get(key, ())):
            if isinstance(entry, dict):
                merged[entry.get(name, "")] = merged.get(entry.get(name, ""), {}) | entry
        if merged:
            body[key] = list(merged.values())
    return body


def status_patch(uid: str, status: JsonObject, sent: Mapping[str, Any]) -> JsonObject:
    """Return the strategic merge patch that turns the reported status `sent` into `status`."""
    body = dict(status)
    for key in ("reason", "message", "podIP", "initContainerStatuses", "ephemeralContainerStatuses"):
        if key in sent and key not in status:
            body[key] = None
    for key in ("podIPs", "hostIPs"):
        # These lists are merged by address: an address that is no longer there must be deleted by name.
        now = {entry["ip"] for entry in status.get(key, ())}
        gone = [e["ip"] for e in sent.get(key, ()) if isinstance(e, dict) and e.get("ip") not in now]
        if gone:
            body[key] = [*status.get(key, ()), *({"$patch": "delete", "ip": ip} for ip in gone)]
    conditions = []
    for one in status["conditions"]:
        old: JsonObject = next((c for c in sent.get("conditions", ()) if c.get("type") == one["type"]), {})
        conditions.append(one | {k: None for k in ("reason", "message") if k in old and k not in one})
    body["conditions"] = conditions
    return {"metadata": {"uid": uid}, "status": body}
