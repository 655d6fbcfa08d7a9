"""The CRI runtime against a scripted server: events, caching, errors; needs no root."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc as google
import pytest

from edgehive.aio import cri_messages as cri
from edgehive.aio.protobuf import Method, decode, encode
from edgehive.edge.cri import CriRuntime
from edgehive.edge.cri_spec import sandbox_config
from edgehive.edge.runtime import ContainerSpec, RuntimeFailure, SandboxSpec, State
from edgehive.kit.errors import Unreachable

METHODS = {m.path: m for m in vars(cri).values() if isinstance(m, Method)}
MILLI = 1_000_000


class FakeCri(google.GenericRpcHandler):
    """Answers by method name; keeps requests and counts calls."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
        self.calls: Counter[str] = Counter()
        self.requests: dict[str, dict[str, Any]] = {}
        self.errors: dict[str, tuple[google.StatusCode, str]] = {}
        self.more = threading.Event()

    def service(self, call: Any) -> Any:
        name = call.method.rpartition("/")[2]
        if name == "GetContainerEvents":
            return google.unary_stream_rpc_method_handler(self._events)
        return google.unary_unary_rpc_method_handler(
            lambda request, context: self._answer(call.method, name, request, context)
        )

    def _answer(self, path: str, name: str, request: bytes, context: Any) -> bytes:
        self.calls[name] += 1
        if name in self.errors:
            context.abort(*self.errors[name])
        self.requests[name] = decode(METHODS[path].request, request)
        if name not in self.answers:
            return b""
        return encode(METHODS[path].response, self.answers[name](self.requests[name]))

    def _events(self, request: bytes, context: Any) -> Iterator[bytes]:
        for uid in ("one", "two"):
            status = {"id": "s", "metadata": {"uid": uid}}
            yield encode(cri.EVENT, {"container_id": "c", "pod_sandbox_status": status})
        self.more.wait(5)
        context.abort(google.StatusCode.INTERNAL, "the event loop broke")


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeCri]:
    made = FakeCri()
    server = google.server(ThreadPoolExecutor(4), handlers=[made])
    server.add_insecure_port(f"unix:{tmp_path / 's'}")
    server.start()
    yield made
    made.more.set()
    await asyncio.to_thread(server.stop(None).wait)


@pytest.fixture
async def runtime(fake: FakeCri, tmp_path: Path) -> AsyncIterator[CriRuntime]:
    made = CriRuntime(endpoint=f"unix://{tmp_path / 's'}", node_ip="10.0.0.1")
    yield made
    await made.close()


async def test_events_name_their_pods_and_a_broken_stream_is_tried_again_later(
    fake: FakeCri, runtime: CriRuntime
) -> None:
    seen = []

    async def follow() -> None:
        async with aclosing(runtime.events()) as events:
            async for uid in events:
                seen.append(uid)
                if len(seen) == 2:
                    fake.more.set()

    with pytest.raises(Unreachable, match="event loop broke"):
        await follow()
    assert seen == ["one", "two"]


async def test_a_status_is_asked_once_for_each_state(fake: FakeCri, runtime: CriRuntime) -> None:
    items = [
        {"id": f"c{n}", "pod_sandbox_id": "s", "state": 1, "labels": {"io.kubernetes.pod.uid": "u"}}
        for n in range(3)
    ]

    def status(request: dict[str, Any]) -> dict[str, Any]:
        item = next(i for i in items if i["id"] == request["container_id"])
        ended = (
            {"finished_at": 5_500 * MILLI, "exit_code": -1}
            if item["state"] == 2
            else {"finished_at": -62_135}
        )
        base = {
            "id": item["id"],
            "state": item["state"],
            "created_at": 1_500 * MILLI,
            "metadata": {"attempt": 3},
        }
        return {"status": base | ended}

    fake.answers["ListContainers"] = lambda request: {"containers": items}
    fake.answers["ContainerStatus"] = status
    for _ in range(3):
        found = await runtime.list_containers()
        items.reverse()
    assert fake.calls["ContainerStatus"] == 3
    assert [(c.sandbox_id, c.attempt, c.created_at, c.finished_at) for c in found] == [("s", 3, 1.5, 0.0)] * 3
    items[0] = items[0] | {"state": 2}
    ended = next(c for c in await runtime.list_containers() if c.state is State.EXITED)
    assert (ended.exit_code, ended.finished_at) == (-1, 5.5)
    assert fake.calls["ContainerStatus"] == 4
    fake.answers["ListContainers"] = lambda request: {"containers": [{"id": "gone", "state": 1}]}
    fake.errors["ContainerStatus"] = (google.StatusCode.NOT_FOUND, "no such container")
    assert await runtime.list_containers() == [], "it went between the two calls"


