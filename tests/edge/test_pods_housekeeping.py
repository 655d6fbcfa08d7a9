"""Shortages, images and logs: who has to go, what is removed, and that nothing in use is touched."""

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.edge.node_probe import Levels
from edgehive.edge.pods_eviction import (
    Candidate,
    EvictionSettings,
    EvictionWatch,
    Shortage,
    amount,
    choose,
)
from edgehive.edge.pods_garbage import (
    ImageGarbage,
    ImageSettings,
    LogRotation,
    disk_usage,
    full_name,
    images_in_use,
)
from edgehive.edge.pods_manager import PodManager
from edgehive.edge.pods_settings import NodeFacts, PodSettings
from edgehive.edge.pods_spec import Pod, parse_pod
from edgehive.edge.pods_storage import excess
from edgehive.edge.programs import discard_tree
from edgehive.edge.runtime import ContainerInfo, ImageInfo, RuntimeFailure, State, Usage
from tests.edge.test_pods_manager import FakeRuntime, until
from tests.support.fakemeta import FakeMeta, container, make_pod

MIB = 1 << 20
LOW = Shortage("memory.available", "100Mi", 50 * MIB, None)


# --- thresholds


def test_a_hard_threshold_acts_at_once_and_a_soft_one_after_its_grace() -> None:
    watch = EvictionWatch(
        EvictionSettings(
            hard={"memory.available": "10%"},
            soft={"memory.available": "200Mi"},
            soft_grace={"memory.available": 30.0},
            max_pod_grace=7,
        )
    )
    assert watch.shortage({"memory.available": (500 * MIB, 1000 * MIB)}, 0.0) is None
    soft = {"memory.available": (150 * MIB, 1000 * MIB)}
    assert watch.shortage(soft, 10.0) is None
    assert watch.shortage(soft, 39.0) is None
    assert watch.shortage(soft, 40.0) == Shortage("memory.available", "200Mi", 150 * MIB, 7)
    hard = watch.shortage({"memory.available": (99 * MIB, 1000 * MIB)}, 41.0)
    assert hard == Shortage("memory.available", "10%", 99 * MIB, None)


def test_a_recovery_starts_the_soft_grace_anew() -> None:
    settings = EvictionSettings(soft={"nodefs.available": "10%"}, soft_grace={"nodefs.available": 10.0})
    watch = EvictionWatch(settings)
    assert watch.shortage({"nodefs.available": (9, 100)}, 0.0) is None
    assert watch.shortage({"nodefs.available": (10, 100)}, 5.0) is None
    assert watch.shortage({"nodefs.available": (9, 100)}, 6.0) is None
    assert watch.shortage({"nodefs.available": (9, 100)}, 11.0) is None
    assert watch.shortage({"nodefs.available": (9, 100)}, 16.0) is not None


def test_what_was_crossed_has_to_be_reclaimed_with_a_margin() -> None:
    settings = EvictionSettings(
        hard={"memory.available": "100Mi"}, minimum_reclaim={"memory.available": "50Mi"}
    )
    watch = EvictionWatch(settings)
    assert watch.shortage({"memory.available": (120 * MIB, 1 << 30)}, 0.0) is None
    assert watch.shortage({"memory.available": (90 * MIB, 1 << 30)}, 1.0) is not None
    assert watch.shortage({"memory.available": (120 * MIB, 1 << 30)}, 2.0) is not None
    assert watch.shortage({"memory.available": (150 * MIB, 1 << 30)}, 3.0) is None
    assert watch.shortage({"memory.available": (120 * MIB, 1 << 30)}, 4.0) is None


def test_a_level_that_cannot_be_measured_evicts_nobody() -> None:
    watch = EvictionWatch(EvictionSettings(hard={"nodefs.available": "10%", "nodefs.inodesFree": "5%"}))
    assert watch.shortage({"nodefs.available": (0, 0)}, 0.0) is None
    assert amount("nonsense%", 100) == 0


# --- the order


def test_the_order_is_above_request_then_priority_then_usage() -> None:
    pods = [
        Candidate("modest", 0, False, memory=50, memory_request=100),
        Candidate("small-excess", 0, False, memory=110, memory_request=100),
        Candidate("large-excess", 0, False, memory=300, memory_request=100),
        Candidate("important", 10, False, memory=9000, memory_request=0),
        Candidate("critical", 2_000_000_001, True, memory=99999),
    ]
    order = []
    while (one := choose(LOW, pods)) is not None:
        order.append(one.uid)
        pods.remove(one)
    assert order == ["large-excess", "small-excess", "important", "modest"]


def test_disks_and_pids_have_their_own_measure() -> None:
    pods = [
        Candidate("memory", 0, False, memory=10**9, processes=1),
        Candidate("disk", 0, False, disk=10**9, processes=2),
        Candidate("forks", 0, False, processes=500),
    ]
    assert choose(Shortage("nodefs.available", "10%", 1, None), pods) == pods[1]
    assert choose(Shortage("pid.available", "10%", 1, None), pods) == pods[2]


