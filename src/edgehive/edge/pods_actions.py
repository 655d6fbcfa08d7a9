"""What a pod's state machine asks of its worker, one small dataclass each, and the labels that survive a restart."""

import msgspec

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


class CheckPod(msgspec.Struct, frozen=True):
    """Ask the runtime whether it can run this pod at all."""


class MountVolumes(msgspec.Struct, frozen=True):
    """Make every volume of the pod exist with its present content."""


class TeardownVolumes(msgspec.Struct, frozen=True):
    """Remove the volumes; nothing of the pod runs any more."""


class RunSandbox(msgspec.Struct, frozen=True):
    """Create the pod's shared environment."""

    attempt: int


class StopSandbox(msgspec.Struct, frozen=True):
    """End a sandbox; idempotent."""

    sandbox_id: str


class RemoveSandbox(msgspec.Struct, frozen=True):
    """Forget a stopped sandbox."""

    sandbox_id: str


class EnsureImage(msgspec.Struct, frozen=True):
    """Have the container's image on the node, by its pull policy; the outcome is the image reference."""

    container: Container


class StartContainer(msgspec.Struct, frozen=True):
    """Create and start one container."""

    container: Container
    attempt: int
    sandbox_id: str
    image_ref: str


class StopContainer(msgspec.Struct, frozen=True):
    """Stop a running container: TERM, and KILL after `grace` seconds."""

    container_id: str
    name: str
    grace: int
    why: str


class RemoveContainer(msgspec.Struct, frozen=True):
    """Forget a container that does not run."""

    container_id: str


class AskDelete(msgspec.Struct, frozen=True):
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


class Problem(msgspec.Struct, frozen=True):
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
