"""The process runtime with real processes: what survives, what is killed, what is told."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edgehive.edge.pods_runtime import open_runtime
from edgehive.edge.process import ProcessRuntime
from edgehive.edge.process_shim import Identity, boot_id, env_script, start_script
from edgehive.edge.runtime import ContainerInfo, ContainerSpec, Mount, RuntimeFailure, SandboxSpec, State
from edgehive.kit.errors import UserError

UID = {"io.kubernetes.pod.uid": "uid-p"}
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="private mounts need root")


class Bench:
    """A runtime below a temporary directory."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.ids = itertools.count()
        self.runtime = self.boot()
        self.sandbox = SandboxSpec("p", "default", "uid-p", 0, "p", str(base / "logs"), UID)

    def boot(self) -> ProcessRuntime:
        self.runtime = ProcessRuntime(
            state_directory=self.base / "state",
            node_ip="10.0.0.1",
            version="1",
            clock=time.time,
            new_id=lambda: f"id{next(self.ids)}",
        )
        return self.runtime

    async def start(self, script: str, **more: Any) -> str:
        sandbox = await self.runtime.run_sandbox(self.sandbox)
        given: dict[str, Any] = {
            "name": "c",
            "attempt": 0,
            "image": "x",
            "command": ["sh", "-c", script],
            "args": [],
            "working_dir": "",
            "env": [],
            "mounts": [],
            "log_path": "c/0.log",
            "labels": UID,
        }
        made = await self.runtime.create_container(sandbox, ContainerSpec(**given | more), self.sandbox)
        await self.runtime.start_container(made)
        return made

    async def until(self, condition: Callable[[], Any]) -> Any:
        async with asyncio.timeout(10):
            while not (result := condition()):
                await asyncio.sleep(0.01)
        return result

    async def ended(self, container: str) -> ContainerInfo:
        async with asyncio.timeout(10):
            while (info := await self.runtime.container_status(container)).state is not State.EXITED:
                await asyncio.sleep(0.01)
        return info

    @property
    def log(self) -> str:
        """What was written so far, without times and streams."""
        lines = (self.base / "logs" / "c" / "0.log").read_text().splitlines(keepends=True)
        return "".join(line.split(" ", 3)[3] for line in lines)

    def pid(self, container: str, name: str = "pid") -> int:
        return int((self.base / "state" / "containers" / container / name).read_text().split()[0])


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await made.runtime.close()
    runtime = made.boot()
    for sandbox in await runtime.list_sandboxes():
        await runtime.remove_sandbox(sandbox.id)
    assert list((tmp_path / "state" / "containers").iterdir()) == []
    await runtime.close()


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


async def test_exit_codes_logs_environment_and_directory(bench: Bench) -> None:
    odd = [("A", 'it\'s "x"\n$HOME `id`'), ("PATH", os.environ["PATH"])]
    script = 'echo out; echo err >&2; printf "%s|" "$A"; echo; pwd; exit 7'
    info = await bench.ended(await bench.start(script, env=odd))
    assert (info.exit_code, info.reason, info.image_id) == (7, "Error", "process")
    assert info.started_at <= info.finished_at <= time.time()
    assert 'out\nit\'s "x"\n$HOME `id`|\n' in bench.log.replace("err\n", "")
    assert "/root\n" in bench.log


async def test_names_that_a_shell_cannot_export_arrive_too(bench: Bench) -> None:
    await bench.ended(await bench.start("", command=["env"], env=[("dotted.name", "a b"), ("X", "1")]))
    assert {"dotted.name=a b", "X=1"} <= set(bench.log.splitlines())


async def test_the_next_edgecore_finds_what_runs_and_how_the_rest_ended(bench: Bench) -> None:
    running = await bench.start("sleep 100")
    ends = await bench.start("sleep 0.2; exit 5", log_path="c/1.log", attempt=1)
    pid = bench.pid(running)
    await bench.runtime.close()
    runtime = bench.boot()
    found = {info.id: info for info in await runtime.list_containers("uid-p")}
    assert found[running].state is State.RUNNING
    assert (await bench.ended(ends)).exit_code == 5
    assert bench.pid(running) == pid
    assert [s.ready for s in await runtime.list_sandboxes("uid-p")] == [True, True]
    assert await runtime.list_containers("other") == []


async def test_an_end_is_told_at_once(bench: Bench) -> None:
    events = bench.runtime.events()
    assert await anext(events) == "", "the runtime can tell"
    await bench.start("sleep 0.1")
    async with asyncio.timeout(5):
        assert await anext(events) == "uid-p"
    await events.aclose()  # type: ignore[attr-defined]