@given(
    st.lists(
        st.builds(
            Candidate,
            uid=st.uuids().map(str),
            priority=st.integers(0, 3),
            protected=st.booleans(),
            memory=st.integers(0, 5),
            memory_request=st.integers(0, 5),
        ),
        max_size=8,
    )
)
def test_whoever_is_chosen_may_be_and_nobody_has_a_better_claim_to_go(pods: list[Candidate]) -> None:
    chosen = choose(LOW, pods)
    able = [pod for pod in pods if not pod.protected]
    assert (chosen is None) == (not able)
    if chosen is not None:
        assert not chosen.protected
        if chosen.memory <= chosen.memory_request:
            assert all(pod.memory <= pod.memory_request for pod in able)
            assert chosen.priority == min(pod.priority for pod in able)


# --- images


def image(name: str, size: int = 100, **more: bool) -> ImageInfo:
    return ImageInfo(f"sha256:{name}", [f"docker.io/library/{name}:1"], [], size, **more)


def test_the_longest_unused_images_go_and_only_as_many_as_needed() -> None:
    garbage = ImageGarbage(ImageSettings(minimum_age=60))
    images = [image("a"), image("b"), image("c")]
    garbage.observe(images, {"sha256:a", "sha256:b"}, 10.0)
    garbage.observe(images, {"docker.io/library/b:1"}, 100.0)
    garbage.observe(images, (), 200.0)
    assert [i.id for i in garbage.choose(images, 150, 200.0)] == ["sha256:c", "sha256:a"]
    assert [i.id for i in garbage.choose(images, 0, 200.0)] == []


def test_used_pinned_young_and_pause_images_stay() -> None:
    garbage = ImageGarbage(ImageSettings(minimum_age=60))
    pause = ImageInfo("sha256:p", ["registry.k8s.io/pause:3.9"], [], 1)
    images = [image("used"), image("pinned", pinned=True), pause]
    garbage.observe(images, {"sha256:used"}, 0.0)
    garbage.observe([*images, image("young")], {"sha256:used"}, 100.0)
    assert garbage.choose([*images, image("young")], 10**9, 100.0) == []


def test_the_high_threshold_frees_down_to_the_low_one() -> None:
    garbage = ImageGarbage(ImageSettings(high_percent=85, low_percent=80))
    assert garbage.to_free(160, 1000) == 0
    assert garbage.to_free(150, 1000) == 50
    assert garbage.to_free(0, 0) == 0
    assert ImageGarbage(ImageSettings(high_percent=100)).to_free(0, 1000) == 0


def test_a_maximum_age_removes_also_without_a_need() -> None:
    garbage = ImageGarbage(ImageSettings(maximum_age=1000))
    garbage.observe([image("a")], (), 0.0)
    assert garbage.choose([image("a")], 0, 900.0) == []
    assert garbage.choose([image("a")], 0, 1100.0) == [image("a")]


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("team/app:2", "docker.io/team/app:2"),
        ("r.example:5000/app", "r.example:5000/app:latest"),
        ("localhost/app@sha256:0", "localhost/app@sha256:0"),
    ],
)
def test_names_are_what_the_runtime_calls_them(short: str, full: str) -> None:
    assert full_name(short) == full
    assert full in images_in_use([], [short])


# --- logs


def running(path: Path) -> ContainerInfo:
    return ContainerInfo(
        "c1", "s1", "c", 0, State.RUNNING, 1, 1, 0, 0, "", "", "i", "i", {}, {}, str(path)
    )  # fmt: skip


