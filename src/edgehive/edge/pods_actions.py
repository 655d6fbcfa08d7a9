"""What a pod's state machine asks of its worker, one small dataclass each, and the labels that survive a restart."""

from dataclasses import dataclass

from edgehive.edge.pods_spec import Container

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
CONTAINER_HASH = "edgehive.io/container-hash"
"""Not the kubelet's key: its hashes differ, and what a Go edgecore has started must not be restarted."""
RESTART_COUNT = "io.kubernetes.container.restartCount"
POD_GRACE = "io.kubernetes.pod.terminationGracePeriod"
NODE_NAME = "edgehive.io/node"
"""Whose it is: several nodes may share one container runtime, and nobody ends what another has made."""


@dataclass(frozen=True, slots=True)
class CheckPod:
    """Ask the runtime whether it can run this pod at all."""


@dataclass(frozen=True, slots=True)
class MountVolumes:
    """Make every volume of the pod exist with its present content."""


@dataclass(frozen=True, slots=True)
class TeardownVolumes:
    """Remove the volumes; nothing of the pod runs any more."""


@dataclass(frozen=True, slots=True)
class RunSandbox:
    """Create the pod's shared environment."""

    attempt: int


@dataclass(frozen=True, slots=True)
class StopSandbox:
    """End a sandbox; idempotent."""

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class RemoveSandbox:
    """Forget a stopped sandbox."""

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class EnsureImage:
    """Have the container's image on the node, by its pull policy; the outcome is the image reference."""

    container: Container


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Create and start one container."""

    container: Container
    attempt: int
    sandbox_id: str
    image_ref: str


@dataclass(frozen=True, slots=True)
class StopContainer:
    """Stop a running container: TERM, and KILL after `grace` seconds."""

    container_id: str
    name: str
    grace: int
    why: str


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Forget a container that does not run."""

    container_id: str


@dataclass(frozen=True, slots=True)
class AskDelete:
    """All is gone: ask the cluster to delete the pod for good."""


Action = (
    CheckPod
    | MountVolumes
    | TeardownVolumes
    | RunSandbox
    | StopSandbox
    | RemoveSandbox
    | EnsureImage
    | StartContainer
    | StopContainer
    | RemoveContainer
    | AskDelete
)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an action failed, as a waiting state shows it."""

    reason: str
    message: str


def retry_key(action: Action) -> str:
    """Name what is backed off from when `action` fails."""
    match action:
        case EnsureImage():
            return f"image:{action.container.name}:{action.container.image}"
        case StartContainer():
            return f"start:{action.container.name}"
        case RunSandbox():
            return "sandbox"
        case StopContainer() | RemoveContainer():
            return f"{type(action).__name__}:{action.container_id}"
        case StopSandbox() | RemoveSandbox():
            return f"{type(action).__name__}:{action.sandbox_id}"
        case _:
            return type(action).__name__
