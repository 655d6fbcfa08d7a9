"""Keeps every ServiceAccountAccess right and brings it to its nodes; approves MetaServer's certificates."""

import base64
import ipaddress
import logging
import random
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import msgspec

from edgehive.aio import pki
from edgehive.aio.informer import Informer
from edgehive.aio.supervise import Service
from edgehive.cloud.keyedwork import KeyedWork
from edgehive.cloud.metrics import Metric, single
from edgehive.cloud.policy import KIND, PolicyCaches, PolicyView, Usage
from edgehive.cloud.policy_rules import Roles
from edgehive.kit.errors import EdgehiveError, Transient
from edgehive.kit.malformed import MALFORMED
from edgehive.kit.text import safe_label
from edgehive.kube.api import MERGE_PATCH, KubeApi, WriteOptions
from edgehive.kube.crd_policy import SERVICE_ACCOUNT_ACCESSES
from edgehive.kube.reflector import CachedObject as Cached
from edgehive.kube.reflector import Change, Key
from edgehive.kube.refs import CSRS, GVR, SERVICES
from edgehive.kube.status import ApiStatus
from edgehive.wire import resource as res
from edgehive.wire.classify import POLICY_CONTROLLER, RESOURCE_GROUP
from edgehive.wire.desired import object_message
from edgehive.wire.endpoint import NODE_USER_PREFIX, NODES_ORGANIZATION
from edgehive.wire.message import DELETE, Message, Stamp
from edgehive.wire.outbound import Outbound

log = logging.getLogger(__name__)

SIGNER: Final = "kubernetes.io/kubelet-serving"
_USAGES: Final = frozenset({"digital signature", "key encipherment", "server auth"})
ENDPOINTS: Final = GVR("", "v1", "endpoints")
SELF_REVIEWS: Final = GVR("authentication.k8s.io", "v1", "selfsubjectreviews")


class Nodes(Protocol):
    """The connected nodes."""

    def connected(self, node: str) -> bool:
        """Whether `node` is connected to this instance."""
        ...

    def send(self, node: str, message: Outbound) -> None:
        """Bring `message` to `node`."""
        ...


