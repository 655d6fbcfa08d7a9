"""End everything a node runs and remove what was made for it: for leaving a cluster, and for cleaning up."""

import asyncio
import logging
from pathlib import Path

from edgehive.edge.pods_actions import NODE_NAME, POD_NAME, POD_NAMESPACE, POD_UID
from edgehive.edge.programs import discard_tree
from edgehive.edge.runtime import ContainerInfo, Runtime, RuntimeFailure, State
from edgehive.edge.volumes_files import remove_tree
from edgehive.kit.text import safe_label

log = logging.getLogger(__name__)


async def remove_all_pods(runtime: Runtime, *, node: str, root_directory: Path, grace: float = 5.0) -> int:
    """Stop and remove every sandbox that `node` has made, and its pods' volumes; return how many there were.

    edgecore must not run. What other nodes or tools have made in the same runtime stays.

    Raises:
        RuntimeFailure: Something could not be ended; calling again goes on.
        Unreachable: The runtime is away.
        OSError: A volume could not be removed.
    """
    sandboxes = [s for s in await runtime.list_sandboxes() if s.labels.get(NODE_NAME) == node]
    ours = {sandbox.id for sandbox in sandboxes}
    containers = [info for info in await runtime.list_containers() if info.sandbox_id in ours]
    logs = {path for info in containers if (path := _log_directory(info)) is not None}
    async with asyncio.TaskGroup() as group:
        for info in containers:
            if info.state is State.RUNNING:
                group.create_task(_stop(runtime, info.id, info.name, grace))
    for sandbox in sandboxes:
        await runtime.stop_sandbox(sandbox.id)
        await runtime.remove_sandbox(sandbox.id)
    for directory in logs:
        discard_tree(directory)
    await remove_tree(root_directory / "pods")
    await remove_tree(root_directory / "plugins" / "kubernetes.io" / "csi")  # volumes that drivers had staged
    return len(sandboxes)


def _log_directory(info: ContainerInfo) -> Path | None:
    labels = info.labels
    name = f"{labels.get(POD_NAMESPACE)}_{labels.get(POD_NAME)}_{labels.get(POD_UID)}"
    return next((path for path in Path(info.log_path).parents if path.name == name), None)


async def _stop(runtime: Runtime, container_id: str, name: str, grace: float) -> None:
    try:
        await runtime.stop_container(container_id, grace)
    except RuntimeFailure as exc:
        log.warning("container %s: %s", safe_label(name), safe_label(str(exc)))
