"""Whose object is it: adoption and release by selector and controlling owner reference.

As Kubernetes does it: a controller owns what carries its uid as controller and matches its selector; it adopts
what matches and has no controller; it releases what it controls but no longer matches.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edgehive.controllers.context import Context
from edgehive.controllers.objects import controller_of
from edgehive.kube.meta import Meta
from edgehive.kube.reflector import CachedObject
from edgehive.kube.refs import GVR
from edgehive.kube.selectors import LabelSelector
from edgehive.kube.status import ApiStatus


@dataclass(frozen=True, slots=True)
class Owner:
    """A controller as it stands in ownerReferences."""

    api_version: str
    kind: str
    meta: Meta

    def reference(self) -> dict[str, Any]:
        """The reference that makes something ours."""
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.meta.name,
            "uid": self.meta.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


@dataclass(slots=True)
class Claims:
    """What `sort_claims` found."""

    owned: list[CachedObject] = field(default_factory=list)
    adopt: list[CachedObject] = field(default_factory=list)
    release: list[CachedObject] = field(default_factory=list)


def sort_claims(owner: Meta, selector: LabelSelector, objects: Iterable[CachedObject]) -> Claims:
    """Sort `objects` (of the owner's namespace) by what the owner must do with them."""
    claims = Claims()
    for obj in objects:
        controller = controller_of(obj.meta)
        matches = selector.matches(obj.meta.labels)
        if controller == owner.uid:
            if matches:
                claims.owned.append(obj)
            elif owner.deletion_timestamp is None:
                claims.release.append(obj)
        elif (
            not controller
            and matches
            and owner.deletion_timestamp is None
            and obj.meta.deletion_timestamp is None
            and not selector.everything
        ):
            claims.adopt.append(obj)
    return claims


async def claim(
    context: Context, gvr: GVR, owner: Owner, selector: LabelSelector, objects: Iterable[CachedObject]
) -> list[CachedObject]:
    """Adopt and release; return what is ours afterwards."""
    claims = sort_claims(owner.meta, selector, objects)
    informer = context.informers.full(gvr)
    for obj in claims.adopt:
        others = [msgspec.to_builtins(o) for o in obj.meta.owner_references or ()]
        await _repoint(context, gvr, obj, [*others, owner.reference()])
        adopted = informer.get(obj.meta.namespace, obj.meta.name)
        if adopted is not None and controller_of(adopted.meta) == owner.meta.uid:
            claims.owned.append(adopted)
    for obj in claims.release:
        rest = [msgspec.to_builtins(o) for o in obj.meta.owner_references or () if o.uid != owner.meta.uid]
        await _repoint(context, gvr, obj, rest or None)
    return claims.owned


async def _repoint(
    context: Context, gvr: GVR, obj: CachedObject, references: list[dict[str, Any]] | None
) -> None:
    try:
        await context.patch(gvr, obj.meta, {"metadata": {"ownerReferences": references}}, locked=True)
    except ApiStatus as exc:
        if exc.code != 404:
            raise
