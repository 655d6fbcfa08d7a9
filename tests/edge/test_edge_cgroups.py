"""Cgroups of pods: names, numbers, and what is written where; on this machine's own cgroups where they can be had."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgehive.edge.cgroups import (
    SYSTEMD,
    CgroupRules,
    Limits,
    NoCgroups,
    cgroup_parent,
    files_v1,
    files_v2,
    pod_limits,
    shared_limits,
    slice_directory,
    slice_properties,
)
from edgehive.edge.cgroups_fs import Cgroups, Hierarchy, Slices, open_cgroups
from edgehive.edge.pods_spec import Pod, parse_pod
from edgehive.edge.runtime import RuntimeFailure


def one(name: str = "c", restart: str = "", **resources: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "resources": resources} | ({"restartPolicy": restart} if restart else {})


def pod(*containers: dict[str, Any], init: list[dict[str, Any]] | None = None, **spec: Any) -> Pod:
    body = {"containers": list(containers), "initContainers": init or [], **spec}
    return parse_pod(json.dumps({"metadata": {"name": "p", "uid": "a-b-c"}, "spec": body}).encode())


BOTH = {"cpu": "500m", "memory": "64Mi"}
GUARANTEED = pod(one(limits=BOTH))
BURSTABLE = pod(one(requests={"cpu": "250m"}, limits={"memory": "1Mi"}), one("d", requests={"cpu": "1"}))
NOTHING = pod(one())


def test_names_are_the_kubelet_s() -> None:
    directories, slices = CgroupRules(), CgroupRules(SYSTEMD)
    assert cgroup_parent(directories, GUARANTEED) == "/kubepods/poda-b-c"
    assert cgroup_parent(directories, BURSTABLE) == "/kubepods/burstable/poda-b-c"
    assert cgroup_parent(CgroupRules(root="/edge/x"), NOTHING) == "/edge/x/kubepods/besteffort/poda-b-c"
    assert cgroup_parent(slices, GUARANTEED) == "kubepods-poda_b_c.slice"
    assert cgroup_parent(slices, NOTHING) == "kubepods-besteffort-poda_b_c.slice"
    assert (
        cgroup_parent(CgroupRules(SYSTEMD, "/edge.slice"), NOTHING)
        == "edge-kubepods-besteffort-poda_b_c.slice"
    )
    assert slice_directory("a-b-c.slice") == "a.slice/a-b.slice/a-b-c.slice"


def test_limits_of_each_class() -> None:
    rules = CgroupRules(pids=77)
    assert pod_limits(rules, GUARANTEED) == Limits(512, 50_000, 100_000, 64 << 20, 77)
    assert pod_limits(CgroupRules(cpu_quota=False), GUARANTEED) == Limits(512, None, 100_000, 64 << 20)
    assert pod_limits(rules, NOTHING) == Limits(2, None, 100_000, None, 77)
    assert pod_limits(CgroupRules(), BURSTABLE) == Limits(1280, None, 100_000, None), "d has no limit"


def test_init_containers_and_sidecars_count_when_they_run() -> None:
    sidecar = one("s", "Always", requests={"cpu": "1"})
    first, last = one("i", requests={"cpu": "3"}), one("j", requests={"cpu": "2500m"})
    shares = pod_limits(
        CgroupRules(), pod(one(requests={"cpu": "2"}), init=[first, sidecar, last])
    ).cpu_shares
    assert shares == 3.5 * 1024, "the sidecar and the last init container; more than 1 + 2 at the end"
    over = pod(one(requests={"cpu": "1"}), overhead={"cpu": "500m"})
    assert pod_limits(CgroupRules(), over).cpu_shares == 1536


def test_shared_cgroups() -> None:
    found = shared_limits(CgroupRules(cores=2, memory=1 << 30), [GUARANTEED, BURSTABLE, NOTHING])
    assert found["kubepods",] == Limits(cpu_shares=2048, memory=1 << 30)
    assert found["kubepods", "burstable"] == Limits(cpu_shares=1280)
    assert found["kubepods", "besteffort"] == Limits(cpu_shares=2)


def test_both_generations_and_systemd() -> None:
    limits = Limits(1024, 50_000, 100_000, 5 << 20, 9)
    assert files_v1(limits) == [
        ("cpu", "cpu.shares", "1024"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("memory", "memory.limit_in_bytes", "5242880"),
        ("pids", "pids.max", "9"),
    ]
    assert files_v2(limits) == [
        ("cpu", "cpu.weight", "39"),
        ("cpu", "cpu.max", "50000 100000"),
        ("memory", "memory.max", "5242880"),
        ("pids", "pids.max", "9"),
    ]
    assert files_v2(Limits(cpu_quota=-1, memory=0))[0][2] == "max 100000"
    assert (Limits(2).cpu_weight, Limits(262144).cpu_weight) == (1, 10000)
    assert slice_properties(limits) == ["CPUWeight=39", "CPUQuota=50.00%", "MemoryMax=5242880", "TasksMax=9"]
    assert files_v1(Limits()) == files_v2(Limits()) == slice_properties(Limits()) == []


@pytest.fixture
def unified(tmp_path: Path) -> Path:
    """A directory that looks like cgroup v2; its kernel makes no files by itself."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    (tmp_path / "cgroup.subtree_control").write_text("cpu")
    for part in ("kubepods", "kubepods/poda-b-c"):
        directory = tmp_path / part
        directory.mkdir()
        (directory / "cgroup.controllers").write_text("cpu memory")
        (directory / "cgroup.subtree_control").write_text("")
        for name in ("cpu.weight", "memory.max"):
            (directory / name).write_text("0\n")
    return tmp_path


