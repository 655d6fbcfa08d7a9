"""Device plugins against one made with grpcio: what a node counts, who gets what, and that a restart gives nothing twice."""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.edge.device_ledger import DeviceLedger, Given, is_extended, read_checkpoint
from edgehive.edge.device_plugins import DevicePlugins
from edgehive.edge.plugins import CHECKPOINT, NodePlugins
from edgehive.edge.pods_spec import Pod, parse_pod
from edgehive.edge.runtime import PodRejected, RuntimeFailure
from tests.support.containerd import Containerd, why_not
from tests.support.edged_host import EdgedProcess
from tests.support.fakemeta import container, make_pod
from tests.support.plugin_peer import DEVICES, DevicePluginPeer

GPU = "example.org/gpu"


@pytest.fixture
def base() -> Iterator[Path]:
    """A short directory: paths of sockets are limited."""
    made = Path(tempfile.mkdtemp(prefix="ehdev-"))
    yield made
    shutil.rmtree(made)


class Node:
    """A node's plugins without its pods."""

    def __init__(self, base: Path) -> None:
        self.now = 1000.0
        self.plugins = NodePlugins(base / "root", clock=lambda: self.now)
        self.plugins.load()
        self._changes = asyncio.Event()
        self.plugins.on_change(self._changes.set)

    @property
    def devices(self) -> DevicePlugins:
        assert self.plugins.devices is not None
        return self.plugins.devices

    def counts(self) -> tuple[str | None, str | None]:
        """Capacity and allocatable of the GPUs in the node's status."""
        status: dict[str, Any] = {"capacity": {"cpu": "1"}, "allocatable": {"cpu": "1"}}
        self.plugins.node_facts(status)
        assert status["capacity"]["cpu"] == "1"
        return status["capacity"].get(GPU), status["allocatable"].get(GPU)

    async def without(self, plugin: DevicePluginPeer) -> None:
        """End the plugin and wait until that is known."""
        await asyncio.to_thread(plugin.end)
        await self.until(lambda: (self.counts()[1] or "0") == "0")

    async def until(self, met: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not met():
                await self._changes.wait()
                self._changes.clear()


@pytest.fixture
async def node(base: Path) -> AsyncIterator[Node]:
    made = Node(base)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made.plugins.run())
        yield made
        running.cancel()


@pytest.fixture
async def plugin(base: Path, node: Node) -> AsyncIterator[DevicePluginPeer]:
    made = DevicePluginPeer(base / "root", GPU, "gpu0", "gpu1")
    await asyncio.to_thread(made.run)
    await node.until(lambda: node.counts() == ("2", "2"))
    yield made
    await asyncio.to_thread(made.end)


def pod_dict(name: str, number: int = 1, script: str = "exec sleep 1000", **spec: Any) -> dict[str, Any]:
    one = container("c", script, resources={"limits": {GPU: str(number)}})
    return make_pod(name, one, **spec)


def pod(name: str, number: int = 1, **spec: Any) -> Pod:
    return parse_pod(json.dumps(pod_dict(name, number, **spec)).encode())


async def test_devices_are_counted_as_they_come_fall_ill_and_go(node: Node, plugin: DevicePluginPeer) -> None:
    plugin.change(gpu0="Healthy", gpu1="Unhealthy", gpu2="Healthy")
    await node.until(lambda: node.counts() == ("3", "2"))
    await node.without(plugin)
    assert node.counts() == ("3", "0")
    node.now += 301
    assert node.counts() == ("0", "0")  # said so, not left out: the cluster would keep the old figure
    await asyncio.to_thread(plugin.run)
    await node.until(lambda: node.counts() == ("3", "2"))
    await node.without(plugin)


