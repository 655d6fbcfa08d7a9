"""The CRI runtime on a real containerd."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgehive.edge.cri import CriRuntime
from edgehive.edge.runtime import ContainerInfo, ContainerSpec, Mount, RuntimeFailure, SandboxSpec, State
from edgehive.kit.errors import Unreachable
from tests.support.containerd import BUSYBOX, Containerd, why_not

pytestmark = pytest.mark.containerd
UID = "io.kubernetes.pod.uid"


@pytest.fixture(scope="module")
def server() -> Iterator[Containerd]:
    if reason := why_not():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="ehc") as directory:
        made = Containerd(Path(directory) / "d")
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.fixture
async def runtime(server: Containerd) -> AsyncIterator[CriRuntime]:
    made = CriRuntime(endpoint=server.endpoint, node_ip="10.0.0.1")
    yield made
    for sandbox in await made.list_sandboxes():
        await made.stop_sandbox(sandbox.id)
        await made.remove_sandbox(sandbox.id)
    await made.close()


def sandbox_of(tmp_path: Path, name: str = "p", **more: Any) -> SandboxSpec:
    labels = {UID: f"uid-{name}"}
    given: dict[str, Any] = {"host_network": True} | more
    return SandboxSpec(name, "default", f"uid-{name}", 0, name, str(tmp_path / "logs"), labels, **given)


async def start(runtime: CriRuntime, sandbox: SandboxSpec, script: str, **more: Any) -> tuple[str, str]:
    sandbox_id = await runtime.run_sandbox(sandbox)
    given: dict[str, Any] = {
        "name": "c",
        "attempt": 0,
        "image": BUSYBOX,
        "command": ["sh", "-c", script],
        "args": [],
        "working_dir": "",
        "env": [("X", "y")],
        "mounts": [],
        "log_path": "c/0.log",
        "labels": sandbox.labels,
        "annotations": {"note": "kept"},
    }
    spec = ContainerSpec(**given | more)
    (Path(sandbox.log_directory) / "c").mkdir(parents=True, exist_ok=True)
    made = await runtime.create_container(sandbox_id, spec, sandbox)
    await runtime.start_container(made)
    return sandbox_id, made


async def ended(runtime: CriRuntime, container: str) -> Any:
    async with asyncio.timeout(10):
        while (info := await runtime.container_status(container)).state is not State.EXITED:
            await asyncio.sleep(0.05)
    return info


async def test_who_it_is_and_what_it_lacks(runtime: CriRuntime, server: Containerd) -> None:
    assert (await runtime.version()).name == "containerd"
    assert "cni plugin not initialized" in await runtime.network_problem()
    assert (await runtime.image_filesystem()).startswith(str(server.base))


async def test_images(runtime: CriRuntime) -> None:
    image = await runtime.image_status(BUSYBOX)
    assert image is not None
    assert image.size > 1_000_000
    assert BUSYBOX in [tag for one in await runtime.list_images() for tag in one.tags]
    assert await runtime.image_status("docker.io/library/absent:1") is None
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.pull_image("127.0.0.1:1/absent:1")
    assert caught.value.reason == "PullImageFailed"
    await runtime.remove_image("docker.io/library/absent:1")


async def test_a_container_from_creation_to_removal(runtime: CriRuntime, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "f").write_text("inside")
    sandbox = sandbox_of(tmp_path)
    script = "cat /v/f; touch /v/no || echo readonly; id -u; sleep 0.3; exit 6"
    mounts = [Mount(str(tmp_path / "v"), "/v", readonly=True)]
    sandbox_id, container = await start(
        runtime, sandbox, script, mounts=mounts, security={"runAsUser": 65534, "runAsNonRoot": True}
    )
    found = await runtime.sandbox_status(sandbox_id)
    assert (found.ready, found.ip, found.labels[UID]) == (True, "10.0.0.1", "uid-p")
    listed = await runtime.list_containers("uid-p")
    assert [(c.id, c.state, c.sandbox_id) for c in listed] == [(container, State.RUNNING, sandbox_id)]
    assert listed[0].annotations["note"] == "kept"
    info = await ended(runtime, container)
    assert (info.exit_code, info.reason) == (6, "Error")
    assert info.created_at <= info.started_at < info.finished_at
    log = (tmp_path / "logs" / "c" / "0.log").read_text()
    assert "stdout F inside" in log.replace("stdout P", "stdout F")
    assert "readonly" in log
    assert "65534" in log
    assert (await runtime.list_containers())[0].state is State.EXITED
    assert await runtime.list_containers("uid-other") == []
    await runtime.remove_container(container)
    await runtime.remove_container(container)
    assert await runtime.list_containers() == []
    with pytest.raises(RuntimeFailure) as caught:
        await runtime.container_status(container)
    assert caught.value.reason == "NotFound"


async def test_exec_and_stop(runtime: CriRuntime, tmp_path: Path) -> None:
    _, container = await start(
        runtime, sandbox_of(tmp_path), "trap 'exit 3' TERM; while :; do sleep 0.1; done"
    )
    result = await runtime.exec_sync(container, ["sh", "-c", "echo $X; echo no >&2; exit 4"], 5)
    assert (result.exit_code, result.stdout, result.stderr) == (4, b"y\n", b"no\n")
    await runtime.stop_container(container, 20)
    assert (await ended(runtime, container)).exit_code == 3
    await runtime.stop_container("0" * 64, 1)


async def test_what_must_not_run_as_root_does_not(runtime: CriRuntime, tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="will run as root"):
        await start(runtime, sandbox_of(tmp_path), "id", security={"runAsNonRoot": True})


async def test_errors_are_typed_and_readable(runtime: CriRuntime, tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="no such file") as caught:
        await start(runtime, sandbox_of(tmp_path), "", command=["/no/such/program"])
    assert caught.value.reason == "StartContainerFailed"


async def test_containerd_may_be_killed_and_come_back(server: Containerd, tmp_path: Path) -> None:
    runtime = CriRuntime(endpoint=server.endpoint, node_ip="10.0.0.1")
    sandbox_id, container = await start(runtime, sandbox_of(tmp_path), "while :; do sleep 0.1; done")
    server.kill()
    with pytest.raises(Unreachable):
        await runtime.list_containers()
    await asyncio.to_thread(server.launch)
    assert [c.state for c in await _once_it_answers(runtime)] == [State.RUNNING]
    await runtime.stop_container(container, 0)
    await runtime.stop_sandbox(sandbox_id)
    await runtime.remove_sandbox(sandbox_id)
    assert await runtime.list_sandboxes() == []
    await runtime.close()


async def _once_it_answers(runtime: CriRuntime) -> list[ContainerInfo]:
    async with asyncio.timeout(20):
        while True:
            try:
                return list(await runtime.list_containers())
            except Unreachable:  # the socket is there before its containers are
                await asyncio.sleep(0.05)


async def test_no_events_is_not_an_error(runtime: CriRuntime) -> None:
    version = (await runtime.version()).version
    if not version.startswith("1.6"):
        pytest.skip("this containerd has an event stream")
    assert [uid async for uid in runtime.events()] == []
