"""MetaServer, assembled; what authentication needs is imported only where it is on."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgehive.edge.config import EdgeCoreConfig
from edgehive.edge.hub import EdgeHub
from edgehive.edge.metamanager import MetaManager
from edgehive.edge.metaserver import MetaServer
from edgehive.edge.metaserver_listen import check_config, reachable
from edgehive.edge.runtime import Runtime
from edgehive.edge.store import EdgeStore
from edgehive.wire.message import Stamp
from edgehive.wire.resource import CONFIGMAP

ROOT_CA_CONFIGMAP = "kube-root-ca.crt"

if TYPE_CHECKING:
    from edgehive.edge.kubelet_api import KubeletApi
    from edgehive.edge.pods_manager import PodManager


def build_metaserver(
    config: EdgeCoreConfig,
    *,
    store: EdgeStore,
    hub: EdgeHub,
    meta: MetaManager,
    runtime: Runtime | None,
    stamp: Stamp,
    rng: Callable[[], float],
    gauges: dict[str, Callable[[], float]],
) -> tuple[MetaServer, tuple[str, str]]:
    """Return the server, and what pods are told of it: host and port, empty where they cannot use it.

    Raises:
        UserError: the configuration would serve others without asking who they are, or a key file is missing.
    """
    settings = config.modules.meta_manager.meta_server
    node = config.modules.edged.hostname_override
    listening = check_config(config)
    gate = certificate = None
    if listening.secure:
        from edgehive.edge.metaserver_auth import AuthSettings, Gate
        from edgehive.edge.metaserver_certificate import ServingCertificate

        listening = reachable(listening, make_interface=settings.dummy_interface)
        verify = None
        if settings.service_account_key_files:
            from edgehive.edge.metaserver_keys import KeyFiles

            verify = KeyFiles(settings.service_account_key_files).verify
        auth = AuthSettings(node, settings.service_account_issuers, settings.api_audiences)
        gate = Gate(settings=auth, store=store, verify=verify, wall=time.time)
        refused = gate.refused
        gauges["edgehive_metaserver_unauthenticated_total"] = lambda: float(refused["unauthenticated"])
        gauges["edgehive_metaserver_forbidden_total"] = lambda: float(refused["forbidden"])
        certificate = ServingCertificate(
            directory=Path(settings.certificate_directory),
            node=node,
            addresses=[host for host, _ in listening.addresses],
            client_ca_files=[Path(config.modules.edge_hub.tls_ca_file)],
            cloud=meta,
            link=hub,
            stamp=stamp,
            wall=time.time,
            rng=rng,
            known_ca=lambda: _published_ca(store),
        )
    queue = None
    if settings.offline_writes:
        from edgehive.edge.metaserver_queue import WriteQueue

        def queue(owner: MetaServer) -> WriteQueue:
            return WriteQueue(
                store=store,
                resources=settings.offline_writes,
                ask=owner.follower.ask,
                delivered=lambda gvr, raw: owner.replica.put(gvr, [raw]),
                report=meta.report_event,
                wall=time.time,
            )

    server = MetaServer(
        listening=listening,
        node=node,
        store=store,
        link=hub,
        stamp=stamp,
        runtime=runtime,
        pod=meta.pod,
        gate=gate,
        certificate=certificate,
        queue=queue,
        device=meta.set_device if config.modules.device_twin.enable else None,
    )
    meta.attach(server)
    return server, listening.for_pods


def _published_ca(store: EdgeStore) -> bytes:
    """The cluster's CA in the ConfigMap that every namespace has, if a pod has brought one here."""
    for row in store.rows(CONFIGMAP):
        if row.key.endswith(f"/{ROOT_CA_CONFIGMAP}"):
            data = msgspec.json.decode(row.value, type=_ConfigMap).data or {}
            return data.get("ca.crt", "").encode()
    return b""


class _ConfigMap(msgspec.Struct):
    data: dict[str, str] | None = None


def serve_pods(server: MetaServer, kubelet: "Callable[[], KubeletApi]", pods: "PodManager") -> None:
    """Let MetaServer reach the pods of this node."""
    from edgehive.edge.metaserver_extend import LocalPods

    server.local_pods = LocalPods(kubelet, pods.release_held)
