"""The embedded API server, assembled.

server = ApiServer(ApiServerOptions(directory=Path("control-plane"), port=6443))
await server.start()          # opens the store, makes certificates, binds the port, bootstraps
async with TaskGroup() as group:
group.create_task(server.run())
api = server.local_api()      # for controllers in the same process
"""

import asyncio
import contextlib
import ipaddress
import logging
import random
import socket
import ssl
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from edgehive import __version__
from edgehive.aio.gate import GateLimits
from edgehive.aio.http import HttpServer
from edgehive.aio.sqlite import SqliteLog
from edgehive.aio.storage import Storage
from edgehive.aio.supervise import Service, supervise
from edgehive.aio.trim import Trimmer
from edgehive.apiserver.admission import Admission
from edgehive.apiserver.authn import Authenticator, parse_token_file
from edgehive.apiserver.authz import Authorizer, static_bindings
from edgehive.apiserver.bootstrap import bootstrap
from edgehive.apiserver.catalog import Catalog, bucket_of
from edgehive.apiserver.codec import decode
from edgehive.apiserver.context import LOCAL, Call, Clock, User, parse_time
from edgehive.apiserver.deletes import DeleteOptions
from edgehive.apiserver.discovery import Discovery
from edgehive.apiserver.face import Face
from edgehive.apiserver.health import Health
from edgehive.apiserver.local import LocalApi
from edgehive.apiserver.metrics import Metrics
from edgehive.apiserver.nodemetrics import RESOURCES as METRICS
from edgehive.apiserver.nodemetrics import NodeMetrics
from edgehive.apiserver.nodeproxy import NodeAccess, NodeProxy
from edgehive.apiserver.openapi import OpenApi
from edgehive.apiserver.pki import PkiDir
from edgehive.apiserver.rbac import GrantGuard
from edgehive.apiserver.registry import Registry
from edgehive.apiserver.resources import Resources
from edgehive.apiserver.reviews import Reviews
from edgehive.apiserver.signer import ChildSigner
from edgehive.apiserver.subresources import Subresources
from edgehive.apiserver.tokens import Tokens
from edgehive.kit.errors import StorageError, UserError
from edgehive.kit.text import safe_label
from edgehive.kube.builtin import BUILTIN
from edgehive.kube.meta import decode_partial
from edgehive.kube.refs import CRDS, EVENTS, is_dns_subdomain
from edgehive.kube.resources import ResourceInfo
from edgehive.kube.status import ApiStatus
from edgehive.store.log import Log

log = logging.getLogger(__name__)

_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # no vowels: a random name spells nothing
_HOUSEKEEPING = 10.0


@dataclass(frozen=True, slots=True)
class ApiServerOptions:
    """What `ApiServer` is made from."""

    directory: Path
    """Holds ``state.db`` and ``pki/``."""
    host: str = "127.0.0.1"
    port: int = 6443
    """0 takes a free one."""
    names: Sequence[str] = ()
    """Further host names and addresses for the server's certificate."""
    service_network: str = "10.96.0.0/16"
    token_file: Path | None = None
    """Static tokens (``token,user,uid,"groups"``); must not be readable by others."""
    event_ttl: timedelta = timedelta(hours=1)
    stream_server: tuple[str, int] | None = None
    """cloudcore's stream server, through which nodes are reached."""