class LogRuntime(FakeRuntime):
    """Writes to the file it has open until it is told to open a new one."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.file = path.open("a")
        self.broken = False

    def write(self, text: str) -> None:
        self.file.write(text)
        self.file.flush()

    async def close(self) -> None:
        self.file.close()

    async def reopen_log(self, container_id: str) -> bool:
        if self.broken:
            raise RuntimeFailure("ReopenContainerLogFailed", "no")
        self.file.close()
        self.file = self.path.open("a")
        return True


async def test_logs_are_rotated_compressed_and_bounded_and_no_line_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    runtime = LogRuntime(path)
    rotation = LogRotation(runtime=runtime, max_size=100, max_files=4)
    for number in range(3):
        runtime.write(f"{number} " + "x" * 200 + "\n")
        assert await rotation.rotate([running(path)]) == 1
        runtime.write(f"after {number}\n")
    kept = sorted(tmp_path.iterdir())
    assert [file.suffix == ".gz" for file in kept] == [False, True, True, False]
    whole = [gzip.decompress(f.read_bytes()).decode() if f.suffix == ".gz" else f.read_text() for f in kept]
    text = "".join([*whole[1:], whole[0]])
    assert [line.partition(" x")[0] for line in text.splitlines()] == [
        "0", "after 0", "1", "after 1", "2", "after 2",
    ]  # fmt: skip
    for _ in range(5):
        runtime.write("y" * 200)
        await rotation.rotate([running(path)])
    assert len([*tmp_path.iterdir()]) == 4
    await runtime.close()


async def test_a_refused_reopening_puts_the_log_back_and_a_lost_one_is_made_up_for(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    runtime = LogRuntime(path)
    rotation = LogRotation(runtime=runtime, max_size=100, max_files=4)
    runtime.write("x" * 200)
    runtime.broken = True
    assert await rotation.rotate([running(path)]) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["0.log"]
    path.rename(tmp_path / "0.log.20260101-000000")  # an edgecore was killed between its two steps
    runtime.broken = False
    await rotation.rotate([running(path)])
    assert path.exists()
    await runtime.close()


def test_the_size_of_a_directory_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "f").write_bytes(b"x" * 100_000)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "link").symlink_to(tmp_path / "a")
    assert disk_usage(tmp_path / "a") >= 100_000
    assert disk_usage(tmp_path / "b") < 50_000
    assert disk_usage(tmp_path / "not there") == 0
    os.link(tmp_path / "a" / "f", tmp_path / "a" / "g")
    assert 100_000 <= disk_usage(tmp_path / "a") < 150_000, "one file with two names"


def test_no_depth_of_a_pods_directories_is_too_much_for_measuring(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        (tmp_path / "d" / "f").write_bytes(b"x" * 100_000)
        assert disk_usage(tmp_path) >= 100_000
    finally:
        discard_tree(tmp_path / "d")  # pytest could not


# --- all of it


class Node:
    """Edged over a scripted runtime on a machine whose memory and disk the test decides."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.runtime = FakeRuntime()
        self.meta = FakeMeta()
        self.now = 1_000_000.0
        self.memory = 8 << 30
        self.full = False

    def levels(self) -> Levels:
        full = (1000, 1000)
        crowded = self.full and len(self.runtime.image_list) > 1
        images = (40 if crowded else 900, 1000)
        return Levels((self.memory, 8 << 30), full, full, images, full, full)

    @asynccontextmanager
    async def edged(self) -> AsyncIterator[PodManager]:
        manager = PodManager(
            runtime=self.runtime,
            meta=self.meta,
            node=NodeFacts("edge1", "10.0.0.1"),
            settings=PodSettings(
                root_directory=self.base / "root",
                log_directory=self.base / "logs",
                relist_seconds=0.02,
                housekeeping_seconds=0.02,
                eviction=EvictionSettings(hard={"memory.available": "100Mi", "imagefs.available": "5%"}),
                images=ImageSettings(minimum_age=0),
            ),
            clock=lambda: self.now,
            levels=self.levels,
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(manager.run())
            yield manager
            task.cancel()

    def status(self, name: str) -> dict[str, object]:
        return self.meta.status("default", name)


async def test_one_pod_is_evicted_at_a_time_until_there_is_enough_again(tmp_path: Path) -> None:
    node = Node(tmp_path)
    for name in ("a", "b", "c"):
        node.meta.put_pod(make_pod(name, container("c", "x")))
    node.meta.put_pod(make_pod("critical", container("c", "x"), priority=2_000_001_000))
    async with node.edged():
        await until("all run", lambda: all(node.status(n).get("phase") == "Running" for n in "abc"))
        for info in node.runtime.containers.values():
            name = info.labels["io.kubernetes.pod.name"]
            node.runtime.usages[info.id] = Usage({"a": 10, "b": 3000, "c": 200}.get(name, 9999))
        node.memory = 50 << 20
        await until("the greatest user goes", lambda: node.status("b").get("phase") == "Failed")
        node.memory = 4 << 30
        assert node.status("b")["reason"] == "Evicted"
        assert str(node.status("b")["message"]).startswith(
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51200Ki."
        )
        await until("it is ended at once", lambda: "stop 1" in node.runtime.calls)
        assert node.status("critical")["phase"] == "Running"
        assert "Evicted" in node.meta.reasons()
        node.now += 100
        await asyncio.sleep(0.1)
        assert {node.status(n)["phase"] for n in "ac"} == {"Running"}


def test_what_is_larger_than_it_may_be() -> None:
    def pod(limits: dict[str, str], size: str = "", medium: str = "") -> Pod:
        containers = [
            container(
                name, "x", resources={"limits": {"ephemeral-storage": limits[name]} if name in limits else {}}
            )
            for name in ("a", "b")
        ]
        source = {"sizeLimit": size, "medium": medium} if size else {}
        raw = make_pod(
            "p", *containers, volumes=[{"name": "e", "emptyDir": source}, {"name": "n", "emptyDir": None}]
        )
        return parse_pod(json.dumps(raw).encode())

    kib = 1 << 10
    assert excess(pod({}), {"e": 1 << 40}, {"a": 1 << 40}) == ""
    assert excess(pod({}, "1Ki"), {"e": kib}, {}) == ""
    assert (
        excess(pod({}, "1Ki"), {"e": kib + 1}, {}) == 'Usage of EmptyDir volume "e" exceeds the limit "1Ki". '
    )
    assert excess(pod({}, "1Ki", "Memory"), {"e": kib + 1}, {}) == ""
    assert excess(pod({"a": "0"}, "0"), {"e": kib}, {"a": kib}) == "", "no limit, as with the kubelet"
    assert excess(pod({"a": "1Ki"}), {"e": 500}, {"a": 500}) == ""
    assert "exceeds the total limit of containers 1Ki. " in excess(pod({"a": "1Ki"}), {"e": 600}, {"a": 500})
    both = pod({"a": "1Ki", "b": "2Ki"})
    assert "total limit of containers 3072. " in excess(both, {"n": 3 * kib}, {"b": 1})
    assert (
        excess(both, {}, {"a": kib + 1}) == 'Container a exceeded its local ephemeral storage limit "1Ki". '
    )
    assert excess(both, {}, {"a": kib, "b": 2 * kib}) == ""


async def test_who_writes_more_than_he_may_is_evicted(tmp_path: Path) -> None:
    node = Node(tmp_path)
    limited = container("c", "x", resources={"limits": {"ephemeral-storage": "1Mi"}})
    volumes = [{"name": "e", "emptyDir": {"sizeLimit": "100Ki"}}]
    node.meta.put_pod(make_pod("layer", limited))
    for name in ("volume", "modest"):
        node.meta.put_pod(make_pod(name, container("c", "x"), volumes=volumes))
    node.meta.put_pod(make_pod("critical", container("c", "x"), volumes=volumes, priority=2_000_001_000))
    names = ("layer", "volume", "modest", "critical")
    async with node.edged():
        await until("all run", lambda: all(node.status(n).get("phase") == "Running" for n in names))
        for name in ("volume", "critical"):
            place = tmp_path / "root" / "pods" / f"uid-{name}" / "volumes" / "kubernetes.io~empty-dir" / "e"
            (place / "much").write_bytes(os.urandom(200_000))
        for info in node.runtime.containers.values():
            if info.labels["io.kubernetes.pod.name"] == "layer":
                node.runtime.usages[info.id] = Usage(disk=2 << 20)
        for name, text in (("volume", 'EmptyDir volume "e"'), ("layer", "total limit of containers 1Mi")):
            await until("it goes", lambda n=name: node.status(n).get("phase") == "Failed")
            assert node.status(name)["reason"] == "Evicted"
            assert text in str(node.status(name)["message"])
        await asyncio.sleep(0.1)
        assert {node.status(n)["phase"] for n in ("modest", "critical")} == {"Running"}


async def test_a_shortage_is_dealt_with_although_nobody_knows_who_has_written_what(tmp_path: Path) -> None:
    node = Node(tmp_path)
    limited = container("c", "x", resources={"limits": {"ephemeral-storage": "1Mi"}})
    node.meta.put_pod(make_pod("limited", limited))

    async def unknown() -> Mapping[str, Usage]:
        raise RuntimeFailure("Unimplemented", "no statistics here")

    async with node.edged():
        await until("it runs", lambda: node.status("limited").get("phase") == "Running")
        node.runtime.usage = unknown  # type: ignore[method-assign]
        node.memory = 50 << 20
        await until("it goes", lambda: node.status("limited").get("phase") == "Failed")
        assert "low on resource: memory" in str(node.status("limited")["message"])


async def test_a_cut_link_evicts_nobody(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.meta.put_pod(make_pod("a", container("c", "x")))
    async with node.edged():
        await until("it runs", lambda: node.status("a").get("phase") == "Running")
        node.meta.connected = False
        node.now += 10 * 86400
        await asyncio.sleep(0.1)
        assert node.status("a")["phase"] == "Running"


async def test_a_full_image_disk_costs_unused_images_before_it_costs_pods(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.meta.put_pod(make_pod("a", container("c", "x")))
    mine = ImageInfo("sha256:mine", ["docker.io/library/busybox:1.36"], [], 10)
    node.runtime.image_list = [mine, image("unused")]
    async with node.edged():
        await until("it runs", lambda: node.status("a").get("phase") == "Running")
        node.now += 10
        node.full = True
        await until("the image goes", lambda: node.runtime.image_list == [mine])
        await asyncio.sleep(0.1)
        assert node.status("a")["phase"] == "Running"