class PolicyController:
    """`view` is needed by the nodes, so that it is there before `connect` gives them."""

    def __init__(self, *, api: KubeApi, stamp: Stamp, rng: Callable[[], float] = random.random) -> None:
        self._api = api
        self._stamp = stamp
        self.caches: Final = PolicyCaches(api=api)
        self.view: Final = PolicyView(api=api, caches=self.caches)
        self._usage: Usage
        self._nodes: Nodes
        self._work: KeyedWork[Key] = KeyedWork(
            self._reconcile,
            describe=lambda key: "the access of {}/{} is not written now".format(*key),
            rng=rng,
        )
        self._rng = rng
        self._written: dict[Key, bytes] = {}
        self._roles: Roles | None = None
        self.approver: CsrApprover
        self.writes = 0

    def connect(self, nodes: Nodes, *, pods: Informer, machines: Informer) -> None:
        """Take the nodes and the caches that others run, and begin."""
        self._nodes = nodes
        self._usage = Usage(nodes=machines)
        self.approver = CsrApprover(api=self._api, nodes=machines, rng=self._rng)
        self.caches.accesses.subscribe(self._access_changed)
        pods.subscribe(lambda change: self._ask(self._usage.pod(change)))
        self.caches.accounts.subscribe(lambda change: self._ask([change.object.key]))
        for informer in self.caches.of_rights():
            informer.subscribe(self._rights_changed)
        machines.subscribe(self._machine_changed)

    def services(self) -> list[Service]:
        """What has to run."""
        return [
            Service("service account accesses", self.run),
            Service("watch certificate requests", self.approver.requests.run),
            Service("certificate requests", self.approver.run),
        ]

    def metrics(self) -> Iterable[Metric]:
        """Counters."""
        yield single("edgehive_policy_writes_total", "counter", "Writes of ServiceAccountAccess", self.writes)
        yield single(
            "edgehive_certificate_requests_approved_total",
            "counter",
            "Serving certificates of MetaServers approved",
            self.approver.approved,
        )

    async def run(self) -> None:
        """Reconcile accounts, one at a time, until cancelled."""
        for informer in self.caches.all():
            await informer.synced()
        self._ask(found.key for found in self.caches.accesses.items())
        await self._work.run()

    def _ask(self, accounts: Iterable[Key]) -> None:
        """Have these accounts looked at; each waits at most once."""
        self._work.ask(accounts)

    def _rights_changed(self, _change: Change) -> None:
        self._roles = None
        self._ask(self._usage.accounts())

    def _policy(self) -> Roles:
        """All roles and bindings, read once until one of them changes."""
        if self._roles is None:
            self._roles = self.caches.policy()
        return self._roles

    def _machine_changed(self, change: Change) -> None:
        if change.old is None or change.new is None or change.old.meta.labels != change.new.meta.labels:
            self._ask(self._usage.accounts())

    async def _reconcile(self, account: Key) -> None:
        access = self._access(account)
        owner = self.caches.accounts.get(*account)
        nodes = self._usage.nodes(account)
        if owner is None or not nodes:
            # One that somebody made for an account without pods is left alone.
            if access is not None and (owner is None or list(self.view.meant_for("", access.key))):
                await self._write(
                    self._api.delete(SERVICE_ACCOUNT_ACCESSES, access.meta.name, _in(access.key))
                )
            self._written.pop(account, None)
            return
        spec = self._policy().spec(owner.raw)
        text = msgspec.json.encode(spec)
        if access is None:
            body = {
                "apiVersion": SERVICE_ACCOUNT_ACCESSES.api_version,
                "kind": KIND,
                "metadata": {"name": account[1], "namespace": account[0]},
                "spec": spec,
            }
            raw = await self._write(
                self._api.create(SERVICE_ACCOUNT_ACCESSES, msgspec.json.encode(body), _in(account))
            )
            name, held, where = account[1], raw, account
        else:
            # One made by hand may have another name, in another namespace.
            name, held, where = access.meta.name, access.raw, access.key
            # What the server made of our own words is not argued with.
            if self._written.get(account) != text and msgspec.json.decode(held).get("spec") != spec:
                body = msgspec.json.decode(held) | {"spec": spec}
                held = await self._write(
                    self._api.update(SERVICE_ACCOUNT_ACCESSES, name, msgspec.json.encode(body), _in(where))
                )
        self._written[account] = text
        if (msgspec.json.decode(held).get("status") or {}).get("nodeList") != nodes:
            patch = msgspec.json.encode({"status": {"nodeList": nodes}})
            await self._write(
                self._api.patch(SERVICE_ACCOUNT_ACCESSES, name, patch, MERGE_PATCH, _in(where, "status"))
            )

    async def _write(self, request: Any) -> bytes:
        """Carry out a write; that somebody else was faster shows in the cache, and is looked at again then."""
        self.writes += 1
        try:
            raw: bytes = await request
        except ApiStatus as exc:
            if exc.code in (404, 409):
                return b"{}"
            raise
        return raw

    def _access(self, account: Key) -> Cached | None:
        """The object of an account: by its own name as a rule, whatever it is called otherwise."""
        found = self.caches.accesses.get(*account)
        if found is not None and _account(found) == account:
            return found
        return next((a for a in self.caches.accesses.items() if _account(a) == account), None)

    # to the nodes

    def _access_changed(self, change: Change) -> None:
        bring, drop = self.view.note(change)
        found = change.object
        for node in sorted(bring):
            if self._nodes.connected(node):
                first = change.old is None
                message = object_message(self.view.convert(found), first=first, stamp=self._stamp)
                self._nodes.send(node, message)
        for node in sorted(drop):
            if self._nodes.connected(node):
                self._nodes.send(node, self._delete(found))
        self._ask([_account(found)])

    def _delete(self, found: Cached) -> Outbound:
        message_id, timestamp = self._stamp()
        return Outbound(
            Message(
                id=message_id,
                timestamp=timestamp,
                operation=DELETE,
                resource=res.format_resource(
                    found.meta.namespace, res.SERVICE_ACCOUNT_ACCESS, found.meta.name
                ),
                content=self.view.convert(found).raw,
                resource_version=found.meta.resource_version,
                source=POLICY_CONTROLLER,
                group=RESOURCE_GROUP,
            )
        )


