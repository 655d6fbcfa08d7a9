"""The stream server: whose tunnel a request is for, and who may ask."""

from typing import Any

import pytest

from edgehive.aio.http import Request
from edgehive.aio.rawhttp import SocketStream
from edgehive.cloud.stream_server import StreamServer


class Asked:
    """Notes whose tunnel is looked for; there is none."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.server = StreamServer(find=self.find, new_id=lambda: 1, node_of=self.node_of, enter=self.enter)

    async def find(self, key: str) -> None:
        self.keys.append(key)

    async def enter(self) -> SocketStream:
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
