"""Pods that are held, pods that are looked into, and pods that have to end by a deadline or a shortage."""

from pathlib import Path
from typing import Any

import pytest

from edgehive.edge.cri_spec import container_config, sandbox_config
from edgehive.edge.pods_actions import Problem
from edgehive.edge.pods_build import container_spec, sandbox_spec
from edgehive.edge.pods_settings import NodeFacts, PodSettings
from edgehive.edge.pods_spec import parse_pod
from edgehive.edge.runtime import State
from tests.edge.test_pods_manager import Site, until
from tests.support.fakemeta import container, make_pod

HOLD = {"edge.kubeedge.io/hold-upgrade": "true"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def held_pod(name: str = "a") -> dict[str, Any]:
    pod = make_pod(name, container("c", "x"))
    pod["metadata"]["annotations"] = dict(HOLD)
    return pod


def conditions(site: Site, name: str) -> dict[str, Any]:
    return {c["type"]: c for c in site.meta.status("default", name).get("conditions", ())}


async def test_a_held_pod_waits_says_so_and_starts_when_it_is_let_in(site: Site) -> None:
    site.meta.put_pod(held_pod("a"))
    site.meta.put_pod(held_pod("b"))
    site.meta.put_pod(make_pod("free", container("c", "x")))
    async with site.edged() as manager:
        await until("the other runs", lambda: site.phase("free") == "Running")
        await until("the condition", lambda: "HeldUpgrade" in conditions(site, "a"))
        assert conditions(site, "a")["HeldUpgrade"]["reason"] == "HoldUpgradeEnabled"
        assert site.phase("a") == "Pending"
        assert not any("run_sandbox a" in call for call in site.runtime.calls)
        assert manager.release_held("default", "other") == []
        assert manager.release_held("default", "a") == ["default/a"]
        await until("it runs", lambda: site.phase("a") == "Running")
        assert site.phase("b") == "Pending"
        assert manager.release_held() == ["default/b"]
        await until("the last one too", lambda: site.phase("b") == "Running")


async def test_a_held_pod_that_is_deleted_is_deleted_and_one_that_runs_is_not_held(site: Site) -> None:
    site.meta.put_pod(held_pod("gone"))
    async with site.edged() as manager:
        await until("it is held", lambda: "HeldUpgrade" in conditions(site, "gone"))
        site.meta.mark_deleted("default", "gone")
        await until("the final delete", lambda: site.meta.deleted == ["uid-gone"])
        assert manager.release_held() == []
        site.meta.put_pod(held_pod("kept"))
        await until("it is held", lambda: "HeldUpgrade" in conditions(site, "kept"))
        manager.release_held()
        await until("it runs", lambda: site.phase("kept") == "Running")
    containers = len(site.runtime.containers)
    site.meta.rows["default", "kept"]["status"] = {"phase": "Pending"}  # its status never got through
    async with site.edged():
        await until("it is adopted", lambda: site.phase("kept") == "Running")
        assert len(site.runtime.containers) == containers


async def test_an_ephemeral_container_is_started_once_and_does_not_keep_the_pod_alive(site: Site) -> None:
    pod = make_pod("a", container("c", "x"), restartPolicy="Never")
    site.meta.put_pod(pod)
    async with site.edged():
        await until("it runs", lambda: site.phase("a") == "Running")
        debugger = container("debug", "look") | {"targetContainerName": "c"}
        pod["spec"]["ephemeralContainers"] = [debugger]
        site.meta.put_pod(pod)

        def told() -> list[dict[str, Any]]:
            return site.meta.status("default", "a").get("ephemeralContainerStatuses", [])

        await until("the debugger runs", lambda: told() and "running" in told()[0]["state"])
        ids = {info.name: key for key, info in site.runtime.containers.items()}
        assert site.runtime.specs[ids["debug"]].target_id == ids["c"]
        site.runtime.end(ids["debug"], 3)
        await until("its end", lambda: "terminated" in told()[0]["state"])
        assert told()[0]["state"]["terminated"]["exitCode"] == 3
        assert site.phase("a") == "Running"
        assert site.runtime.calls.count("create debug") == 1
        pod["spec"]["ephemeralContainers"] = [debugger, container("second", "look")]
        site.meta.put_pod(pod)
        await until("another one runs", lambda: len(told()) == 2 and "running" in told()[1]["state"])
        site.runtime.end(ids["c"], 0)
        await until("the pod has ended", lambda: site.phase("a") == "Succeeded")
        await until(
            "and took the debugger with it",
            lambda: all(c.state is State.EXITED for c in site.runtime.containers.values()),
        )


async def test_a_deadline_fails_the_pod(site: Site) -> None:
    site.meta.put_pod(make_pod("a", container("c", "x"), activeDeadlineSeconds=60))
    async with site.edged() as manager:
        await until("it runs", lambda: site.phase("a") == "Running")
        site.now += 100
        for worker in manager._workers.values():
            worker.receive_runtime_change()
        await until("it fails", lambda: site.phase("a") == "Failed")
        assert site.meta.status("default", "a")["reason"] == "DeadlineExceeded"


def test_an_eviction_gives_no_more_than_the_pod_has(tmp_path: Path) -> None:
    import json

    from edgehive.edge.pods_core import PodCore

    for asked, given, expected in ((30, None, 1), (0, None, 0), (30, 7, 7), (3, 7, 3)):
        raw = json.dumps(make_pod("a", container("c", "x"), terminationGracePeriodSeconds=asked)).encode()
        core = PodCore(parse_pod(raw), host_ip="1", runtime_name="r")
        core.receive_eviction(Problem("Evicted", "why"), given)
        assert core._grace(1.0) == expected
        core.next_actions(1.0)
        assert (core.status["phase"], core.status["reason"]) == ("Failed", "Evicted")


def test_a_privileged_container_makes_its_sandbox_privileged_and_a_target_shares_its_processes() -> None:
    import json

    node, settings = NodeFacts("edge1", "10.0.0.1"), PodSettings(Path("/r"), Path("/l"))
    mighty = container("c", "x", securityContext={"privileged": True})
    pod = parse_pod(json.dumps(make_pod("a", container("d", "x"), mighty)).encode())
    sandbox = sandbox_spec(pod, 0, settings, node)
    assert sandbox_config(sandbox)["linux"]["security_context"]["privileged"] is True
    spec = container_spec(
        pod,
        pod.spec.containers[0],
        attempt=0,
        image="i",
        env=[],
        mounts=[],
        node=node,
        settings=settings,
        target_id="c9",
    )
    options = container_config(spec, sandbox)["linux"]["security_context"]["namespace_options"]
    assert options["pid"] == 3
    assert options["target_id"] == "c9"
    plain = parse_pod(json.dumps(make_pod("a", container("d", "x"))).encode())
    config = sandbox_config(sandbox_spec(plain, 0, settings, node))
    assert config["linux"]["security_context"]["privileged"] is False


@pytest.mark.parametrize("address", [("", ""), ("169.254.30.10", "10550")], ids=["none", "there"])
async def test_containers_are_told_of_an_api_only_where_there_is_one(
    site: Site, address: tuple[str, str]
) -> None:
    names = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
    site.service = address
    own = container("c", "x", env=[{"name": names[0], "value": "elsewhere"}])
    site.meta.put_pod(make_pod("a", container("c", "x")))
    site.meta.put_pod(make_pod("own", own))
    async with site.edged():
        await until("they run", lambda: {site.phase("a"), site.phase("own")} == {"Running"})
    given = {spec.labels["io.kubernetes.pod.name"]: dict(spec.env) for spec in site.runtime.specs.values()}
    assert {n: v for n, v in given["a"].items() if n in names} == (
        dict(zip(names, address, strict=True)) if any(address) else {}
    )
    assert given["own"][names[0]] == "elsewhere"