class CsrApprover:
    """Approves the serving certificates of MetaServers that ask for no more than their own addresses.

    A request says who asks only where nodes are authorized; otherwise cloudcore itself hands it in, after it has
    checked that the subject is the node's own (`cloud.upstream_objects`).
    """

    def __init__(self, *, api: KubeApi, nodes: Informer, rng: Callable[[], float]) -> None:
        self._api = api
        self._nodes = nodes
        self.requests: Final = Informer(api=api, gvr=CSRS)
        self._work: KeyedWork[str] = KeyedWork(
            self._look,
            describe=lambda name: f"the certificate request {name} is not approved now",
            again=_passes,
            rng=rng,
        )
        self._name: str | None = None
        self.approved = 0
        self.requests.subscribe(self._changed)

    def _changed(self, change: Change) -> None:
        if change.type != "DELETED":
            self._work.ask([change.object.meta.name])

    async def run(self) -> None:
        """Approve until cancelled."""
        await self._nodes.synced()
        await self._work.run()

    async def _look(self, name: str) -> None:
        found = self.requests.get("", name)
        if found is None:
            return
        obj = msgspec.json.decode(found.raw)
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        if spec.get("signerName") != SIGNER or status.get("conditions") or status.get("certificate"):
            return
        problem = self._problem(spec, await self._of_the_cluster(), await self._own_name())
        if problem:
            log.warning("the certificate request %s is left to others: %s", name, safe_label(problem, 200))
            return
        approval = {
            "type": "Approved",
            "status": "True",
            "reason": "AutoApproved",
            "message": "Auto approving MetaServer serving certificate.",
        }
        body = msgspec.json.encode(obj | {"status": status | {"conditions": [approval]}})
        await self._api.update(CSRS, name, body, WriteOptions(subresource="approval"))
        self.approved += 1
        log.info("approved the serving certificate %s", name)

    async def _of_the_cluster(self) -> set[str]:
        """The addresses of the API server, as the cluster knows them."""
        found: set[str] = set()
        for gvr in (SERVICES, ENDPOINTS):
            try:
                raw = await self._api.get(gvr, "kubernetes", WriteOptions(namespace="default"))
            except ApiStatus as exc:
                if exc.code != 404:
                    raise
                continue
            obj = msgspec.json.decode(raw, type=_ApiServer)
            found.update(obj.spec.cluster_ips or ())
            found.update(a.ip for subset in obj.subsets or () for a in subset.addresses or ())
        return found

    async def _own_name(self) -> str:
        """The user that cloudcore is to the API server; empty where that cannot be asked (before Kubernetes 1.28)."""
        if self._name is None:
            review = {"apiVersion": SELF_REVIEWS.api_version, "kind": "SelfSubjectReview"}
            try:
                raw = await self._api.create(SELF_REVIEWS, msgspec.json.encode(review))
                self._name = msgspec.json.decode(raw, type=_SelfReview).status.user_info.username
            except ApiStatus as exc:
                if exc.code == 403:
                    return ""  # one that has just started refuses what it allows later: asked again next time
                if exc.code not in (404, 405):
                    raise
                self._name = ""
        return self._name

    def _problem(self, spec: dict[str, Any], cluster: set[str], me: str) -> str:
        try:
            csr = pki.parse_csr(pki.pem_csr_to_der(base64.b64decode(str(spec.get("request") or ""))))
        except (EdgehiveError, ValueError) as exc:
            return str(exc)
        node = csr.common_name.removeprefix(NODE_USER_PREFIX)
        asker = str(spec.get("username") or "")
        if csr.organizations != (NODES_ORGANIZATION,) or not csr.common_name.startswith(NODE_USER_PREFIX):
            return "the subject is not that of a node"
        # Without a name of our own all that is known is that no other node asks.
        if asker not in (csr.common_name, me) and (me or asker.startswith(NODE_USER_PREFIX)):
            return f"{asker} asks for {csr.common_name}"
        if not _USAGES.issuperset(spec.get("usages") or ()) or "server auth" not in (
            spec.get("usages") or ()
        ):
            return "the usages are not those of a server"
        own = self._addresses(node)
        if own is None:
            return "there is no such node"
        # What a node says of its addresses is its own word, too: it may not have those of anybody else.
        own -= cluster | self._of_others(node)
        wrong = [a for a in csr.addresses if not (_is_local(a) or a in own)]
        # MetaServers ask for addresses alone. A node's names are its own words: it may call itself kubernetes.default.
        wrong += [n for n in csr.dns_names if n != "localhost"]
        if csr.other_names or wrong or not (csr.addresses or csr.dns_names):
            return f"not names of the node: {', '.join(wrong)}"
        return ""

    def _of_others(self, node: str) -> set[str]:
        found: set[str] = set()
        for other in self._nodes.items():
            if other.meta.name != node:
                found |= self._said_by(other) or set()
        return found

    def _addresses(self, node: str) -> set[str] | None:
        found = self._nodes.get("", node)
        return None if found is None else self._said_by(found)

    @staticmethod
    def _said_by(found: Cached) -> set[str] | None:
        try:
            status = msgspec.json.decode(found.raw, type=_Node).status
        except MALFORMED:
            return None
        return {str(a.get("address")) for a in status.addresses or ()}


