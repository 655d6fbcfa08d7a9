"""What pods may write on the node's disk: ``sizeLimit`` of emptyDirs, limits of ``ephemeral-storage``; pure.

As in the kubelet, a pod that has written more is evicted at once, without regard to who else uses what, and a limit
of 0 is none.
"""

from collections.abc import Mapping

from edgehive.edge.pods_spec import Pod, parse_quantity

RESOURCE = "ephemeral-storage"


def limited_volumes(pod: Pod) -> dict[str, str]:
    """The emptyDirs on disk that have a ``sizeLimit``, by name; one in memory cannot grow beyond its own."""
    found = {}
    for volume in pod.spec.volumes:
        source = volume.get("emptyDir") or {}
        if parse_quantity(source.get("sizeLimit", 0)) > 0 and source.get("medium") != "Memory":
            found[str(volume.get("name", ""))] = str(source["sizeLimit"])
    return found


def limited_containers(pod: Pod) -> dict[str, str]:
    """The limits of containers on what they write, by name."""
    limits = ((one.name, one.resources.limits.get(RESOURCE)) for one in pod.spec.containers)
    return {name: str(limit) for name, limit in limits if parse_quantity(limit or 0) > 0}


def empty_directories(pod: Pod) -> list[str]:
    """The names of the emptyDirs on disk."""
    sources = ((str(v.get("name", "")), v.get("emptyDir")) for v in pod.spec.volumes if "emptyDir" in v)
    return [name for name, source in sources if (source or {}).get("medium") != "Memory"]


def excess(pod: Pod, volumes: Mapping[str, int], containers: Mapping[str, int]) -> str:
    """Say what is larger than it may be, if anything is.

    `volumes` are the bytes in emptyDirs on disk, `containers` those of writable layers and logs, both by name.
    """
    for name, limit in limited_volumes(pod).items():
        if volumes.get(name, 0) > parse_quantity(limit):
            return f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
    limits = limited_containers(pod)
    if not limits:
        return ""
    most = sum(parse_quantity(limit) for limit in limits.values())
    if sum(volumes.values()) + sum(containers.values()) > most:
        return (
            f"Pod ephemeral local storage usage exceeds the total limit of containers {_size(limits, most)}. "
        )
    for name, limit in limits.items():
        if containers.get(name, 0) > parse_quantity(limit):
            return f'Container {name} exceeded its local ephemeral storage limit "{limit}". '
    return ""


def _size(limits: Mapping[str, str], most: float) -> str:
    return next(iter(limits.values())) if len(limits) == 1 else f"{int(most)}"