async def test_a_pod_gets_devices_of_its_own_and_the_plugin_s_answer(
    node: Node, plugin: DevicePluginPeer, base: Path
) -> None:
    plugin.answer = lambda ids: DEVICES["ContainerAllocateResponse"](
        envs={"GPUS": ",".join(ids)},
        mounts=[DEVICES["Mount"](container_path="/lib/gpu", host_path=str(base), read_only=True)],
        devices=[DEVICES["DeviceSpec"](container_path="/dev/gpu", host_path="/dev/null", permissions="rw")],
        annotations={"gpu": "yes"},
        cdi_devices=[DEVICES["CDIDevice"](name="example.org/gpu=0")],
    )
    first, second = pod("a"), pod("b")
    await node.devices.admit(first)
    await node.devices.admit(first)
    await node.devices.admit(second)
    assert plugin.allocated == [["gpu0"], ["gpu1"]]
    got = await node.devices.equip(second, second.spec.containers[0])
    assert got.env == [("GPUS", "gpu1")]
    assert (got.mounts[0].host_path, got.mounts[0].container_path, got.mounts[0].readonly) == (
        str(base), "/lib/gpu", True,
    )  # fmt: skip
    assert (got.devices[0].host_path, got.devices[0].container_path, got.devices[0].permissions) == (
        "/dev/null", "/dev/gpu", "rw",
    )  # fmt: skip
    assert got.annotations == {"gpu": "yes"}
    assert got.cdi == ["example.org/gpu=0"]
    with pytest.raises(PodRejected, match=r"Requested: 1, Available: 0, which is unexpected") as refused:
        await node.devices.admit(pod("c"))
    assert refused.value.reason == "UnexpectedAdmissionError"
    node.devices.release(first.uid)
    await node.devices.admit(pod("c"))
    assert plugin.allocated[-1] == ["gpu0"]


async def test_a_pod_that_is_refused_keeps_nothing(node: Node, plugin: DevicePluginPeer) -> None:
    two = make_pod(
        "a",
        container("one", "x", resources={"limits": {GPU: "1"}}),
        container("two", "x", resources={"limits": {GPU: "2"}}),
    )
    with pytest.raises(PodRejected):
        await node.devices.admit(parse_pod(json.dumps(two).encode()))
    assert node.devices.pods() == set()
    plugin.failure = (grpc.StatusCode.INTERNAL, "the driver is broken")
    with pytest.raises(PodRejected, match="the driver is broken"):
        await node.devices.admit(pod("b"))
    assert node.devices.pods() == set()


async def test_resources_of_nobody_here_are_not_looked_at(node: Node, plugin: DevicePluginPeer) -> None:
    other = make_pod("a", container("c", "x", resources={"limits": {"example.org/fpga": "4", "cpu": "1"}}))
    await node.devices.admit(parse_pod(json.dumps(other).encode()))
    assert plugin.allocated == []


async def test_main_containers_use_what_init_containers_had(node: Node, plugin: DevicePluginPeer) -> None:
    want = {"limits": {GPU: "2"}}
    both = make_pod(
        "a", container("c", "x", resources=want), initContainers=[container("i", "x", resources=want)]
    )
    await node.devices.admit(parse_pod(json.dumps(both).encode()))
    assert plugin.allocated == [["gpu0", "gpu1"], ["gpu0", "gpu1"]]


async def test_a_plugin_s_preference_counts_if_it_is_possible(node: Node, plugin: DevicePluginPeer) -> None:
    plugin.options.get_preferred_allocation_available = True
    plugin.preferred = lambda ids: [one for one in reversed(ids)]
    await asyncio.to_thread(plugin.register)
    await node.until(lambda: node.counts() == ("2", "2"))
    await node.devices.admit(pod("a"))
    plugin.preferred = lambda ids: ["gpu7"]
    plugin.change(gpu0="Healthy", gpu1="Healthy", gpu2="Healthy")
    await node.until(lambda: node.counts() == ("3", "3"))
    await node.devices.admit(pod("b"))
    assert plugin.allocated == [["gpu1"], ["gpu0"]]
    await node.without(plugin)


async def test_a_restart_gives_nothing_twice_and_waits_for_the_plugin(
    node: Node, plugin: DevicePluginPeer, base: Path
) -> None:
    plugin.options.pre_start_required = True
    await asyncio.to_thread(plugin.register)
    await node.until(lambda: node.counts() == ("2", "2"))
    first = pod("a")
    await node.devices.admit(first)
    later = Node(base)  # its plugin has not registered yet
    assert later.devices.pods() == {"uid-a"}
    assert later.counts() == (None, None)  # the cluster's figures are of before, and right
    await later.devices.admit(first)
    assert (await later.devices.equip(first, first.spec.containers[0])).env == [("GPUS", "gpu0")]
    with pytest.raises(RuntimeFailure, match="has not registered yet") as waits:
        await later.devices.admit(pod("b"))
    assert not isinstance(waits.value, PodRejected)
    assert plugin.prepared == []
    await node.devices.equip(first, first.spec.containers[0])
    assert plugin.prepared == [["gpu0"]]
    await node.without(plugin)