class ApiServer:
    """Store, registry and HTTPS face in one object."""

    def __init__(
        self,
        options: ApiServerOptions,
        *,
        clock: Clock = Clock(),  # noqa: B008 - frozen
        log_: Log | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.options = options
        self.pki = PkiDir(options.directory / "pki")
        self.clock = clock
        self.port = options.port
        self._rng = rng or random.SystemRandom()
        self.storage = Storage(log_ or SqliteLog(options.directory / "state.db"))
        self.catalog = Catalog((*BUILTIN, *METRICS))
        self._signer = ChildSigner(self.pki.key("sa"))
        self._tokens = Tokens(self._signer, clock.new_id)
        self._authorizer = Authorizer(storage=self.storage, bindings=static_bindings())
        guard = GrantGuard(
            allows=self._authorizer.allows, rules=self._authorizer.rules, policy=self._authorizer.policy
        )
        self._admission = Admission(
            storage=self.storage,
            clock=clock,
            token=self._token,
            service_network=options.service_network,
            guard=guard.check,
        )
        self.registry: Registry
        self._http: HttpServer | None = None
        self._ready = False

    @property
    def url(self) -> str:
        """Where clients reach it."""
        host = self.options.host
        host = "127.0.0.1" if host in {"", "0.0.0.0"} else host  # noqa: S104 - a comparison
        return f"https://[{host}]:{self.port}" if ":" in host else f"https://{host}:{self.port}"

    async def start(self) -> None:
        """Open the store, make certificates, bind, create what a cluster starts with.

        Raises:
            StorageError: the store cannot be opened.
            UserError: the token file is wrong, or the port is taken.
        """
        self.options.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._certificates()
        await self.storage.open()
        self.registry = Registry(
            storage=self.storage,
            catalog=self.catalog,
            admission=self._admission,
            clock=self.clock,
            token=self._token,
            root_ca=self.pki.ca_pem(),
        )
        self.registry.sync_crds()
        http = HttpServer(self._face().handle, name="apiserver", tls=self._tls(), gate=GateLimits())
        try:
            self.port = await http.listen(self.options.host, self.options.port)
        except OSError as exc:
            hint = "another server uses the port; choose one with --api-port"
            raise UserError(f"{self.options.host}:{self.options.port}: {exc.strerror}", hint=hint) from exc
        self._http = http
        await self._bootstrap()

    async def run(self) -> None:
        """Serve until cancelled; then drain and close the store."""
        if self._http is None:
            raise RuntimeError("start() comes first")
        self._ready = True
        try:
            await supervise(
                Service("apiserver.http", self._http.run),
                Service("apiserver.housekeeping", self._keep_house),
                Service("apiserver.memory", Trimmer().run),
            )
        finally:
            self._ready = False
            await self._signer.close()
            await self.storage.close()

    async def close(self) -> None:
        """Release everything of a server that was started but never run."""
        if self._http is not None:
            await self._http.close()
        await self._signer.close()
        await self.storage.close()

    def local_api(self) -> LocalApi:
        """The API without HTTP, for parts in the same process."""
        return LocalApi(self.registry, self._subresources())

    def kubeconfig(self, client: str = "admin") -> str:
        """A kubeconfig for ``admin`` or ``cloudcore``."""
        return self.pki.kubeconfig(client, self.url)

    # -- assembly

    def _token(self, length: int) -> str:
        return "".join(self._rng.choice(_NAME_LETTERS) for _ in range(length))

    def _subresources(self) -> Subresources:
        return Subresources(registry=self.registry, tokens=self._tokens)

    def _face(self) -> Face:
        authenticator = Authenticator(
            storage=self.storage, tokens=self._tokens, now=self.clock.now, static=self._static_tokens()
        )
        metrics = Metrics()
        proxy = self._node_proxy()
        resources = Resources(
            registry=self.registry,
            subresources=self._subresources(),
            now=self.clock.now,
            rng=self._rng,
            nodes=proxy,
            metrics=NodeMetrics(
                pages=proxy,
                reader=self.registry,
                nodes=self._builtin("nodes"),
                pods=self._builtin("pods"),
                now=self.clock.now,
            ),
        )
        checks = {
            "ping": lambda: "",
            "store": self._check_store,
            "poststarthook/bootstrap": self._check_ready,
        }
        return Face(
            authenticator=authenticator,
            authorizer=self._authorizer,
            discovery=Discovery(self.catalog),
            openapi=OpenApi(self.catalog),
            health=Health(checks, product=__version__),
            resources=resources,
            reviews=Reviews(authenticator=authenticator, authorizer=self._authorizer),
            metrics=metrics,
            metrics_text=lambda: metrics.render(self.storage, self.registry.watcher),
        )

    def _node_proxy(self) -> NodeProxy:
        where, name = self.options.stream_server, "kubelet-client"
        access = NodeAccess(*where, self.pki.cert(name), self.pki.key(name)) if where else None

        def read(resource: str, namespace: str, name: str) -> bytes:
            return self.registry.get(Call(self._builtin(resource), LOCAL, namespace, name))

        return NodeProxy(access=access, read=read)

    def _builtin(self, resource: str) -> ResourceInfo:
        info = self.catalog.find("", "v1", resource)
        assert info is not None, "a built-in resource"
        return info

    def _check_store(self) -> str:
        return self.storage.problem

    def _check_ready(self) -> str:
        return "" if self._ready else "not running"

    def _static_tokens(self) -> dict[bytes, User]:
        path = self.options.token_file
        if path is None:
            return {}
        if path.stat().st_mode & 0o077:
            raise UserError(f"{path} can be read by others", hint=f"chmod 600 {path}")
        return parse_token_file(path.read_text("utf-8"))

    async def _certificates(self) -> None:
        host = self.options.host
        first = str(ipaddress.ip_network(self.options.service_network)[1])
        anywhere = host in {"", "0.0.0.0", "::"}  # noqa: S104 - a comparison
        own = await _own_names() if anywhere else [host]
        names = [*self.options.names, first, *own]
        if not self.pki.needs(names, self.clock.now()):
            return
        command = [sys.executable, "-m", "edgehive.apiserver.pki", str(self.pki.path), *names]
        child = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
        _, errors = await child.communicate()
        if child.returncode:
            reason = safe_label(errors.decode("utf-8", "replace").strip().rpartition("\n")[2], 300)
            raise StorageError(f"{self.pki.path}: certificates could not be made: {reason}")

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.pki.cert("apiserver"), self.pki.key("apiserver"))
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(self.pki.cert("ca"))
        context.num_tickets = 0
        return context

    # -- housekeeping

    async def _keep_house(self) -> None:
        """Expire events, put back what every cluster has, finish the deletion of CRDs."""
        while True:
            await asyncio.sleep(_HOUSEKEEPING)
            with contextlib.suppress(ApiStatus, StorageError):
                await self._bootstrap()
            await self._expire_events()
            self.registry.sync_crds()
            for name, record in list(self.storage.scan(str(CRDS))):
                if b'"deletionTimestamp"' in record.value:
                    with contextlib.suppress(ApiStatus, StorageError):
                        await self.registry.clean_up_crd(name)

    async def _bootstrap(self) -> None:
        first = str(ipaddress.ip_network(self.options.service_network)[1])
        await bootstrap(self.registry, address=self.options.host, port=self.port, service_address=first)

    async def _expire_events(self) -> None:
        info = self.catalog.find(EVENTS.group, EVENTS.version, EVENTS.resource)
        if info is None:
            return
        oldest = self.clock.now() - self.options.event_ttl
        old = [key for key, record in self.storage.scan(bucket_of(info)) if _is_older(record.value, oldest)]
        for key in old[:1000]:
            namespace, _, name = key.partition("/")
            with contextlib.suppress(ApiStatus, StorageError):
                await self.registry.delete(Call(info, LOCAL, namespace, name), DeleteOptions())


def _is_older(raw: bytes, limit: datetime) -> bool:
    """Tell whether an event was last seen before `limit`."""
    made = parse_time(decode_partial(raw).metadata.creation_timestamp)
    if made is None or made >= limit:
        return False
    last = parse_time(decode(raw).get("lastTimestamp"))
    return last is None or last < limit


async def _own_names() -> list[str]:
    """This machine's name and addresses, as far as it knows them."""
    name = socket.gethostname().lower()
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        found = []
    addresses = sorted({str(entry[4][0]).partition("%")[0] for entry in found})
    return [*([name] if is_dns_subdomain(name) else []), *addresses]
