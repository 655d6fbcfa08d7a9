"""What edged is told of its pods, and whom it ends by that; pure, so that the simulator runs it too.

Told is the uid, not only the name: a cloudcore that was restarted before it knew of the acknowledgement says again
that the old pod is gone, when the next one of its name was delivered already.
"""

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from edgehive.edge.metaclient import Change, PodChange
from edgehive.kit.malformed import MALFORMED
from edgehive.kube.meta import decode_partial


class Told(msgspec.Struct, frozen=True):
    """A change of one pod, and the uid of the pod it is about; empty if it does not say."""

    change: PodChange
    uid: str

    @property
    def removed(self) -> bool:
        return self.change.kind is Change.REMOVE

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return f"{self.change.namespace}/{self.change.name}"

    def ends(self, key: str, uid: str) -> bool:
        """Whether the pod `uid` of that name (``namespace/name``) has to end by this.

        A removal ends the pod it is about. A new pod ends those that had its name before.
        """
        if key != self.key:
            return False
        return self.uid in (uid, "") if self.removed else self.uid not in (uid, "")


class PodInbox:
    """Changes that wait to be taken: the newest of each pod, in the order in which they came.

    Bounded by the pods of the node: there is one entry a pod at most.
    """

    def __init__(self) -> None:
        self._everything = False
        self._waiting: OrderedDict[tuple[str, str, str], PodChange] = OrderedDict()

    def put(self, change: PodChange) -> None:
        """Take a change in; with ``SET`` what waited before does not matter any more."""
        if change.kind is Change.SET:
            self._everything = True
            self._waiting.clear()
            return
        key = (change.namespace, change.name, _uid_of(change))
        self._waiting.pop(key, None)
        self._waiting[key] = change

    def take_set(self) -> bool:
        """Whether everything has to be compared, before anything else; asked once."""
        everything, self._everything = self._everything, False
        return everything

    def take(self) -> Iterator[Told]:
        """Take out every change; more may come meanwhile."""
        while self._waiting:
            (_, _, uid), change = self._waiting.popitem(last=False)
            yield Told(change, uid)


def _uid_of(change: PodChange) -> str:
    try:
        return decode_partial(change.raw).metadata.uid if change.raw else ""
    except MALFORMED:
        return ""