class _Address(msgspec.Struct):
    ip: str = ""


class _Subset(msgspec.Struct):
    addresses: list[_Address] | None = None


class _ServiceSpec(msgspec.Struct):
    cluster_ips: list[str] | None = msgspec.field(default=None, name="clusterIPs")


class _ApiServer(msgspec.Struct):
    """The Service or the Endpoints ``kubernetes``."""

    spec: _ServiceSpec = msgspec.field(default_factory=_ServiceSpec)
    subsets: list[_Subset] | None = None


class _UserInfo(msgspec.Struct):
    username: str = ""


class _SelfReviewStatus(msgspec.Struct, rename="camel"):
    user_info: _UserInfo = msgspec.field(default_factory=_UserInfo)


class _SelfReview(msgspec.Struct):
    status: _SelfReviewStatus = msgspec.field(default_factory=_SelfReviewStatus)


class _NodeStatus(msgspec.Struct):
    addresses: list[dict[str, Any]] | None = None


class _Node(msgspec.Struct):
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)


def _is_local(address: str) -> bool:
    """Whether an address means another machine to everybody: loopback, and link-local as KubeEdge's dummy address."""
    parsed = ipaddress.ip_address(address)
    return parsed.is_loopback or parsed.is_link_local


def _passes(exc: EdgehiveError) -> bool:
    """Whether what failed with `exc` may work later."""
    return isinstance(exc, Transient) or (isinstance(exc, ApiStatus) and exc.retryable)


def _account(found: Cached) -> Key:
    obj = msgspec.json.decode(found.raw)
    meta = ((obj.get("spec") or {}).get("serviceAccount") or {}).get("metadata") or {}
    return str(meta.get("namespace") or found.meta.namespace), str(meta.get("name") or found.meta.name)


def _in(key: Key, subresource: str = "") -> WriteOptions:
    return WriteOptions(namespace=key[0], subresource=subresource)