async def test_version_2_hands_controllers_down_and_takes_what_the_kernel_has(unified: Path) -> None:
    await Cgroups(CgroupRules(pids=3), Hierarchy(unified)).ensure(GUARANTEED)
    assert (unified / "cgroup.subtree_control").read_text() == "+pids", "one write each; cpu was there"
    made = unified / "kubepods/poda-b-c"
    assert (made / "memory.max").read_text() == str(64 << 20)
    assert (made / "cpu.weight").read_text() == "20"
    assert not (made / "pids.max").exists(), "this kernel has no pids controller there"


async def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").mkdir()
    with pytest.raises(RuntimeFailure, match="the pod's cgroup") as caught:
        await Cgroups(CgroupRules(), Hierarchy(tmp_path)).ensure(NOTHING)
    assert caught.value.reason == "FailedCreatePodContainer"


def test_without_cgroups_the_runtime_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(open_cgroups(CgroupRules(), Hierarchy(tmp_path)), NoCgroups)
    assert "cannot be written here" in caplog.text
    if not Path("/run/systemd/system").is_dir():
        assert isinstance(open_cgroups(CgroupRules(SYSTEMD)), NoCgroups)


async def test_slices_are_started_weighed_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = tmp_path / "called"
    fake = tmp_path / "bin/systemctl"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$@" >>{called}\ncase "$*" in *bad*) echo broken >&2; exit 1;; esac\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    (tmp_path / "cg/cpu" / slice_directory("kubepods-poda_b_c.slice")).mkdir(parents=True)
    slices = Slices(CgroupRules(SYSTEMD), Hierarchy(tmp_path / "cg"))
    await slices.ensure(GUARANTEED)
    await slices.balance([BURSTABLE])
    await slices.balance([BURSTABLE])
    await slices.remove("a-b-c")
    lines = called.read_text().replace("--no-ask-password ", "").splitlines()
    assert lines[:2] == [
        "start kubepods-poda_b_c.slice",
        "set-property --runtime kubepods-poda_b_c.slice CPUWeight=20 CPUQuota=50.00% MemoryMax=67108864",
    ]
    assert lines.count("set-property --runtime kubepods-burstable.slice CPUWeight=49") == 1, "only a change"
    assert lines[-1] == "stop kubepods-poda_b_c.slice"
    with pytest.raises(RuntimeFailure, match="broken"):
        await Slices(CgroupRules(SYSTEMD, "bad.slice"), Hierarchy(tmp_path / "cg")).ensure(GUARANTEED)


@pytest.fixture
def real() -> Iterator[tuple[CgroupRules, Hierarchy]]:
    hierarchy = Hierarchy()
    if not hierarchy.writable():
        pytest.skip("the cgroups of this machine cannot be written")
    root = f"edgehive-test-{os.getpid()}"
    yield CgroupRules(root=root, pids=50), hierarchy
    hierarchy.remove([root])


async def test_a_pod_s_cgroup_on_this_machine(real: tuple[CgroupRules, Hierarchy]) -> None:
    rules, hierarchy = real
    cgroups = open_cgroups(rules)
    assert isinstance(cgroups, Cgroups)
    await cgroups.balance([GUARANTEED])
    await cgroups.ensure(GUARANTEED)
    await cgroups.ensure(GUARANTEED)
    parts = [rules.root, "kubepods", "poda-b-c"]

    def value(controller: str, v1: str, v2: str) -> str:
        where = hierarchy.base.joinpath(*([] if hierarchy.unified else [controller]), *parts)
        return (where / (v2 if hierarchy.unified else v1)).read_text().strip()

    assert value("memory", "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert value("pids", "pids.max", "pids.max") == "50"
    assert value("cpu", "cpu.shares", "cpu.weight") == ("20" if hierarchy.unified else "512")
    with subprocess.Popen(["sh", "-c", "read x; exec sleep 1000"], stdin=subprocess.PIPE) as child:
        for file in hierarchy.joins(parts):
            Path(file).write_text(str(child.pid))
        child.stdin.write(b"go\n")  # type: ignore[union-attr]
        child.stdin.flush()  # type: ignore[union-attr]
        usage = hierarchy.usage(parts, 7.0)
        assert usage is not None
        assert (usage.at, usage.processes) == (7.0, 1)
        await cgroups.remove("a-b-c")
        assert child.wait(5) == -signal.SIGKILL, "what is left in it is ended"
    assert not any(root.joinpath(*parts).exists() for root in hierarchy.controllers())
    assert hierarchy.usage(parts, 1.0) is None
    await cgroups.remove("a-b-c")


async def test_what_was_left_behind_is_swept_and_nothing_else(real: tuple[CgroupRules, Hierarchy]) -> None:
    rules, hierarchy = real
    top = (rules.root, "kubepods")
    names = ("podleft", "podused", "podknown")
    for name in names:
        hierarchy.make((*top, name, "container"))

    def there() -> set[str]:
        roots = hierarchy.controllers()
        return {name for name in names if any(root.joinpath(*top, name).exists() for root in roots)}

    with subprocess.Popen(["sleep", "1000"]) as child:
        Path(hierarchy.joins((*top, "podused", "container"))[0]).write_text(str(child.pid))
        hierarchy.sweep(top, {"known"}, time.time() - 60)
        assert there() == set(names), "all of them are young"
        hierarchy.sweep(top, {"known"}, time.time() + 60)
        assert there() == {"podused", "podknown"}
        child.kill()
