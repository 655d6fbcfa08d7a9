"""The pod side of edgecore, assembled: cgroups, the pod network, the kubelet's pages. What is off is not imported."""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgehive.edge.cgroups import NoCgroups, PodCgroups
from edgehive.edge.config import Edged
from edgehive.edge.node_probe import Machine, NodeProbe
from edgehive.edge.pods_config import cgroup_rules
from edgehive.edge.runtime import Runtime, RuntimeFailure
from edgehive.kit.errors import Unreachable, UserError

if TYPE_CHECKING:
    from edgehive.edge.cgroups_fs import Hierarchy
    from edgehive.edge.kubelet_api import KubeletApi, Stats, Streams
    from edgehive.edge.pods_manager import PodManager

log = logging.getLogger(__name__)

PROCESS = "process://"


def uses_process(edged: Edged) -> bool:
    """Whether pods are host processes."""
    return edged.tailored_kubelet_config.container_runtime_endpoint.startswith(PROCESS)


def hierarchy(edged: Edged, probe: NodeProbe) -> "Hierarchy | None":
    """The cgroups of the machine, where pods are to have some of their own."""
    kubelet, processes = edged.tailored_kubelet_config, uses_process(edged)
    if not kubelet.cgroups_per_qos or (processes and probe.memory_is_limited()):
        return None  # processes stay within the limit that this service was given
    from edgehive.edge.cgroups_fs import Hierarchy

    made = Hierarchy()
    return made if made.writable() or not processes else None


def pod_cgroups(edged: Edged, probe: NodeProbe, machine: Machine) -> PodCgroups:
    """What makes pods' cgroups."""
    found = hierarchy(edged, probe)
    if found is None:
        return NoCgroups()
    from edgehive.edge.cgroups_fs import open_cgroups

    rules = cgroup_rules(edged.tailored_kubelet_config, machine, processes=uses_process(edged))
    return open_cgroups(rules, found)


async def set_up_network(edged: Edged, runtime: Runtime) -> None:
    """Give the runtime a pod network if it has none; what is in the way is in the log.

    Raises:
        Unreachable: the runtime does not answer now.
    """
    from edgehive.edge.cni import directories_of, set_up
    from edgehive.edge.cri import CriRuntime

    assert isinstance(runtime, CriRuntime)
    try:
        directories = directories_of(await runtime.own_config())
        done = set_up(directories, edged.tailored_kubelet_config.pod_cidr)
    except RuntimeFailure as exc:
        raise Unreachable(f"the container runtime: {exc}") from exc
    except UserError as exc:
        log.warning("%s (%s)", exc.message, exc.hint or "pods that need a network wait")
    else:
        log.log(logging.INFO if done else logging.DEBUG, "%s", done or "the runtime has a pod network")


def kubelet_api(runtime: Runtime, pods: "PodManager", edged: Edged, probe: NodeProbe) -> "KubeletApi":
    """The streaming and statistics pages of this node."""
    from edgehive.edge.kubelet_api import KubeletApi

    def stats() -> "Stats":
        from edgehive.edge.kubelet_stats import NodeStats  # most nodes are never asked

        return NodeStats(
            node=edged.hostname_override,
            runtime=runtime,
            containers=pods.containers,
            probe=probe,
            root_directory=Path(edged.root_directory),
            wall=time.time,
        )

    def streams() -> "Streams":
        if uses_process(edged):
            from edgehive.edge.kubelet_process import ProcessStreams
            from edgehive.edge.process import ProcessRuntime

            assert isinstance(runtime, ProcessRuntime)
            return ProcessStreams(runtime)
        from edgehive.edge.cri import CriRuntime
        from edgehive.edge.kubelet_cri import CriStreams

        assert isinstance(runtime, CriRuntime)
        return CriStreams(runtime)

    return KubeletApi(runtime=runtime, streams=streams, wall=time.time, stats=stats)
