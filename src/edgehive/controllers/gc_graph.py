"""Who owns whom, over all kinds, and what follows when an owner goes. Pure.

Kubernetes' garbage collection: an object all of whose owners are gone is deleted; ``foregroundDeletion`` holds an
owner until the dependents that block it are gone; ``orphan`` holds it until its dependents have let go of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

import msgspec

from edgehive.controllers.resources import Served
from edgehive.kube.meta import Meta, OwnerReference

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


class Item(msgspec.Struct, gc=False, frozen=True):
    """One object in the graph."""

    uid: str
    served: Served
    namespace: str
    name: str
    owners: tuple[OwnerReference, ...]
    finalizers: tuple[str, ...]
    deleting: bool

    @property
    def holds_foreground(self) -> bool:
        """Whether it waits for its dependents to be deleted."""
        return self.deleting and FOREGROUND in self.finalizers

    @property
    def holds_orphan(self) -> bool:
        """Whether it waits for its dependents to let go."""
        return self.deleting and ORPHAN in self.finalizers


def item_of(served: Served, meta: Meta) -> Item:
    """Make the graph's view of an object."""
    return Item(
        uid=meta.uid,
        served=served,
        namespace=meta.namespace,
        name=meta.name,
        owners=meta.owner_references or (),
        finalizers=meta.finalizers or (),
        deleting=meta.deletion_timestamp is not None,
    )


class OwnerState(Enum):
    """What is known of one owner."""

    SOLID = auto()
    WAITING = auto()
    """It is being deleted in the foreground, and waits for us."""
    ABSENT = auto()
    UNKNOWN = auto()
    """Not in the graph: the server must be asked."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with an object that has owners."""

    drop: tuple[str, ...] = ()
    """Owner uids to take off its ownerReferences."""
    delete: str = ""
    """Propagation policy to delete it with; empty: keep it."""


class Graph:
    """All objects by uid, and the dependents of every owner, present or not."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._dependents: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._items)

    def get(self, uid: str) -> Item | None:
        """Return one object."""
        return self._items.get(uid)

    def put(self, item: Item) -> Item | None:
        """Take an object's newest state; return the one before."""
        old = self.remove(item.uid)
        self._items[item.uid] = item
        for owner in item.owners:
            self._dependents.setdefault(owner.uid, set()).add(item.uid)
        return old

    def remove(self, uid: str) -> Item | None:
        """Forget an object; its dependents still name it."""
        old = self._items.pop(uid, None)
        for owner in old.owners if old else ():
            dependents = self._dependents.get(owner.uid)
            if dependents is not None:
                dependents.discard(uid)
                if not dependents:
                    del self._dependents[owner.uid]
        return old

    def dependents(self, uid: str) -> list[Item]:
        """Return the objects that name `uid` as an owner."""
        return [self._items[d] for d in sorted(self._dependents.get(uid, ())) if d in self._items]

    def of_kind(self, served: Served) -> list[Item]:
        """Return all objects of one kind."""
        return [item for item in self._items.values() if item.served == served]

    def homeless(self) -> Iterator[str]:
        """Return the uids of objects with an owner that is not in the graph."""
        for owner, dependents in self._dependents.items():
            if owner not in self._items:
                yield from dependents

    def blocking(self, owner_uid: str) -> list[Item]:
        """Return the dependents that hold up a foreground deletion."""
        return [
            item
            for item in self.dependents(owner_uid)
            if any(o.uid == owner_uid and o.block_owner_deletion for o in item.owners)
        ]

    def owner_state(self, item: Item, owner: OwnerReference) -> OwnerState:
        """Say what the graph knows of one owner of `item`."""
        found = self._items.get(owner.uid)
        if found is None:
            return OwnerState.UNKNOWN
        if not item.namespace and found.namespace:
            return OwnerState.SOLID  # an impossible reference; Kubernetes leaves such objects alone
        named = (found.name, found.served.kind) == (owner.name, owner.kind)
        if not named or found.namespace not in ("", item.namespace):
            return OwnerState.ABSENT
        return OwnerState.WAITING if found.holds_foreground else OwnerState.SOLID

    def judge(self, item: Item, states: dict[str, OwnerState]) -> Verdict:
        """Decide about `item`, given the state of each of its owners by uid."""
        if not item.owners or item.deleting:
            return Verdict()
        gone = tuple(uid for uid, state in states.items() if state is not OwnerState.SOLID)
        if len(gone) < len(states):
            return Verdict(drop=gone)
        if ORPHAN in item.finalizers:
            return Verdict(delete="Orphan")
        waiting = any(state is OwnerState.WAITING for state in states.values())
        if FOREGROUND in item.finalizers or (waiting and self._dependents.get(item.uid)):
            return Verdict(delete="Foreground")
        return Verdict(delete="Background")
