"""Events about pods, as ``kubectl describe pod`` shows them."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from edgehive.edge.pods_spec import Pod, format_time

_REMEMBERED = 512


class PodEvents:
    """Makes ``v1.Event`` objects; a repeated one keeps its name and counts up."""

    def __init__(
        self, *, report: Callable[[Mapping[str, Any]], None], node: str, clock: Callable[[], float]
    ) -> None:
        self._report = report
        self._node = node
        self._clock = clock
        self._seen: OrderedDict[tuple[str, ...], tuple[str, str, int]] = OrderedDict()

    def emit(
        self, pod: Pod, reason: str, message: str, *, container: str = "", warning: bool = False
    ) -> None:
        """Report one event about `pod`, or about one of its containers."""
        now = self._clock()
        stamp = format_time(now)
        meta = pod.metadata
        key = (meta.uid, container, reason, message)
        name, first, count = self._seen.pop(key, (f"{meta.name}.{int(now * 1e9):x}", stamp, 0))
        self._seen[key] = (name, first, count + 1)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        involved = {
            "kind": "Pod",
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
            "apiVersion": "v1",
        }
        if container:
            init = any(one.name == container for one in pod.spec.init_containers)
            involved["fieldPath"] = f"spec.{'initContainers' if init else 'containers'}{{{container}}}"
        self._report(
            {
                "kind": "Event",
                "apiVersion": "v1",
                "metadata": {"name": name, "namespace": meta.namespace},
                "involvedObject": involved,
                "reason": reason,
                "message": message[:1024],
                "source": {"component": "kubelet", "host": self._node},
                "firstTimestamp": first,
                "lastTimestamp": stamp,
                "count": count + 1,
                "type": "Warning" if warning else "Normal",
                "eventTime": None,
                "reportingComponent": "kubelet",
                "reportingInstance": self._node,
            }
        )
