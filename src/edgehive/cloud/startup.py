"""Steps of cloudcore's start: the kubeconfig, ports, and an API server that is not there yet."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeVar

from edgehive.aio.gate import GateLimits
from edgehive.aio.http import Handler, HttpServer
from edgehive.aio.kubeauth import load_in_cluster, load_kubeconfig
from edgehive.aio.kubeclient import KubeClient
from edgehive.aio.supervise import Service
from edgehive.cloud.config import CloudCoreConfig
from edgehive.cloud.pki import CloudKeys
from edgehive.cloud.tls import https_context
from edgehive.kit.backoff import Backoff
from edgehive.kit.errors import Unreachable, UserError
from edgehive.kube.cloudcore_rights import Needs
from edgehive.kube.kubeconfig import KubeConfig
from edgehive.kube.status import ApiStatus

log = logging.getLogger(__name__)

AUTHORIZATION: Final = "requireAuthorization"
"""The feature gate for authorization at the edge, as KubeEdge names it."""

_T = TypeVar("_T")

_REFUSED: Final = (401, 403)
_REFUSALS: Final = 4  # some four seconds


def needs_of(config: CloudCoreConfig) -> Needs:
    """Which parts of cloudcore a configuration has on, for the rights that its account needs.

    The resource definitions are not among them: whoever gives the rights can as well create those.
    """
    modules = config.modules
    authorization = modules.cloud_hub.authorization
    return Needs(
        devices=modules.device_controller.enable,
        streams=modules.cloud_stream.enable,
        node_ports=modules.cloud_stream.enable and modules.iptables_manager.enable,
        dynamic=modules.dynamic_controller.enable,
        policy=config.feature_gates.get(AUTHORIZATION, False),
        reviewed=authorization.enable and authorization.debug,
        enforced=authorization.enforced,
    )


def kube_config(config: CloudCoreConfig) -> KubeConfig:
    """How to reach the API server that the configuration names."""
    wanted = config.kube_api_config
    if wanted.kube_config:
        found = load_kubeconfig(wanted.kube_config)
    elif wanted.master:
        return KubeConfig(server=wanted.master.rstrip("/"))
    else:
        found = load_in_cluster()
    return replace(found, server=wanted.master.rstrip("/")) if wanted.master else found


def kube_client(config: CloudCoreConfig, kube: KubeConfig) -> KubeClient:
    """A client with the rates that the configuration has, whatever the node limit."""
    settings = config.kube_api_config
    return KubeClient(kube, user_agent="cloudcore", qps=settings.qps, burst=settings.burst)


async def listen_http(
    name: str, handler: Handler, bind: tuple[str, int], keys: CloudKeys | None = None, *, shared: bool = False
) -> tuple[int, Service]:
    """Open a port, with TLS if there are `keys`; returns the port and what serves it.

    Raises:
        UserError: it is taken.
    """
    host, port = bind
    tls = https_context(keys.server, keys.ca.cert_pem) if keys is not None else None
    server = HttpServer(handler, name=name, tls=tls, gate=GateLimits())
    try:
        bound = await server.listen(host, port, shared=shared)
    except OSError as exc:
        raise port_error(name, host, port, exc) from exc
    return bound, Service(name, server.run)


def port_error(name: str, host: str, port: int, exc: OSError) -> UserError:
    """Why a port cannot be opened, for the person who set it."""
    return UserError(
        f"the {name} port {host}:{port} cannot be opened: {exc.strerror or exc}",
        hint="another cloudcore may be running; ports are set in the configuration file",
    )


async def persist(step: Callable[[], Awaitable[_T]]) -> _T:
    """Carry out a step of the start, waiting for an API server that is not there yet.

    One that has just started refuses until it has read its roles: a few refusals are waited out as well.

    Raises:
        UserError: it goes on to refuse.
    """
    backoff = Backoff(0.5, 15.0, jitter=0.2, rng=random.random)
    refusals = 0
    while True:
        try:
            return await step()
        except Unreachable as exc:
            problem: Exception = exc
        except ApiStatus as exc:
            refusals += exc.code in _REFUSED
            passing = exc.retryable or exc.code == 409 or (exc.code in _REFUSED and refusals < _REFUSALS)
            if not passing:
                raise UserError(
                    f"the API server refuses what cloudcore needs: {exc}",
                    hint="`edgehive manifests` prints the rights that cloudcore's account needs",
                ) from exc
            problem = exc
        delay = backoff.next()
        log.warning("%s; again in %.1f s", problem, delay)
        await asyncio.sleep(delay)
