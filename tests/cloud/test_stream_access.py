"""Tokens that open statistics of nodes: whom the API server is asked about, and what is believed for how long."""

import json
from typing import Any

import pytest

from edgehive.aio.http import Request
from edgehive.aio.rawhttp import SocketStream
from edgehive.cloud.stream_access import StreamAccess
from edgehive.cloud.stream_server import StreamServer
from edgehive.kit.errors import Unreachable


class Reviewer:
    """Answers reviews; knows one token and one thing it may do."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.allowed = {("reader", "metrics", "edge-1")}
        self.failure: Exception | None = None
        self.nonsense = b""

    async def create(self, gvr: Any, raw: bytes, **more: Any) -> bytes:
        if self.failure is not None:
            raise self.failure
        if self.nonsense:
            return self.nonsense
        body = json.loads(raw)
        self.asked.append(body)
        spec = body["spec"]
        if body["kind"] == "TokenReview":
            good = spec["token"] == "good"
            user = {"username": "reader", "groups": ["g"], "extra": {"k": ["v"]}}
            return json.dumps(
                {"status": {"authenticated": good, **({"user": user} if good else {})}}
            ).encode()
        what = spec["resourceAttributes"]
        return json.dumps(
            {"status": {"allowed": (spec["user"], what["subresource"], what["name"]) in self.allowed}}
        ).encode()


class Bench:
    def __init__(self) -> None:
        self.now = 0.0
        self.api = Reviewer()
        self.access = StreamAccess(api=self.api, now=lambda: self.now)  # type: ignore[arg-type]

    async def ask(
        self, token: str = "Bearer good", area: str = "metrics", node: str = "edge-1", method: str = "GET"
    ) -> int:
        headers = {"authorization": token} if token else {}
        request = Request(method, f"/{area}/x", headers=headers)
        return (await self.access.judge(request, area, node))[0]


async def test_a_known_token_opens_what_its_user_may_see() -> None:
    bench = Bench()
    assert await bench.ask() == 200
    assert [one["kind"] for one in bench.api.asked] == ["TokenReview", "SubjectAccessReview"]
    spec = bench.api.asked[1]["spec"]
    assert (spec["groups"], spec["extra"]) == (["g"], {"k": ["v"]})
    assert spec["resourceAttributes"]["verb"] == "get"
    assert await bench.ask(node="edge-2") == 403
    assert await bench.ask(area="stats") == 403
    for token in ("", "Bearer ", "Bearer bad", "Basic good"):
        assert await bench.ask(token) == 401


@pytest.mark.parametrize(
    ("area", "method"), [("pods", "GET"), ("logs", "GET"), ("exec", "POST"), ("metrics", "POST")]
)
async def test_tokens_open_nothing_else_and_nobody_is_asked(area: str, method: str) -> None:
    bench = Bench()
    assert await bench.ask(area=area, method=method) == 403
    assert bench.api.asked == []


async def test_a_verdict_is_believed_for_a_minute() -> None:
    bench = Bench()
    for _ in range(3):
        assert await bench.ask() == 200
    assert len(bench.api.asked) == 2
    bench.api.allowed = set()
    bench.now = 59
    assert await bench.ask() == 200
    bench.now = 61
    assert await bench.ask() == 403


@pytest.mark.parametrize(
    "nonsense", [b"", b"[]", b"[" * 100_000, b'{"status": 3}', b'{"status": {"authenticated": true}}']
)
async def test_without_an_answer_nobody_comes_in(nonsense: bytes) -> None:
    bench = Bench()
    bench.api.nonsense = nonsense
    bench.api.failure = None if nonsense else Unreachable("away")
    assert await bench.ask() in (401, 503)
    bench.api.nonsense, bench.api.failure = b"", None
    bench.now = 61
    assert await bench.ask() == 200


async def test_the_stream_server_asks_for_an_identity_first() -> None:
    async def nobody(key: str) -> None:
        return None

    async def enter(instance: str) -> SocketStream:
        raise AssertionError("nobody wants a proxy here")

    bench = Bench()
    server = StreamServer(
        find=nobody, new_id=lambda: 1, node_of=lambda *_: "edge-1", access=bench.access, enter=enter
    )

    async def get(path: str, token: str) -> int:
        headers = {"host": "edge-1:10003"} | ({"authorization": token} if token else {})
        return (await server.handle(Request("GET", path, headers=headers))).status

    assert await get("/metrics/resource", "") == 403
    assert await get("/metrics/resource", "Bearer bad") == 401
    assert await get("/metrics/resource", "Bearer good") == 503, "it may, but the node has no tunnel"
    assert await get("/exec/default/pod/c", "Bearer good") == 403
    assert await get("/nothing", "") == 403
    # An original edge takes the way up, and so there would be no end to what a token opens.
    for path in ("/metrics/../containerLogs/default/pod/c", "/metrics/./../pods", "/stats//../pods"):
        assert await get(path, "Bearer good") == 403
