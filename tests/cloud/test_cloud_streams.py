"""The stream server: whose tunnel a request is for, and who may ask."""

import json
import socket
from typing import Any

import pytest

from edgehive.aio.http import Request
from edgehive.aio.rawhttp import SocketStream
from edgehive.cloud.ownership import instance_of
from edgehive.cloud.stream_server import StreamServer
from edgehive.kit.errors import Unreachable
from edgehive.kube.reflector import CachedObject, decode_cached


class Asked:
    """Notes whose tunnel is looked for; there is none."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.server = StreamServer(find=self.find, new_id=lambda: 1, node_of=self.node_of, enter=self.enter)

    async def find(self, key: str) -> None:
        self.keys.append(key)

    async def enter(self, instance: str) -> SocketStream:
        raise AssertionError("nobody wants a proxy here")

    @staticmethod
    def node_of(namespace: str, name: str) -> str | None:
        return {"default/web": "edge-1"}.get(f"{namespace}/{name}")


def request(path: str, subject: Any = ("kube-apiserver", ()), **headers: str) -> Request:
    return Request(
        "GET",
        path,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        peer_subject=subject,
    )


@pytest.mark.parametrize(
    ("path", "headers", "key"),
    [
        ("/containerLogs/default/web/c", {"host": "192.0.2.7:10350"}, "edge-1"),
        ("/stats/summary", {"host": "192.0.2.7:10350"}, "192.0.2.7"),
        ("/stats/summary", {"host": "edge-2"}, "edge-2"),
        ("/stats/summary", {"host": "[2001:db8::7]:10350"}, "2001:db8::7"),
        ("/stats/summary", {"host": "[2001:db8::7]"}, "2001:db8::7"),
        (
            "/metrics/cadvisor",
            {
                "host": "192.0.2.7:10350",
                "x_forwarded_uri": "/api/v1/nodes/edge-3:10250/proxy/metrics/cadvisor",
            },
            "edge-3",
        ),
    ],
)
async def test_the_node_is_found_by_pod_name_or_address_of_either_family(
    path: str, headers: dict[str, str], key: str
) -> None:
    asked = Asked()
    answer = await asked.server.handle(request(path, **headers))
    assert asked.keys == [key]
    assert answer.status == 503


@pytest.mark.parametrize("subject", [None, ("edge-1", ("system:nodes",)), ("admin", ("developers",))])
async def test_only_an_api_server_or_an_administrator_may_ask(subject: Any) -> None:
    asked = Asked()
    assert (await asked.server.handle(request("/stats/summary", subject, host="edge-1"))).status == 403
    assert asked.keys == []


async def test_other_paths_are_not_there() -> None:
    assert (await Asked().server.handle(request("/run/default/web/c", host="edge-1"))).status == 404


def known(name: str, instance: str, *addresses: str) -> CachedObject:
    body = {
        "metadata": {"name": name, "annotations": {"cloudcore": instance} if instance else {}},
        "status": {"addresses": [{"type": "InternalIP", "address": a} for a in addresses]},
    }
    return decode_cached(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("host", "instance"),
    [
        ("edge-1", "10.0.0.2"),
        ("192.168.1.7", "10.0.0.2"),
        ("edge-2", ""),
        ("192.168.1.8", ""),
        ("edge-3", ""),
        ("edge-4", ""),
        ("somewhere.else", ""),
    ],
)
def test_a_node_that_is_connected_to_another_instance_is_found_there(host: str, instance: str) -> None:
    nodes = [
        known("edge-1", "10.0.0.2", "192.168.1.7"),
        known("edge-2", "10.0.0.1", "192.168.1.8"),
        known("edge-3", ""),
        known("edge-4", "not-an-address; reboot"),
    ]
    assert instance_of(nodes, host, "10.0.0.1") == instance


async def test_an_api_server_is_led_to_the_instance_that_has_the_tunnel() -> None:
    async def nowhere(key: str) -> None:
        return None

    entered: list[str] = []

    async def enter(instance: str) -> SocketStream:
        entered.append(instance)
        raise Unreachable("tried")

    server = StreamServer(
        find=nowhere,
        new_id=lambda: 1,
        node_of=lambda *_: None,
        enter=enter,
        elsewhere={"edge-1": "10.0.0.2", "192.168.1.7": "10.0.0.2"}.get,  # type: ignore[arg-type]
    )

    async def connect(target: str) -> int:
        ask = Request("CONNECT", target, raw_path=target, peer_subject=("kube-apiserver", ()))
        return (await server.handle(ask)).status

    assert await connect("edge-1:10350") == 502
    assert await connect("192.168.1.7:10350") == 502
    assert entered == ["10.0.0.2", "10.0.0.2"]
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        assert await connect(f"127.0.0.1:{nobody.getsockname()[1]}") == 502, "no node at all"
    assert await connect("192.168.1.7:notaport") == 400
    assert len(entered) == 2