async def test_a_killed_shim_leaves_the_command_running_and_its_end_is_noticed(bench: Bench) -> None:
    container = await bench.start("sleep 100")
    os.kill(bench.pid(container, "shim"), signal.SIGKILL)
    await bench.until(lambda: not alive(bench.pid(container, "shim")))
    assert (await bench.runtime.container_status(container)).state is State.RUNNING
    os.kill(bench.pid(container), signal.SIGKILL)
    info = await bench.ended(container)
    assert (info.exit_code, info.reason) == (137, "ContainerStatusUnknown")


async def test_term_is_enough_for_who_listens_and_kill_for_who_does_not(bench: Bench) -> None:
    polite = await bench.start("trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    await bench.until(lambda: "ready" in bench.log)
    started = time.monotonic()
    await bench.runtime.stop_container(polite, 30)
    assert time.monotonic() - started < 5
    assert (await bench.ended(polite)).exit_code == 3
    rude = await bench.start("trap '' TERM; echo ready; while :; do sleep 0.05; done", log_path="c/1.log")
    await bench.until(lambda: "ready" in (bench.base / "logs" / "c" / "1.log").read_text())
    await bench.runtime.stop_container(rude, 0.2)
    assert (await bench.ended(rude)).exit_code == 137


async def test_a_command_can_be_killed_the_moment_it_is_started(bench: Bench) -> None:
    for _ in range(8):
        container = await bench.start("sleep 1000")
        await bench.runtime.stop_container(container, 0)
        assert (await bench.runtime.container_status(container)).exit_code == 137
        await bench.runtime.remove_container(container)


async def test_what_a_command_leaves_behind_ends_with_it(bench: Bench) -> None:
    script = (
        "sleep 1000 & echo $! >same; setsid sh -c 'echo $$ >own; exec sleep 1000' & sleep 0.2; echo up; wait"
    )
    container = await bench.start(script)
    await bench.until(lambda: "up" in bench.log)
    root = bench.base / "state" / "containers" / container / "root"
    pids = [int((root / name).read_text()) for name in ("same", "own")]
    assert all(alive(pid) for pid in pids)
    await bench.runtime.stop_container(container, 1)
    await bench.until(lambda: not any(alive(pid) for pid in pids))


async def test_children_are_killed_when_the_command_ends_by_itself(bench: Bench) -> None:
    container = await bench.start("sleep 1000 & echo $! >child")
    await bench.ended(container)
    root = bench.base / "state" / "containers" / container / "root"
    await bench.until(lambda: not alive(int((root / "child").read_text())))


@root_only
async def test_mounts_are_at_their_paths_for_the_command_alone(bench: Bench, tmp_path: Path) -> None:
    volume, single = tmp_path / "volume", tmp_path / "file"
    volume.mkdir()
    (volume / "f").write_text("inside")
    single.write_text("one file")
    target = f"/edgehive-test-{os.getpid()}"
    mounts = [
        Mount(str(volume), f"{target}/deep/dir", readonly=True),
        Mount(str(single), f"{target}/single.conf"),
    ]
    script = (
        f"cat {target}/deep/dir/f {target}/single.conf $EDGEHIVE_ROOT{target}/deep/dir/f; "
        f"touch {target}/deep/dir/no 2>/dev/null || echo readonly; echo up; sleep 100"
    )
    first = await bench.start(script, mounts=mounts)
    await bench.until(lambda: "up" in bench.log)
    assert "insideone fileinsidereadonly" in bench.log
    assert list(Path(f"{target}/deep/dir").iterdir()) == [], "nothing is mounted for the host"
    second = await bench.start(script, mounts=mounts, log_path="c/1.log", attempt=1)
    result = await bench.runtime.exec_sync(first, ["cat", f"{target}/deep/dir/f"], 5)
    assert result.stdout == b"inside"
    await bench.runtime.stop_container(first, 0)
    await bench.runtime.remove_container(first)
    result = await bench.runtime.exec_sync(second, ["cat", f"{target}/deep/dir/f"], 5)
    assert result.stdout == b"inside", "another container's mount points stay"
    await bench.runtime.stop_container(second, 0)
    await bench.runtime.remove_container(second)
    assert not Path(target).exists()


@root_only
async def test_the_user_of_the_security_context(bench: Bench) -> None:
    container = await bench.start("id -u; id -g; pwd; echo x >file", security={"runAsUser": 4711})
    await bench.ended(container)
    assert bench.log.split()[:2] == ["4711", "4711"]
    assert (bench.base / "state" / "containers" / container / "root" / "file").exists(), bench.log


async def test_exec_sees_the_container_and_has_a_limit(bench: Bench) -> None:
    container = await bench.start("sleep 100", env=[("X", "y")])
    result = await bench.runtime.exec_sync(container, ["sh", "-c", "echo $X; echo no >&2; exit 4"], 5)
    assert (result.exit_code, result.stdout, result.stderr) == (4, b"y\n", b"no\n")
    with pytest.raises(RuntimeFailure) as caught:
        await bench.runtime.exec_sync(container, ["sleep", "100"], 0.2)
    assert caught.value.reason == "ExecTimeout"
    await bench.runtime.stop_container(container, 0)
    with pytest.raises(RuntimeFailure, match="does not run"):
        await bench.runtime.exec_sync(container, ["true"], 5)


async def test_a_log_is_rotated_without_losing_a_line(bench: Bench) -> None:
    script = "n=0; while [ $n -lt 3000 ]; do n=$((n+1)); echo line $n; [ $((n % 300)) = 0 ] && sleep 0.1; done; sleep 100"
    container = await bench.start(script)
    path = bench.base / "logs" / "c" / "0.log"
    for number in range(3):
        await bench.until(lambda: path.exists() and path.stat().st_size)
        path.rename(path.with_name(f"0.log.{number}"))
        assert await bench.runtime.reopen_log(container)
    parts = [path.with_name(f"0.log.{number}") for number in range(3)]
    await bench.until(lambda: "line 3000\n" in path.read_text() + parts[2].read_text())
    found = [line.split()[-1] for part in (*parts, path) for line in part.read_text().splitlines()]
    assert found == [str(n) for n in range(1, 3001)]


async def test_a_command_that_is_not_there_ends_like_in_a_shell(bench: Bench) -> None:
    info = await bench.ended(await bench.start("", command=["/no/such/program"]))
    assert info.exit_code == 127
    assert "/no/such/program" in bench.log


async def test_pods_that_need_an_image_are_refused_by_name(bench: Bench) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        await bench.runtime.check_pod({"spec": {"containers": [{"name": "web", "image": "nginx"}]}})
    assert caught.value.reason == "CommandRequired"
    assert '"web" has no command' in caught.value.message
    await bench.runtime.check_pod({"spec": {"containers": [{"name": "web", "command": ["true"]}]}})


def test_an_identity_is_not_taken_over_by_another_process() -> None:
    fields = Path("/proc/self/stat").read_text().rpartition(") ")[2].split()
    me = Identity(os.getpid(), fields[19], boot_id())
    assert me.alive(boot_id())
    assert not me.alive("another boot")
    assert not Identity(os.getpid(), "1", boot_id()).alive(boot_id())


def test_scripts_quote_everything() -> None:
    exports, prefix = env_script({"A": "a'b", "b.c": "d e"})
    assert exports == "export A='a'\"'\"'b'\n"
    assert prefix == ["env", "b.c=d e"]
    script = start_script(
        command=["echo", "a b", "$(id)"], directory="/x y", mounts=[Mount("/s s", "/t'; id")], user=[]
    )
    assert "exec echo 'a b' '$(id)'" in script
    assert "'/t'\"'\"'; id'" in script


def test_endpoints(tmp_path: Path) -> None:
    def make(endpoint: str) -> Any:
        return open_runtime(endpoint, node_ip="10.0.0.1", root_directory=tmp_path, clock=time.time)

    assert isinstance(make("process://"), ProcessRuntime)
    assert type(make("unix:///run/containerd/containerd.sock")).__name__ == "CriRuntime"
    for endpoint in ("", "tcp://1.2.3.4:1", "unix://relative"):
        with pytest.raises(UserError, match="endpoint"):
            make(endpoint)


@root_only
def test_without_root_volumes_are_below_the_root_variable(tmp_path: Path) -> None:
    """Run as another user, in another process."""
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:-1]:
        parent.chmod(parent.stat().st_mode | 0o055)
    program = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tests.edge.test_process_runtime import Bench
from edgehive.edge.runtime import Mount
async def main():
    base = Path({str(tmp_path)!r})
    (base / "v").mkdir()
    (base / "v" / "f").write_text("linked")
    bench = Bench(base)
    c = await bench.start("cat etc/v/f $EDGEHIVE_ROOT/etc/v/f", mounts=[Mount(str(base / "v"), "/etc/v")])
    info = await bench.ended(c)
    assert bench.log.strip() == "linkedlinked" and info.exit_code == 0, (bench.log, info)
    await bench.runtime.remove_sandbox(info.sandbox_id)
asyncio.run(main())
"""

    other = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"]
    # setpriv itself may do what the user may not: a shell has to find out.
    pythons = [sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"]
    usable = [
        p
        for p in pythons
        if not subprocess.run([*other, "sh", "-c", '"$0" -c pass', p], check=False).returncode
    ]
    if not usable:
        pytest.skip("this Python cannot be run by another user")
    done = subprocess.run(
        [*other, usable[0], "-B", "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
