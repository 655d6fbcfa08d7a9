"""Choose the container runtime by ``tailoredKubeletConfig.containerRuntimeEndpoint``."""

import os
from collections.abc import Callable
from pathlib import Path

from edgehive import __version__
from edgehive.edge.cri import CriRuntime
from edgehive.edge.process import ProcessRuntime
from edgehive.edge.runtime import Runtime
from edgehive.kit.errors import UserError


def open_runtime(
    endpoint: str,
    *,
    node_ip: str,
    root_directory: Path,
    clock: Callable[[], float],
    new_id: Callable[[], str] = lambda: os.urandom(16).hex(),
) -> Runtime:
    """Return the runtime at `endpoint`; nothing is contacted yet.

    ``unix:///run/containerd/containerd.sock`` is a CRI socket; ``process://`` runs host processes and keeps its
    records in `root_directory`, ``process:///some/directory`` there.

    Raises:
        UserError: The endpoint is neither.
    """
    kind, _, path = endpoint.partition("://")
    if kind == "process":
        return ProcessRuntime(
            state_directory=Path(path) if path else root_directory / "process",
            node_ip=node_ip,
            version=__version__,
            clock=clock,
            new_id=new_id,
        )
    if endpoint.startswith("/"):
        kind, path = "unix", endpoint
    if kind == "unix" and path.startswith("/"):
        return CriRuntime(endpoint=f"unix://{path}", node_ip=node_ip)
    raise UserError(
        f"containerRuntimeEndpoint {endpoint!r} is not an endpoint",
        hint="use unix:///run/containerd/containerd.sock, or process:// to run pods as host processes",
    )
