"""Pods that wait on the node until somebody there lets them start (KubeEdge: hold-upgrade); pure."""

from collections.abc import Collection

from edgehive.edge.pods_spec import HOLD_ANNOTATION, Pod


class HeldPods:
    """Which pods are held, and which were let in. What was started once is not held again."""

    def __init__(self) -> None:
        self._held: dict[str, Pod] = {}
        self._released: set[str] = set()

    def hold(self, pod: Pod) -> bool:
        """Note `pod` if it has to wait; say whether it has."""
        wanted = pod.metadata.annotations.get(HOLD_ANNOTATION) == "true"
        pending = pod.status.get("phase", "Pending") == "Pending" and not pod.deleting
        if not (wanted and pending) or pod.uid in self._released:
            self._held.pop(pod.uid, None)
            return False
        self._held[pod.uid] = pod
        return True

    def release(self, namespace: str, name: str) -> list[Pod]:
        """Let in the pod of that name, or all without one."""
        found = [p for p in self._held.values() if not name or p.key == f"{namespace}/{name}"]
        self._released |= {pod.uid for pod in found}
        return found

    def take_running(self, running: Collection[str]) -> list[Pod]:
        """Return, and hold no longer, what runs already: it was let in before edgecore was restarted."""
        return [self._held.pop(uid) for uid in self._held.keys() & set(running)]

    def pods(self) -> dict[str, Pod]:
        """Who is held, by uid."""
        return dict(self._held)

    def uids(self) -> set[str]:
        """Who is held."""
        return set(self._held)

    def drop(self, *, uid: str = "", key: str = "", keep: Collection[str] | None = None) -> list[str]:
        """Forget the pod of `uid` or `key`, or all but `keep`; return whom."""
        found = [
            one
            for one, pod in self._held.items()
            if one == uid or pod.key == key or (keep is not None and one not in keep)
        ]
        for one in found:
            del self._held[one]
        return found

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._released.discard(uid)
        self._held.pop(uid, None)
