"""The node agent: what it reports, and what it does when the cluster says no."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgehive.edge.metaclient import Failed, Ok, Reply
from edgehive.edge.node import NodeAgent, NodeTimers
from edgehive.edge.node_probe import (
    Levels,
    Machine,
    NodeProbe,
    interface_address,
    local_address,
    running_kubelet,
)
from edgehive.edge.node_status import (
    NodeReporter,
    NodeSettings,
    Readiness,
    kubelet_version,
    micro_time,
    node_images,
    status_patch,
    sum_reserved,
    threshold,
)
from edgehive.edge.runtime import ImageInfo, RuntimeFailure
from edgehive.kube.status import ApiStatus, not_found

GIB = 1 << 30
MACHINE = Machine(
    cores=4,
    memory=8 * GIB,
    storage=100 * GIB,
    hugepages=(("2Mi", 4 << 20),),
    machine_id="m",
    system_uuid="s",
    boot_id="b",
    kernel="6.1",
    os_image="Debian",
    architecture="arm64",
)
FINE = Levels(
    (4 * GIB, 8 * GIB), (50 * GIB, 100 * GIB), (90, 100), (50 * GIB, 100 * GIB), (90, 100), (900, 1000)
)
HARD = {
    "memory.available": "100Mi",
    "nodefs.available": "10%",
    "nodefs.inodesFree": "5%",
    "pid.available": "10%",
}
SETTINGS = NodeSettings(
    name="edge-1",
    labels={"rack": "7"},
    eviction_hard=HARD,
    kubelet_version=kubelet_version("0.1.0"),
)


def reporter(**changes: Any) -> NodeReporter:
    values = {name: getattr(SETTINGS, name) for name in SETTINGS.__slots__} | changes
    return NodeReporter(settings=NodeSettings(**values), machine=MACHINE)


def levels(**changes: Any) -> Levels:
    return Levels(**({name: getattr(FINE, name) for name in FINE.__slots__} | changes))


def condition(status: dict[str, Any], kind: str) -> dict[str, str]:
    found: dict[str, str] = next(c for c in status["conditions"] if c["type"] == kind)
    return found


def test_resources_are_capacity_minus_reservations_and_eviction() -> None:
    made = reporter(reserved=sum_reserved([{"cpu": "500m", "memory": "1Gi"}, {"cpu": "250m"}]))
    status = made.status(FINE, Readiness("containerd://1.6.20"), 0, address="10.0.0.1")
    assert status["capacity"] == {
        "cpu": "4",
        "memory": f"{8 << 20}Ki",
        "ephemeral-storage": f"{100 << 20}Ki",
        "pods": "110",
        "hugepages-2Mi": "4Mi",
    }
    assert status["allocatable"]["cpu"] == "3250m"
    assert status["allocatable"]["memory"] == f"{(7 << 20) - (100 << 10)}Ki"
    assert status["allocatable"]["ephemeral-storage"] == str(90 * GIB) or status["allocatable"][
        "ephemeral-storage"
    ] == (f"{90 << 20}Ki")


def test_registration_object() -> None:
    made = reporter(schedulable=False, taints=({"key": "k", "effect": "NoExecute"},))
    node = made.node(made.status(FINE, Readiness("containerd://1"), 0, address="10.0.0.1"))
    assert node["metadata"]["labels"] == {
        "beta.kubernetes.io/arch": "arm64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "arm64",
        "kubernetes.io/hostname": "edge-1",
        "kubernetes.io/os": "linux",
        "node-role.kubernetes.io/agent": "",
        "node-role.kubernetes.io/edge": "",
        "rack": "7",
    }
    assert node["spec"]["unschedulable"] is True
    assert {t["key"] for t in node["spec"]["taints"]} == {"k", "node.kubernetes.io/unschedulable"}
    assert node["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10350}}
    assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.32.10-kubeedge-v0.1.0"
    assert condition(node["status"], "Ready")["reason"] == "EdgeReady"


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("MemoryPressure", {"memory": (99 << 20, 8 * GIB)}),
        ("DiskPressure", {"node_bytes": (9 * GIB, 100 * GIB)}),
        ("DiskPressure", {"node_inodes": (4, 100)}),
        ("PIDPressure", {"pids": (99, 1000)}),
    ],
)
def test_pressure_is_real_and_lasts_for_the_transition_period(kind: str, change: dict[str, Any]) -> None:
    made = reporter(pressure_transition=300.0)
    assert condition(made.status(FINE, Readiness("r"), 0, address="10.0.0.1"), kind)["status"] == "False"
    assert (
        condition(made.status(levels(**change), Readiness("r"), 10, address="10.0.0.1"), kind)["status"]
        == "True"
    )
    assert condition(made.status(FINE, Readiness("r"), 200, address="10.0.0.1"), kind)["status"] == "True"
    assert condition(made.status(FINE, Readiness("r"), 311, address="10.0.0.1"), kind)["status"] == "False"


def test_pressure_ends_when_the_clock_is_set_back() -> None:
    made = reporter()
    pressed = levels(pids=(1, 1000))
    assert (
        condition(made.status(pressed, Readiness("r"), 5000, address="a"), "PIDPressure")["status"] == "True"
    )
    assert condition(made.status(FINE, Readiness("r"), 100, address="a"), "PIDPressure")["status"] == "False"


def test_a_file_system_without_inode_counts_is_no_pressure() -> None:
    made = reporter()
    assert (
        condition(
            made.status(levels(node_inodes=(0, 0)), Readiness("r"), 0, address="10.0.0.1"), "DiskPressure"
        )["status"]
        == "False"
    )


def test_transition_times_move_only_with_the_status_and_survive_a_restart() -> None:
    made = reporter()
    made.status(FINE, Readiness("r"), 1000, address="10.0.0.1")
    second = made.status(FINE, Readiness("r"), 1010, address="10.0.0.1")
    assert condition(second, "Ready")["lastTransitionTime"] == "1970-01-01T00:16:40Z"
    assert condition(second, "Ready")["lastHeartbeatTime"] == "1970-01-01T00:16:50Z"
    third = made.status(FINE, Readiness("r", "container runtime is down"), 1020, address="10.0.0.1")
    assert condition(third, "Ready")["status"] == "False"
    assert condition(third, "Ready")["lastTransitionTime"] == "1970-01-01T00:17:00Z"
    restarted = reporter()
    restarted.adopt({"status": second})
    again = restarted.status(FINE, Readiness("r"), 5000, address="10.0.0.1")
    assert condition(again, "Ready")["lastTransitionTime"] == "1970-01-01T00:16:40Z"


def test_nothing_to_say_is_no_patch_and_a_heartbeat_carries_whole_conditions() -> None:
    made = reporter()
    known = made.node(made.status(FINE, Readiness("r"), 0, address="10.0.0.1"))
    later = made.status(FINE, Readiness("r"), 10, address="10.0.0.1")
    assert status_patch(known=known, status=later, labels=made.labels(), heartbeat=False) is None
    patch = json.loads(status_patch(known=known, status=later, labels=made.labels(), heartbeat=True) or b"")
    assert [c["type"] for c in patch["status"]["$setElementOrder/conditions"]] == [
        "MemoryPressure", "DiskPressure", "PIDPressure", "Ready",
    ]  # fmt: skip
    assert condition(patch["status"], "Ready")["status"] == "True"
    assert "daemonEndpoints" not in patch["status"]


def test_a_patch_holds_what_differs() -> None:
    made = reporter()
    known = made.node(made.status(FINE, Readiness("containerd://1"), 0, address="10.0.0.1"))
    known["metadata"]["labels"].pop("rack")
    known["status"]["addresses"] = []
    known["status"]["conditions"][3] |= {"status": "Unknown", "reason": "NodeStatusUnknown"}
    status = made.status(FINE, Readiness("containerd://2"), 10, address="10.0.0.1")
    patch = json.loads(status_patch(known=known, status=status, labels=made.labels(), heartbeat=False) or b"")
    assert patch["metadata"] == {"labels": {"rack": "7"}}
    assert patch["status"]["nodeInfo"] == {"containerRuntimeVersion": "containerd://2"}
    assert patch["status"]["addresses"][0] == {"$patch": "replace"}
    assert [c["type"] for c in patch["status"]["conditions"]] == ["Ready"]
    assert patch["status"]["conditions"][0]["status"] == "True"


def test_images_are_the_largest_with_few_of_their_names() -> None:
    images = [
        ImageInfo("1", ["a:1"], ["a@sha256:1"], 10),
        ImageInfo("2", [f"b:{n}" for n in range(9)], [], 30),
        ImageInfo("3", [], [], 99),
        ImageInfo("4", ["c:1"], [], 20),
    ]
    assert node_images(images, 2) == [
        {"names": ["b:0", "b:1", "b:2", "b:3", "b:4"], "sizeBytes": 30},
        {"names": ["c:1"], "sizeBytes": 20},
    ]
    assert node_images(images, -1)[2] == {"names": ["a@sha256:1", "a:1"], "sizeBytes": 10}
    assert node_images(images, 0) == []


async def test_a_node_tells_its_images_if_it_is_to() -> None:
    told = [{"names": ["a:1"], "sizeBytes": 1}]

    async def images() -> list[dict[str, Any]]:
        return list(told)

    cluster = Cluster()
    async with agent(cluster, images=images):
        await cluster.until(lambda: cluster.node_object)
        assert cluster.node_object is not None
        assert cluster.node_object["status"]["images"] == told
        told.append({"names": ["b:1"], "sizeBytes": 2})
        await cluster.until(lambda: cluster.patches and cluster.patches[-1]["status"].get("images") == told)


def test_thresholds() -> None:
    assert threshold("10%", 200) == 20
    assert threshold("100Mi", 0) == 100 << 20


def test_micro_time() -> None:
    assert micro_time(0.25) == "1970-01-01T00:00:00.250000Z"


def test_the_probe_reads_a_machine_from_its_files(tmp_path: Path) -> None:
    def put(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    put("proc/meminfo", "MemTotal:  2048 kB\nMemAvailable: 1024 kB\n")
    put("proc/loadavg", "0.0 0.0 0.0 2/345 99\n")
    put("proc/sys/kernel/pid_max", "32768\n")
    put("proc/sys/kernel/random/boot_id", "boot\n")
    put("proc/self/cgroup", "0::/edge.slice\n")
    put("sys/fs/cgroup/edge.slice/memory.max", str(1 << 20))
    put("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "1")
    put("etc/machine-id", "abc\n")
    put("etc/os-release", 'NAME=x\nPRETTY_NAME="Tiny Linux 3"\n')
    probe = NodeProbe(storage=tmp_path / "not/there/yet", root=tmp_path)
    machine, now = probe.machine(), probe.levels()
    assert (machine.memory, machine.machine_id, machine.system_uuid) == (2 << 20, "abc", "abc")
    assert (machine.os_image, machine.boot_id) == ("Tiny Linux 3", "boot")
    assert machine.hugepages == (("1Gi", GIB),)
    assert machine.storage > 0
    assert now.memory == (1 << 20, 2 << 20)
    assert now.pids == (32768 - 345, 32768)
    put("proc/12/comm", "bash\n")
    assert running_kubelet(tmp_path) == 0
    put("proc/345/comm", "kubelet\n")
    assert running_kubelet(tmp_path) == 345
    limited = NodeProbe(storage=tmp_path, root=tmp_path, own_limits=True)
    assert limited.machine().memory == 1 << 20


def test_addresses_of_this_machine() -> None:
    assert interface_address("lo") == "127.0.0.1"
    assert interface_address("no-such-if") == ""
    assert local_address("127.0.0.1") == "127.0.0.1"
    assert local_address("::1") in ("::1", "127.0.0.1")
    assert local_address("no-such-host.invalid")


class Cluster:
    """A `NodeApi` and a link."""

    def __init__(self) -> None:
        self.connected = True
        self.node_object: dict[str, Any] | None = None
        self.lease_object: dict[str, Any] | None = None
        self.calls: list[str] = []
        self.refuse: dict[str, ApiStatus] = {}
        self.listeners: list[Callable[[bool], None]] = []
        self.changed = asyncio.Condition()
        self.patches: list[dict[str, Any]] = []

    def on_connection(self, callback: Callable[[bool], None]) -> None:
        self.listeners.append(callback)

    def link(self, up: bool) -> None:
        self.connected = up
        for listener in self.listeners:
            listener(up)

    async def _called(self, name: str) -> Failed | None:
        self.calls.append(name)
        async with self.changed:
            self.changed.notify_all()
        status = self.refuse.get(name)
        return Failed(status) if status is not None else None

    async def until(self, met: Callable[[], Any]) -> None:
        async with asyncio.timeout(15), self.changed:
            await self.changed.wait_for(met)

    async def node(self) -> Reply:
        return await self._called("node") or self._found(self.node_object)

    async def create_node(self, raw: bytes) -> Reply:
        failed = await self._called("create_node")
        if failed is None and self.node_object is not None:
            failed = Failed(ApiStatus(409, "AlreadyExists", "exists"))
        if failed is None:
            self.node_object = json.loads(raw)
            self.node_object["metadata"]["uid"] = "node-uid"  # type: ignore[index]
        return failed or self._found(self.node_object)

    async def patch_node_status(self, patch: bytes) -> Reply:
        self.patches.append(json.loads(patch))
        return await self._called("patch") or self._found(self.node_object)

    async def lease(self) -> Reply:
        return await self._called("lease") or self._found(self.lease_object)

    async def create_lease(self, raw: bytes) -> Reply:
        self.lease_object = json.loads(raw)
        return await self._called("create_lease") or Ok(raw)

    async def update_lease(self, raw: bytes) -> Reply:
        failed = await self._called("update_lease")
        if failed is None:
            self.lease_object = json.loads(raw)
        return failed or Ok(raw)

    @staticmethod
    def _found(obj: dict[str, Any] | None) -> Reply:
        return Failed(not_found("things", "x")) if obj is None else Ok(json.dumps(obj).encode())


class Probe(NodeProbe):
    def __init__(self) -> None:
        super().__init__(storage=Path("/"))

    def machine(self) -> Machine:
        return MACHINE

    def levels(self) -> Levels:
        return FINE


@asynccontextmanager
async def agent(
    cluster: Cluster, *, broken: list[str] | None = None, images: Any = None, **settings: Any
) -> AsyncIterator[NodeAgent]:
    async def version() -> tuple[str, str]:
        if broken:
            raise RuntimeFailure("Down", broken[0])
        return "containerd://1.6.20", ""

    values = {name: getattr(SETTINGS, name) for name in SETTINGS.__slots__} | settings
    made = NodeAgent(
        settings=NodeSettings(**values),
        probe=Probe(),
        api=cluster,
        connection=cluster,
        runtime_version=version,
        address=lambda: "10.0.0.1",
        wall=lambda: 1e9,
        rng=lambda: 0.5,
        images=images,
        timers=NodeTimers(status=0.02, report=300, lease_duration=1),
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(made.run())
        yield made
        task.cancel()


async def test_registers_then_leases_with_the_node_as_owner() -> None:
    cluster = Cluster()
    async with agent(cluster) as made:
        await cluster.until(lambda: cluster.calls.count("update_lease") >= 1)
        assert made.registered
    assert cluster.calls[0] == "create_node"
    first = cluster.calls.index("lease")
    assert cluster.calls[first + 1] == "create_lease"
    assert cluster.lease_object is not None
    owner = cluster.lease_object["metadata"]["ownerReferences"][0]
    assert owner == {"apiVersion": "v1", "kind": "Node", "name": "edge-1", "uid": "node-uid"}
    assert cluster.lease_object["spec"]["holderIdentity"] == "edge-1"


async def test_an_existing_node_is_read_from_the_cloud_and_reported_whole() -> None:
    cluster = Cluster()
    cluster.node_object = {"metadata": {"name": "edge-1", "uid": "old"}, "status": {}}
    async with agent(cluster):
        await cluster.until(lambda: cluster.patches)
    assert cluster.calls[:2] == ["create_node", "node"]
    assert condition(cluster.patches[0]["status"], "Ready")["status"] == "True"
    assert cluster.patches[0]["metadata"]["labels"]["node-role.kubernetes.io/edge"] == ""


async def test_a_deleted_node_is_registered_again() -> None:
    cluster = Cluster()
    async with agent(cluster):
        await cluster.until(lambda: "lease" in cluster.calls)
        cluster.node_object = None
        cluster.refuse["patch"] = not_found("nodes", "edge-1")
        cluster.link(False)
        cluster.link(True)
        await cluster.until(lambda: cluster.calls.count("create_node") == 2)


async def test_a_refused_registration_is_tried_again() -> None:
    cluster = Cluster()
    cluster.refuse["create_node"] = ApiStatus(403, "Forbidden", "no")
    async with agent(cluster) as made:
        await cluster.until(lambda: cluster.calls.count("create_node") >= 2)
        assert not made.registered
        del cluster.refuse["create_node"]
        await cluster.until(lambda: "lease" in cluster.calls)


async def test_nothing_is_asked_while_the_link_is_down() -> None:
    cluster = Cluster()
    cluster.connected = False
    async with agent(cluster) as made:
        for _ in range(20):
            await asyncio.sleep(0)
        assert cluster.calls == []
        assert not made.registered
        cluster.link(True)
        await cluster.until(lambda: "create_node" in cluster.calls)


async def test_a_conflicting_lease_is_read_again() -> None:
    cluster = Cluster()
    cluster.lease_object = {"metadata": {"name": "edge-1", "resourceVersion": "1"}}
    cluster.refuse["update_lease"] = ApiStatus(409, "Conflict", "changed")
    async with agent(cluster):
        await cluster.until(lambda: cluster.calls.count("lease") >= 2)
        del cluster.refuse["update_lease"]
        await cluster.until(lambda: cluster.lease_object and "spec" in cluster.lease_object)


async def test_a_dead_runtime_makes_the_node_not_ready() -> None:
    cluster = Cluster()
    broken = ["connect: no such file"]
    async with agent(cluster, broken=broken) as made:
        await cluster.until(lambda: cluster.node_object)
        assert cluster.node_object is not None
        ready = condition(cluster.node_object["status"], "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "KubeletNotReady")
        assert "no such file" in ready["message"]
        broken.clear()
        made.nudge()
        await cluster.until(
            lambda: any(
                c.get("reason") == "EdgeReady"
                for p in cluster.patches
                for c in p["status"].get("conditions", [])
            )
        )


async def test_register_false_waits_for_the_node() -> None:
    cluster = Cluster()
    async with agent(cluster, register=False) as made:
        await cluster.until(lambda: "node" in cluster.calls)
        assert not made.registered
        cluster.node_object = {"metadata": {"name": "edge-1"}}
        await cluster.until(lambda: "patch" in cluster.calls)
    assert "create_node" not in cluster.calls
