"""The policy controller: which service accounts are used on which edge, and what each may do there.

For every account with pods on edge nodes there is a ServiceAccountAccess, made and kept right here, and brought to
those nodes like any other object: under a record, so that what changes while somebody is away is found by comparison.
MetaServer decides by it without the cloud. Runs only with the feature gate ``requireAuthorization``.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from edgehive.aio.informer import Informer
from edgehive.cloud.policy_rules import Roles
from edgehive.kit.errors import EdgehiveError
from edgehive.kit.malformed import MALFORMED
from edgehive.kube.api import KubeApi, WriteOptions
from edgehive.kube.crd_policy import SERVICE_ACCOUNT_ACCESSES
from edgehive.kube.reflector import CachedObject as Cached
from edgehive.kube.reflector import Change, Key, decode_cached
from edgehive.kube.refs import CLUSTERROLEBINDINGS, CLUSTERROLES, ROLEBINDINGS, ROLES, SERVICEACCOUNTS
from edgehive.kube.status import ApiStatus
from edgehive.wire import resource as res
from edgehive.wire.classify import POLICY_CONTROLLER
from edgehive.wire.cloudnode import CachedObject, Missing, Unknown
from edgehive.wire.objectsync import SyncRecord

log = logging.getLogger(__name__)

KIND: Final = "ServiceAccountAccess"
EDGE_LABEL: Final = "node-role.kubernetes.io/edge"


class PolicyCaches:
    """The informers of accounts, roles, bindings and what is made of them."""

    def __init__(self, *, api: KubeApi) -> None:
        self.accounts: Final = Informer(api=api, gvr=SERVICEACCOUNTS)
        self.roles: Final = Informer(api=api, gvr=ROLES)
        self.cluster_roles: Final = Informer(api=api, gvr=CLUSTERROLES)
        self.bindings: Final = Informer(api=api, gvr=ROLEBINDINGS)
        self.cluster_bindings: Final = Informer(api=api, gvr=CLUSTERROLEBINDINGS)
        self.accesses: Final = Informer(api=api, gvr=SERVICE_ACCOUNT_ACCESSES)

    def all(self) -> tuple[Informer, ...]:
        """Every informer."""
        return (self.accounts, *self.of_rights(), self.accesses)

    def of_rights(self) -> tuple[Informer, ...]:
        """Those whose change may concern any account."""
        return (self.roles, self.cluster_roles, self.bindings, self.cluster_bindings)

    def policy(self) -> Roles:
        """What they hold now."""

        def raws(informer: Informer) -> list[bytes]:
            return [found.raw for found in informer.items()]

        return Roles(
            roles=raws(self.roles),
            cluster_roles=raws(self.cluster_roles),
            bindings=raws(self.bindings),
            cluster_bindings=raws(self.cluster_bindings),
        )


class Usage:
    """Which pods use which account, on which node."""

    def __init__(self, *, nodes: Informer) -> None:
        self._nodes = nodes
        self._pods: dict[Key, tuple[Key, str]] = {}
        self._accounts: dict[Key, dict[Key, str]] = {}

    def pod(self, change: Change) -> set[Key]:
        """Take a change of a pod; return the accounts that it concerns."""
        key = change.object.key
        concerned = set()
        old = self._pods.pop(key, None)
        if old is not None:
            pods = self._accounts[old[0]]
            del pods[key]
            if not pods:
                del self._accounts[old[0]]
            concerned.add(old[0])
        if change.type != "DELETED":
            account, node = _account_of(change.object)
            if account[1] and node:
                self._pods[key] = account, node
                self._accounts.setdefault(account, {})[key] = node
                concerned = set() if old == (account, node) else concerned | {account}
        return concerned

    def nodes(self, account: Key) -> list[str]:
        """The edge nodes with pods of an account, in order."""
        return sorted({node for node in self._accounts.get(account, {}).values() if self._is_edge(node)})

    def accounts(self) -> Iterable[Key]:
        """Every account that is used."""
        return tuple(self._accounts)

    def _is_edge(self, node: str) -> bool:
        found = self._nodes.get("", node)
        return found is not None and EDGE_LABEL in (found.meta.labels or {})


class PolicyView:
    """The part of `wire.cloudnode.World` that is about ServiceAccountAccess."""

    types: Final = frozenset((res.SERVICE_ACCOUNT_ACCESS,))

    def __init__(self, *, api: KubeApi, caches: PolicyCaches) -> None:
        self._api = api
        self._accesses = caches.accesses
        self._by_node: dict[str, set[Key]] = {}
        self._seen: dict[Key, tuple[str, int, str, tuple[str, ...]]] = {}

    def note(self, change: Change) -> tuple[set[str], set[str]]:
        """Take a change; return the nodes that are to have the object (again), and those that are not any more."""
        found = change.object
        known = self._seen.pop(found.key, None)
        before = set(known[3]) if known is not None else set()
        for node in before:
            self._by_node[node].discard(found.key)
        if change.type == "DELETED":
            return set(), before
        nodes = _nodes_of(found.raw)
        meta = found.meta
        version = meta.resource_version
        # That other nodes joined the list does not make it newer for those that have it.
        same = known is not None and known[:2] == (meta.uid, meta.generation) and bool(meta.generation)
        if known is not None and same:
            version = known[2]
        self._seen[found.key] = meta.uid, meta.generation, version, nodes
        for node in nodes:
            self._by_node.setdefault(node, set()).add(found.key)
        return set(nodes) - (before if same else set()), before - set(nodes)

    def knows(self, record: SyncRecord) -> bool:
        """Whether `record` stands for a ServiceAccountAccess."""
        return record.api_version == SERVICE_ACCOUNT_ACCESSES.api_version and record.kind == KIND

    def find(self, record: SyncRecord) -> CachedObject | Missing | Unknown:
        """The object of a record, as long as its account is used on the record's node."""
        if not self._accesses.has_synced:
            return Unknown()
        found = self._accesses.get(record.key.namespace or "", record.object_name)
        if found is None or record.key.node not in _nodes_of(found.raw):
            return Missing()
        return self.convert(found)

    async def fetch(self, record: SyncRecord) -> CachedObject | Missing | Unknown:
        """The same, asked of the API server itself."""
        options = WriteOptions(namespace=record.key.namespace)
        try:
            raw = await self._api.get(SERVICE_ACCOUNT_ACCESSES, record.object_name, options)
        except ApiStatus as exc:
            return Missing() if exc.code == 404 else Unknown()
        except EdgehiveError:
            return Unknown()
        return self.convert(decode_cached(raw)) if record.key.node in _nodes_of(raw) else Missing()

    def assigned(self, node: str) -> Iterable[CachedObject]:
        """The accesses of the accounts that are used on the node."""
        for key in sorted(self._by_node.get(node, ())):
            found = self._accesses.get(*key)
            if found is not None:
                yield self.convert(found)

    def meant_for(self, kind: str, key: Key) -> Iterable[str]:
        """The nodes that should have one."""
        known = self._seen.get(key)
        return known[3] if known is not None else ()

    def wanted_version(self, kind: str, key: Key) -> str:
        """The version that those nodes should have; "" for an object that does not exist."""
        known = self._seen.get(key)
        return known[2] if known is not None else ""

    def convert(self, found: Cached) -> CachedObject:
        """The form in which the per-node cores take an object: who else has it is nobody's business."""
        meta = found.meta
        known = self._seen.get(found.key)
        obj = _decode(found.raw)
        obj.pop("status", None)
        obj["metadata"] = {k: v for k, v in (obj.get("metadata") or {}).items() if k != "managedFields"}
        return CachedObject(
            api_version=SERVICE_ACCOUNT_ACCESSES.api_version,
            kind=KIND,
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            version=known[2] if known is not None and known[0] == meta.uid else meta.resource_version,
            raw=msgspec.json.encode(obj | {"status": {}}),
            source=POLICY_CONTROLLER,
        )


class _PodSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""
    service_account_name: str = ""


class _Pod(msgspec.Struct):
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)


class _Status(msgspec.Struct, rename="camel"):
    node_list: tuple[str, ...] | None = None


class _Access(msgspec.Struct):
    status: _Status = msgspec.field(default_factory=_Status)


def _account_of(pod: Cached) -> tuple[Key, str]:
    try:
        spec = msgspec.json.decode(pod.raw, type=_Pod).spec
    except MALFORMED:
        return (pod.meta.namespace, ""), ""
    return (pod.meta.namespace, spec.service_account_name), spec.node_name


def _nodes_of(raw: bytes) -> tuple[str, ...]:
    try:
        return msgspec.json.decode(raw, type=_Access).status.node_list or ()
    except MALFORMED:
        return ()


def _decode(raw: bytes) -> dict[str, Any]:
    found = msgspec.json.decode(raw)
    return dict(found) if isinstance(found, Mapping) else {}
