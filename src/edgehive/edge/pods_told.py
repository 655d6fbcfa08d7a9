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
    clears: bool = False
    """A removal that also ends whatever had the name before: that of a pod which nobody was told of in between."""

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
        return self.clears or self.uid in (uid, "") if self.removed else self.uid not in (uid, "")


_Key = tuple[str, str, str]  # namespace, name, uid


class PodInbox:
    """Changes that wait to be taken: the newest of each pod, in the order in which they came.

    Bounded by the pods of the node: there is one entry a pod at most.
    """

    def __init__(self) -> None:
        self._everything = False
        self._waiting: OrderedDict[_Key, Told] = OrderedDict()

    def put(self, change: PodChange) -> None:
        """Take a change in; with ``SET`` what waited before does not matter any more."""
        if change.kind is Change.SET:
            self._everything = True
            self._waiting.clear()
            return
        key = (change.namespace, change.name, _uid_of(change))
        clears = change.kind is Change.REMOVE and self._would_have_ended_others(key)
        self._waiting.pop(key, None)
        self._waiting[key] = Told(change, key[2], clears)

    def _would_have_ended_others(self, key: _Key) -> bool:
        """Whether what waits for this pod ends those that had its name before, and no newer one of that name does."""
        told = self._waiting.get(key)
        if told is None or (told.removed and not told.clears):
            return False
        return next(k for k in reversed(self._waiting) if k[:2] == key[:2] and self._is_new(k)) == key

    def _is_new(self, key: _Key) -> bool:
        return not self._waiting[key].removed or self._waiting[key].clears

    def take_set(self) -> bool:
        """Whether everything has to be compared, before anything else; asked once."""
        everything, self._everything = self._everything, False
        return everything

    def take(self) -> Iterator[Told]:
        """Take out every change; more may come meanwhile."""
        while self._waiting:
            yield self._waiting.popitem(last=False)[1]


def _uid_of(change: PodChange) -> str:
    try:
        return decode_partial(change.raw).metadata.uid if change.raw else ""
    except MALFORMED:
        return ""
