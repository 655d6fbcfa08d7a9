"""Certificates that end: renewed at both ends without losing a message, and refused with a reason when they have."""

import asyncio
import datetime
import json
import random
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.exceptions import InvalidStatus

from edgehive.aio import pki
from edgehive.edge.config import EdgeCoreConfig
from edgehive.edge.config_load import parse_config
from edgehive.edge.enroll import Enroller
from edgehive.edge.metaclient import Ok
from edgehive.kube.refs import NODES, PODS, SECRETS
from tests.support.edge_hub_lab import Edge, until

DAY = 86_400


def identity(lab: Any, *, left: float) -> pki.KeyPair:
    """A certificate of one day's life of which `left` seconds remain."""
    begun = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=DAY - left)
    return pki.issue(
        lab.ca(),
        common_name="system:node:edge-1",
        organizations=("system:nodes",),
        now=begun,
        client=True,
        days=1,
    )


def edge_config(lab: Any, folder: Path, pair: pki.KeyPair) -> EdgeCoreConfig:
    data = {
        "database": {"dataSource": str(folder / "edge.db")},
        "modules": {
            "edgeHub": {
                "httpServer": f"https://127.0.0.1:{lab.ports.https}",
                "tlsCaFile": str(folder / "ca.crt"),
                "tlsCertFile": str(folder / "edge.crt"),
                "tlsPrivateKeyFile": str(folder / "edge.key"),
                "websocket": {"server": f"127.0.0.1:{lab.ports.websocket}"},
            },
            "edged": {"hostnameOverride": "edge-1"},
        },
    }
    folder.mkdir()
    (folder / "ca.crt").write_bytes(lab.ca().cert_pem)
    (folder / "edge.crt").write_bytes(pair.cert_pem)
    (folder / "edge.key").write_bytes(pair.key_pem)
    return parse_config(json.dumps(data)).config


def put_pod(api: Any, name: str, mark: int) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default", "annotations": {"mark": str(mark)}}
    found = api.find(PODS, "default", name)
    return api.put(
        PODS, {"metadata": meta, "spec": {"nodeName": "edge-1"}, "status": (found or {}).get("status", {})}
    )


async def traffic(api: Any, edge: Edge, reported: dict[str, int], stop: asyncio.Event) -> None:
    """Changes down and reports up, without a pause, until told to stop."""
    mark = 0
    while not stop.is_set():
        mark += 1
        name = f"p{mark % 5}"
        made = put_pod(api, name, mark)
        patch = json.dumps({"metadata": {"uid": made["metadata"]["uid"]}, "status": {"mark": mark}})
        if isinstance(
            await edge.meta.patch_pod_status("default", name, made["metadata"]["uid"], patch.encode()), Ok
        ):
            reported[name] = mark
        await asyncio.sleep(0.002)


def at_the_edge(edge: Edge) -> dict[str, str]:
    return {
        pod["metadata"]["name"]: pod["metadata"]["annotations"]["mark"]
        for pod in map(json.loads, edge.meta.pods())
    }


def in_the_cloud(api: Any) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["metadata"]["annotations"]["mark"] for pod in api.all(PODS)}


async def test_both_ends_renew_and_nothing_is_lost(lab: Any, api: Any, tmp_path: Path) -> None:
    api.put(NODES, {"metadata": {"name": "edge-1"}})
    await lab.start()
    config = edge_config(lab, tmp_path / "edge", identity(lab, left=30))
    edge = Edge(config)
    enroller = Enroller(node="edge-1", config=config.modules.edge_hub, now=time.time, rng=random.random)
    edge.hub._tls = lambda: _current(enroller)
    first = enroller.current()
    assert first is not None
    renewed, stop = asyncio.Event(), asyncio.Event()
    reported: dict[str, int] = {}

    def installed() -> None:
        edge.hub.reconnect("a new certificate")
        renewed.set()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(edge.hive.run()), group.create_task(edge.hub.run())]
        await edge.linked()
        busy = group.create_task(traffic(api, edge, reported, stop))
        await until(lambda: len(reported) == 5)
        tasks.append(group.create_task(enroller.run_rotation(first, installed)))  # it is due by now
        async with asyncio.timeout(10):
            await renewed.wait()
        await edge.linked(False)
        await edge.linked()
        current = enroller.current()
        assert current is not None
        assert current.facts.not_after > time.time() + 300 * DAY
        assert lab.core.parts.enrollment.issued == 1
        seen = dict(reported)
        await until(lambda: all(reported[name] > mark for name, mark in seen.items()))
        # Now the cloud: its certificate is gone, it starts with a new one of the same CA, on the same port.
        before = api.find(SECRETS, "kubeedge", "cloudcoresecret")
        ports = lab.ports
        await lab.stop()
        await edge.linked(False)
        api.drop(SECRETS, "kubeedge", "cloudcoresecret")
        await lab.start(_on(lab, ports))
        assert api.find(SECRETS, "kubeedge", "cloudcoresecret")["data"] != before["data"]
        await edge.linked()
        seen = dict(reported)
        await until(lambda: all(reported[name] > mark for name, mark in seen.items()))
        stop.set()
        await busy
        await until(lambda: at_the_edge(edge) == in_the_cloud(api))
        await until(lambda: len(edge.outbox) == 0)
        for pod in api.all(PODS):
            assert pod["status"]["mark"] >= reported[pod["metadata"]["name"]]
        for task in tasks:
            task.cancel()
    edge.store.close()


def _current(enroller: Enroller) -> Any:
    found = enroller.current()
    assert found is not None
    return found.client_context()


def _on(lab: Any, ports: Any) -> Any:
    config = lab.make_config()
    hub = config.modules.cloud_hub
    hub = msgspec.structs.replace(
        hub,
        websocket=msgspec.structs.replace(hub.websocket, port=ports.websocket),
        https=msgspec.structs.replace(hub.https, port=ports.https),
    )
    return msgspec.structs.replace(config, modules=msgspec.structs.replace(config.modules, cloud_hub=hub))


async def test_an_expired_certificate_is_refused_with_the_reason(lab: Any, tmp_path: Path) -> None:
    await lab.start()
    pair = identity(lab, left=-60)
    path = tmp_path / "expired.pem"
    path.write_bytes(pair.cert_pem + pair.key_pem)
    tls = lab.client_tls()
    tls.load_cert_chain(path)
    with pytest.raises(InvalidStatus) as refused:
        await lab.dial("edge-1", tls=tls)
    assert refused.value.response.status_code == 401
    assert b"the client certificate has expired" in refused.value.response.body
    assert lab.core.parts.nodes.connected_nodes == 0
    early = identity(lab, left=DAY + 3_600)
    path.write_bytes(early.cert_pem + early.key_pem)
    tls = lab.client_tls()
    tls.load_cert_chain(path)
    with pytest.raises(InvalidStatus) as refused:
        await lab.dial("edge-1", tls=tls)
    assert b"is not valid before" in refused.value.response.body


async def test_an_edge_with_an_expired_certificate_says_why_it_is_not_let_in(
    lab: Any, tmp_path: Path
) -> None:
    await lab.start()
    edge = Edge(edge_config(lab, tmp_path / "edge", identity(lab, left=-60)))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(edge.hub.run())
        await until(lambda: "the client certificate has expired" in edge.hub.last_problem)
        task.cancel()
    edge.store.close()