async def test_sandboxes_have_their_address_and_their_filter(fake: FakeCri, runtime: CriRuntime) -> None:
    state = {"state": 0}
    fake.answers["ListPodSandbox"] = lambda request: {"items": [{"id": "s1"} | state, {"id": "s2"}]}
    networks = {
        "s1": {"network": {"ip": "10.1.0.7"}},
        "s2": {"linux": {"namespaces": {"options": {"network": 2}}}},
    }
    fake.answers["PodSandboxStatus"] = lambda request: {
        "status": {"state": 0, "metadata": {"attempt": 2}} | networks[request["pod_sandbox_id"]]
    }
    assert [(s.ip, s.ready, s.attempt) for s in await runtime.list_sandboxes("u")] == [
        ("10.1.0.7", True, 2),
        ("10.0.0.1", True, 2),
    ]
    assert fake.requests["ListPodSandbox"]["filter"]["label_selector"] == {"io.kubernetes.pod.uid": "u"}
    state["state"] = 1
    assert [s.ready for s in await runtime.list_sandboxes()] == [False, True]
    assert fake.calls["PodSandboxStatus"] == 2


async def test_errors_become_ours(fake: FakeCri, runtime: CriRuntime) -> None:
    fake.errors = {
        "StopContainer": (google.StatusCode.NOT_FOUND, "no"),
        "StartContainer": (google.StatusCode.UNKNOWN, "runc: exec format error"),
        "Version": (google.StatusCode.UNAVAILABLE, "starting"),
    }
    await runtime.stop_container("c", 3)
    with pytest.raises(RuntimeFailure, match="exec format error") as caught:
        await runtime.start_container("c")
    assert caught.value.reason == "StartContainerFailed"
    with pytest.raises(Unreachable):
        await runtime.version()


async def test_requests_say_what_was_asked(fake: FakeCri, runtime: CriRuntime) -> None:
    fake.answers["CreateContainer"] = lambda request: {"container_id": "c"}
    fake.answers["PullImage"] = lambda request: {"image_ref": "sha256:1"}
    sandbox = SandboxSpec("p", "ns", "u", 1, "host", "/logs", {"a": "b"}, security={"runAsGroup": 5})
    spec = ContainerSpec(
        "c",
        2,
        "sha256:0",
        ["run"],
        ["x"],
        "/w",
        [("K", "v\u00e9")],
        [],
        "c/2.log",
        {},
        security={"privileged": True},
    )
    assert await runtime.create_container("s", spec, sandbox) == "c"
    request = fake.requests["CreateContainer"]
    assert request["config"]["envs"] == [{"key": "K", "value": "v\u00e9"}]
    assert request["config"]["metadata"] == {"name": "c", "attempt": 2}
    security = request["config"]["linux"]["security_context"]
    assert security["privileged"] is True
    assert "masked_paths" not in security
    assert request["sandbox_config"]["metadata"]["uid"] == "u"
    assert "run_as_group" not in sandbox_config(sandbox)["linux"]["security_context"], "a group needs a user"
    assert await runtime.pull_image("busybox", {"username": "u", "password": "p"}) == "sha256:1"
    assert fake.requests["PullImage"]["auth"] == {"username": "u", "password": "p"}
    await runtime.stop_container("c", 7.9)
    assert fake.requests["StopContainer"] == {"container_id": "c", "timeout": 7}
