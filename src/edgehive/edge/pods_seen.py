"""What can be said of a pod's containers from what runs and from what the cluster was told; pure."""

from collections.abc import Mapping, Sequence

from edgehive.edge.pods_spec import JsonObject
from edgehive.edge.runtime import ContainerInfo, SandboxInfo, State

_KINDS = ("containerStatuses", "initContainerStatuses")


def was_started(told: JsonObject, name: str) -> bool:
    """Whether the cluster was told that a container of that name has been started."""
    kinds = (*_KINDS, "ephemeralContainerStatuses")
    return any(
        one.get("name") == name and one.get("containerID") for kind in kinds for one in told.get(kind, ())
    )


def told_restarts(told: JsonObject, name: str) -> int:
    """How often the cluster was told that the container was started again."""
    for kind in _KINDS:
        for one in told.get(kind, ()):
            if one.get("name") == name and one.get("containerID"):
                return int(one.get("restartCount", 0))
    return 0


def true_since(
    containers: Sequence[ContainerInfo], sandbox: SandboxInfo | None, started_at: float
) -> dict[str, float]:
    """Tell when conditions became true from what runs: its status may never have reached the cluster."""
    started = [c.started_at for c in containers if c.state is State.RUNNING]
    since = {"Ready": max(started, default=0.0)}
    since["ContainersReady"] = since["Ready"]
    if sandbox is not None:
        since["PodReadyToStartContainers"] = sandbox.created_at
        since["Initialized"] = sandbox.created_at
        since["PodScheduled"] = started_at
    return since


def ended_before(
    containers: Sequence[ContainerInfo], latest: Mapping[str, ContainerInfo]
) -> dict[str, ContainerInfo]:
    """The last containers that ended before the `latest` of their names."""
    before: dict[str, ContainerInfo] = {}
    for info in containers:
        newest = latest.get(info.name)
        if newest is not None and info.id != newest.id and info.state in (State.EXITED, State.UNKNOWN):
            before[info.name] = info
    return before