async def test_a_device_file_that_is_missing_is_waited_for(
    node: Node, plugin: DevicePluginPeer, base: Path
) -> None:
    file = base / "gpu"
    plugin.answer = lambda ids: DEVICES["ContainerAllocateResponse"](
        devices=[DEVICES["DeviceSpec"](container_path="/dev/gpu", host_path=str(file), permissions="rw")]
    )
    one = pod("a")
    await node.devices.admit(one)
    with pytest.raises(RuntimeFailure, match="is not there"):
        await node.devices.equip(one, one.spec.containers[0])
    file.touch()
    assert (await node.devices.equip(one, one.spec.containers[0])).devices


@pytest.mark.parametrize(
    "more",
    [
        {"version": "v1alpha"},
        {"resource_name": "gpu"},
        {"resource_name": "kubernetes.io/gpu"},
        {"endpoint": "../etc/passwd"},
    ],
)
async def test_what_cannot_be_a_plugin_is_refused(
    node: Node, plugin: DevicePluginPeer, more: dict[str, str]
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        await asyncio.to_thread(lambda: plugin.register(**more))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_sockets_of_an_earlier_time_are_removed_so_that_plugins_notice(base: Path) -> None:
    import socket

    directory = base / "root" / "device-plugins"
    directory.mkdir(parents=True)
    (directory / "note").touch()
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(directory / "gpu.sock"))
    made = Node(base)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(made.plugins.run())
        async with asyncio.timeout(5):
            while not (directory / "kubelet.sock").exists():
                await asyncio.sleep(0.01)
        assert sorted(p.name for p in directory.iterdir()) == ["kubelet.sock", "note"]
        assert made.plugins.devices is None  # nothing of gRPC is loaded for nobody
        running.cancel()
    assert not (directory / "kubelet.sock").exists()


ids = st.sampled_from(["0", "1", "2", "3"])


@settings(max_examples=100)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.sampled_from("abc"), st.integers(1, 3)),
            st.tuples(st.just("end"), st.sampled_from("abc")),
            st.tuples(st.just("devices"), st.dictionaries(ids, st.booleans())),
            st.tuples(
                st.just("lose"),
            ),
            st.tuples(
                st.just("restart"),
            ),
        ),
        max_size=20,
    )
)
def test_no_device_is_ever_with_two_pods(steps: list[tuple[Any, ...]]) -> None:
    ledger = DeviceLedger()
    ledger.receive_devices(GPU, {"0": True, "1": True})
    for step in steps:
        match step:
            case ("ask", name, number):
                one = pod(name, number)
                main = one.spec.containers[0]
                if ledger.has(one.uid, "c", GPU):
                    continue
                free, _ = ledger.free(one, main, GPU)
                if len(free) >= number:
                    ledger.give(Given(one.uid, "c", GPU, tuple(free[:number]), b"\x08\x01"))
            case ("end", name):
                ledger.release(f"uid-{name}")
            case ("devices", devices):
                ledger.receive_devices(GPU, devices)
            case ("lose",):
                ledger.receive_loss(GPU, 0.0)
                assert ledger.free(pod("x"), pod("x").spec.containers[0], GPU) == ([], [])
            case ("restart",):
                read = read_checkpoint(ledger.encode())
                assert read is not None
                assert read.pods() == ledger.pods()
                assert all(read.given(uid, "c") == ledger.given(uid, "c") for uid in ledger.pods())
                ledger = read
        held = [device for uid in ledger.pods() for one in ledger.given(uid, "c") for device in one.devices]
        assert len(held) == len(set(held))


def test_the_checkpoint_of_a_go_edgecore_is_taken_over() -> None:
    entry = {
        "PodUID": "u",
        "ContainerName": "c",
        "ResourceName": "nvidia.com/gpu",
        "DeviceIDs": {"0": ["GPU-1"], "1": ["GPU-2"]},
        "AllocResp": "CggKAWESA3h5eg==",
    }
    raw = {
        "Data": {"PodDeviceEntries": [entry], "RegisteredDevices": {"nvidia.com/gpu": ["GPU-1"]}},
        "Checksum": 1,
    }
    ledger = read_checkpoint(json.dumps(raw).encode())
    assert ledger is not None
    assert ledger.given("u", "c")[0].devices == ("GPU-1", "GPU-2")
    assert ledger.knows("nvidia.com/gpu")
    empty = {"Data": {"PodDeviceEntries": None, "RegisteredDevices": {}}, "Checksum": 2}
    assert read_checkpoint(json.dumps(empty).encode()) is not None
    for broken in (
        b"",
        b"{}",
        b"[" * 100000,
        json.dumps(raw).encode()[:-20],
        b'{"Data":{"PodDeviceEntries":[{}]}}',
    ):
        assert read_checkpoint(broken) is None


