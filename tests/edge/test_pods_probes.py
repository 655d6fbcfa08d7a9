"""Probes and hooks: thresholds, the handlers against real servers, and a pod whose readiness follows them."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc as google
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.edge.pods_spec import Container
from edgehive.edge.probes import ProbeKind, ProbeState, probes_of
from edgehive.edge.probes_net import HandlerFailed, run_handler
from edgehive.edge.runtime import ExecResult, RuntimeFailure
from tests.edge.test_pods_core import World
from tests.support.edged_host import EdgedProcess
from tests.support.fakemeta import container, make_pod


def parse(**more: Any) -> Container:
    return msgspec.convert(container("c", "x", **more), Container)


def test_probes_have_their_defaults() -> None:
    one = parse(
        readinessProbe={"httpGet": {"port": 80}},
        livenessProbe={"exec": {"command": ["x"]}, "periodSeconds": 0, "failureThreshold": "no"},
        startupProbe={},
    )
    probes = probes_of(one)
    assert set(probes) == {ProbeKind.READINESS, ProbeKind.LIVENESS}
    ready, alive = probes[ProbeKind.READINESS], probes[ProbeKind.LIVENESS]
    assert (ready.initial_delay, ready.timeout, ready.period) == (0, 1, 10)
    assert (ready.success_threshold, ready.failure_threshold) == (1, 3)
    assert (alive.period, alive.failure_threshold) == (1, 3)


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 4), st.integers(1, 4))
def test_an_outcome_changes_exactly_at_the_thresholds(answers: list[bool], up: int, down: int) -> None:
    raw = {"exec": {"command": ["x"]}, "successThreshold": up, "failureThreshold": down}
    state = ProbeState(probes_of(parse(readinessProbe=raw))[ProbeKind.READINESS], outcome=False)
    expected = False
    for number, answer in enumerate(answers):
        before = state.outcome
        changed = state.receive(answer)
        tail = answers[: number + 1][-(up if answer else down) :]
        if len(tail) == (up if answer else down) and all(one is answer for one in tail):
            expected = answer
        assert state.outcome is expected
        assert changed is (before is not expected)


class _Exec:
    async def exec_sync(self, container_id: str, command: list[str], timeout: float) -> ExecResult:
        if command == ["slow"]:
            await asyncio.sleep(10)
        if command == ["gone"]:
            raise RuntimeFailure("ExecFailed", "not running")
        return ExecResult(0 if command == ["ok"] else 3, b"", b"because")


async def probe(handler: dict[str, Any], timeout: float = 2.0, **more: Any) -> None:
    await run_handler(
        handler,
        runtime=_Exec(),  # type: ignore[arg-type]
        container=parse(**more),
        container_id="id",
        pod_ip="127.0.0.1",
        timeout=timeout,
    )


async def test_commands() -> None:
    await probe({"exec": {"command": ["ok"]}})
    for command, text in (("no", "because"), ("gone", "not running")):
        with pytest.raises(HandlerFailed, match=text):
            await probe({"exec": {"command": [command]}})
    with pytest.raises(HandlerFailed, match="timed out"):
        await probe({"exec": {"command": ["slow"]}}, timeout=0.05)


@asynccontextmanager
async def server(answer: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    made = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with made:
        yield made.sockets[0].getsockname()[1], seen


async def test_http() -> None:
    async with server(b"HTTP/1.1 302 Found\r\n\r\n") as (port, seen):
        ports = [{"name": "web", "containerPort": port}]
        headers = [{"name": "X-Test", "value": "1"}]
        await probe({"httpGet": {"port": "web", "path": "/ok?a=b", "httpHeaders": headers}}, ports=ports)
        await probe({"httpGet": {"port": port}})
        assert seen[0].startswith(b"GET /ok?a=b HTTP/1.1\r\n")
        assert b"\r\nX-Test: 1\r\n" in seen[0]
        await probe({"tcpSocket": {"port": port}})
        with pytest.raises(HandlerFailed, match="line break"):
            await probe({"httpGet": {"port": port, "path": "/a\r\nX: y"}})
    with pytest.raises(HandlerFailed):
        await probe({"tcpSocket": {"port": port}})
    with pytest.raises(HandlerFailed, match="no port named"):
        await probe({"httpGet": {"port": "none"}})
    for answer, text in [
        (b"HTTP/1.1 503 Busy\r\n\r\n", "statuscode: 503"),
        (b"SSH-2.0-x\r\n", "not an HTTP answer"),
        (b"", "not an HTTP answer"),
        (b"x" * 100_000, "not an HTTP answer"),
    ]:
        async with server(answer) as (port, _):
            with pytest.raises(HandlerFailed, match=text):
                await probe({"httpGet": {"port": port}})


async def test_grpc_health() -> None:
    class Handler(google.GenericRpcHandler):
        def service(self, call: Any) -> Any:
            if call.method != "/grpc.health.v1.Health/Check":
                return None
            return google.unary_unary_rpc_method_handler(
                lambda request, context: b"\x08\x01" if request == b"\x0a\x02up" else b"\x08\x02"
            )

    running = google.server(ThreadPoolExecutor(2), handlers=[Handler()])
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    try:
        await probe({"grpc": {"port": port, "service": "up"}})
        with pytest.raises(HandlerFailed, match="not serving"):
            await probe({"grpc": {"port": port}})
    finally:
        await asyncio.to_thread(running.stop(None).wait)
    with pytest.raises(HandlerFailed):
        await probe({"grpc": {"port": port, "service": "up"}})


def test_an_unhealthy_container_is_stopped_once_and_started_again() -> None:
    from edgehive.edge.pods_actions import Problem, StopContainer

    world = World(make_pod("p", container("c", "x")))
    world.settle()
    first = world.running("c")[0].id
    world.core.receive_probes(frozenset("c"), frozenset(), {})
    world.settle()
    assert world.condition("Ready")["reason"] == "ContainersNotReady"
    world.core.receive_probes(frozenset(), frozenset(), {first: (Problem("Unhealthy", "why"), 9)})
    world.settle()
    stops = [a for a in world.done if isinstance(a, StopContainer)]
    assert [(a.container_id, a.grace, a.why) for a in stops] == [(first, 9, "why")]
    assert world.running("c")[0].attempt == 1


def test_a_sidecar_that_has_not_started_holds_the_others() -> None:
    side = container("side", "x", restartPolicy="Always")
    world = World(make_pod("p", container("c", "x"), initContainers=[side]))
    world.core.receive_probes(frozenset(["side"]), frozenset(["side"]), {})
    world.settle()
    assert not world.running("c")
    assert world.phase == "Pending"
    world.core.receive_probes(frozenset(), frozenset(), {})
    world.settle()
    assert world.running("c")


def test_probes_and_hooks_on_real_processes(tmp_path: Path) -> None:
    edged = EdgedProcess(tmp_path / "edged", "process://")
    script = (
        "touch $EDGEHIVE_ROOT/started; echo up; trap 'echo term; exit 0' TERM; while :; do sleep 0.1; done"
    )

    def test_file(name: str) -> dict[str, Any]:
        return {"command": ["sh", "-c", f"test -e $EDGEHIVE_ROOT/{name}"]}

    one = container(
        "c",
        script,
        startupProbe={"exec": test_file("started"), "periodSeconds": 1},
        readinessProbe={"exec": test_file("ready"), "periodSeconds": 1, "failureThreshold": 1},
        livenessProbe={
            "exec": {"command": ["sh", "-c", "! test -e $EDGEHIVE_ROOT/sick"]},
            "periodSeconds": 1,
            "failureThreshold": 1,
        },
        lifecycle={
            "postStart": {"exec": {"command": ["sh", "-c", "echo y >$EDGEHIVE_ROOT/hooked"]}},
            "preStop": {"exec": {"command": ["sh", "-c", "echo x >$EDGEHIVE_ROOT/../../../stopping"]}},
        },
    )
    edged.want["pods"] = [make_pod("web", one)]
    edged.write()
    edged.start()
    try:

        def status() -> dict[str, Any]:
            return (edged.status("web").get("containerStatuses") or [{}])[0]

        edged.wait("started, not ready", lambda: status().get("started") and not status()["ready"])
        roots = edged.base / "root" / "process" / "containers"
        root = next(roots.iterdir()) / "root"
        assert (root / "hooked").exists()
        unhealthy = ["web", "Unhealthy", "Readiness probe failed: exit code 1"]
        edged.wait("the event", lambda: unhealthy in edged.got()["events"])
        (root / "ready").touch()
        edged.wait("ready", lambda: status().get("ready"))
        before = edged.status("web")
        edged.kill()
        edged.want["pods"][0]["status"] = before
        edged.write()
        edged.start()
        edged.wait("adopted", lambda: edged.here() == ["default/web"])
        assert status().get("ready"), "a restart of edged does not make it unready"
        (root / "sick").touch()
        edged.wait("restarted", lambda: status().get("restartCount") == 1)
        text = "Container c failed liveness probe, will be restarted"
        assert ["web", "Killing", text] in edged.got()["events"]
        assert (edged.base / "root" / "process" / "stopping").exists(), "preStop ran"
        edged.want["pods"] = []
        edged.write()
        edged.wait("gone", lambda: edged.here() == [])
    finally:
        edged.kill()