def test_a_broken_checkpoint_is_said_and_does_not_end_edgecore(
    base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = base / "root" / "device-plugins"
    directory.mkdir(parents=True)
    (directory / CHECKPOINT).write_text("{")
    plugins = NodePlugins(base / "root")
    plugins.load()
    assert "may be given twice" in caplog.text


def test_names_of_resources() -> None:
    assert is_extended("nvidia.com/gpu")
    for name in (
        "gpu",
        "cpu",
        "kubernetes.io/gpu",
        "a.kubernetes.io/gpu",
        "requests.nvidia.com/gpu",
        "x/../y",
    ):
        assert not is_extended(name)


@pytest.mark.timeout(90)
def test_a_pod_has_its_device_through_kills_and_the_next_fails_until_it_is_free(base: Path) -> None:
    edged = EdgedProcess(base, "process://")
    plugin = DevicePluginPeer(base / "root", GPU, "gpu0")
    echo = "echo $GPUS; exec sleep 1000"
    try:
        edged.start()
        edged.wait("the socket", (base / "root/device-plugins/kubelet.sock").exists)
        plugin.run()
        edged.wait("the devices", (base / "root/device-plugins" / CHECKPOINT).exists)
        edged.want["pods"] = [pod_dict("a", script=echo)]
        edged.write()
        status = edged.wait_running("a")
        edged.wait("the variable", lambda: "gpu0\n" in edged.log_text("a"))
        edged.kill()
        edged.start()
        again = edged.wait_running("a")
        assert again["containerStatuses"][0]["containerID"] == status["containerStatuses"][0]["containerID"]
        plugin.run()  # as a plugin does when the node's socket is new
        edged.want["pods"].append(pod_dict("b", script=echo))
        edged.write()
        edged.wait("b to fail", lambda: edged.status("b").get("phase") == "Failed")
        assert edged.status("b")["reason"] == "UnexpectedAdmissionError"
        assert "Requested: 1, Available: 0" in edged.status("b")["message"]
        edged.want["pods"] = [pod_dict("c", script=echo)]
        edged.write()
        edged.wait("a and b gone", lambda: edged.here() in (["default/c"],))
        edged.wait("c", lambda: edged.status("c").get("phase") in ("Running", "Failed"))
        assert plugin.allocated[0] == ["gpu0"]
    finally:
        edged.want["pods"] = []
        edged.write()
        edged.wait("all gone", lambda: edged.here() == [])
        edged.kill()
        plugin.end()


@pytest.mark.skipif(bool(why_not()), reason=why_not())
@pytest.mark.timeout(120)
def test_a_container_sees_its_device_and_its_variable(base: Path) -> None:
    containerd = Containerd(base / "c")
    plugin = DevicePluginPeer(base / "root", GPU, "gpu0")
    plugin.answer = lambda ids: DEVICES["ContainerAllocateResponse"](
        envs={"GPUS": ",".join(ids)},
        devices=[DEVICES["DeviceSpec"](container_path="/dev/gpu", host_path="/dev/urandom", permissions="r")],
        mounts=[DEVICES["Mount"](container_path="/lib/gpu", host_path=str(base), read_only=True)],
    )
    script = "head -c 8 /dev/gpu >/dev/null && echo $GPUS; ls /lib/gpu/marker; exec sleep 1000"
    (base / "marker").touch()
    edged = EdgedProcess(base, containerd.endpoint)
    try:
        containerd.start()
        edged.start()
        edged.wait("the socket", (base / "root/device-plugins/kubelet.sock").exists)
        plugin.run()
        edged.wait("the devices", (base / "root/device-plugins" / CHECKPOINT).exists)
        edged.want["pods"] = [pod_dict("a", script=script)]
        edged.write()
        edged.wait_running("a")
        edged.wait(
            "the output", lambda: "gpu0" in edged.log_text("a") and "/lib/gpu/marker" in edged.log_text("a")
        )
    finally:
        edged.kill()
        plugin.end()
        containerd.stop()


def test_nothing_is_loaded_for_plugins_that_are_not_there() -> None:
    code = "import sys, edgehive.edge.app, edgehive.edge.pods_manager, edgehive.edge.process; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "edgehive.edge.plugins" in loaded
    heavy = (
        "h2",
        "edgehive.aio.grpc",
        "edgehive.edge.csi_volumes",
        "edgehive.edge.device_plugins",
    )
    assert not [name for name in heavy if name in loaded]
