"""Edged looks again now and then: what was told wrong, or not at all, is put right, and said."""

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgehive.edge.pods_check import Patience, is_untold, out_of_step
from edgehive.edge.pods_spec import Pod, parse_pod
from tests.edge.test_pods_manager import Site, until
from tests.support.fakemeta import container, make_pod


def pod(name: str, **metadata: Any) -> Pod:
    body = make_pod(name, container("c", "x"))
    body["metadata"] |= metadata
    return parse_pod(msgspec.json.encode(body))


DELETED = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 5}


def test_nothing_is_wrong_with_what_is_as_desired() -> None:
    a, b = pod("a"), pod("b", **DELETED)
    assert out_of_step([], {}, ()) == []
    assert out_of_step([a, b], {a.uid: a, b.uid: b}, ()) == []
    assert out_of_step([pod("a", resourceVersion="7")], {a.uid: a}, ()) == []
    assert out_of_step([a], {}, {a.uid}) == [], "it comes back when it has ended"
    assert out_of_step([pod("b")], {b.uid: b}, ()) == [], "what is being deleted stays so"


def test_what_was_not_heard_of_is_found() -> None:
    a = pod("a")
    assert out_of_step([a], {}, ()) == ["default/a is missing"]
    assert out_of_step([], {a.uid: a}, ()) == ["default/a is not desired"]
    again = pod("a", uid="another")
    assert out_of_step([again], {a.uid: a}, ()) == ["default/a is missing", "default/a is not desired"]
    for newer in (pod("a", **DELETED), pod("a", labels={"x": "y"}), pod("a", annotations={"x": "y"})):
        assert out_of_step([newer], {a.uid: a}, ()) == ["default/a is not up to date"]
    sooner = pod("a", **DELETED | {"deletionGracePeriodSeconds": 0})
    assert out_of_step([sooner], {a.uid: pod("a", **DELETED)}, ()) == ["default/a is not up to date"]


READY = {
    "phase": "Running",
    "podIP": "10.0.0.1",
    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "then"}],
    "containerStatuses": [{"name": "c", "ready": True, "restartCount": 0, "containerID": "x://1"}],
}


def test_a_status_that_is_shown_is_not_told_again() -> None:
    others = {"type": "Other", "status": "Unknown"}
    shown = READY | {"conditions": [others, READY["conditions"][0] | {"lastTransitionTime": "now"}]}  # type: ignore[index,operator]
    assert not is_untold(READY, READY)
    assert not is_untold(READY | {"phase": "Failed"}, READY), "somebody has ended it for good"
    assert not is_untold(shown | {"qosClass": "Burstable"}, READY)


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "Pending"},
        {"podIP": "10.0.0.9"},
        {"conditions": [{"type": "Ready", "status": "False"}]},
        {"conditions": None},
        {"conditions": ["what?"]},
        {"containerStatuses": [READY["containerStatuses"][0] | {"restartCount": 1}]},  # type: ignore[index,operator]
        {"containerStatuses": []},
    ],
)
def test_a_status_that_is_not_shown_is_told_again(change: dict[str, Any]) -> None:
    assert is_untold(READY | change, READY)
    assert is_untold({}, READY)


def test_what_does_not_help_is_done_less_often() -> None:
    patience = Patience()
    assert [n for n in range(1, 20) if patience.again(["a"])] == [1, 2, 4, 8, 16]
    assert patience.again([]) == []
    assert patience.again(["a"]) == ["a"]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.resync = 0.05
    return made


async def test_the_database_decides_whatever_was_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.meta.put_pod(make_pod("a", container("c", "x")))
    site.meta.put_pod(make_pod("b", container("c", "x")))
    async with site.edged() as manager:
        await until("they run", lambda: [site.phase(name) for name in "ab"] == ["Running"] * 2)
        site.meta.tell_removed(site.meta.rows["default", "a"])  # which is not true
        await until("it ends", lambda: "pod default/a is gone" in caplog.text)
        await until("it comes back", lambda: {pod.uid for pod, _ in manager.pods()} == {"uid-a", "uid-b"})
        assert "not those of the database" not in caplog.text, "it was seen at once"
        gone = site.meta.rows.pop(("default", "b"))
        gone["metadata"]["uid"] = "next"
        site.meta.rows["default", "b"] = gone
        await until("the next one runs", lambda: {pod.uid for pod, _ in manager.pods()} == {"uid-a", "next"})
        text = "the pods here were not those of the database: default/b is missing, default/b is not desired"
        assert text in caplog.text
        site.meta.rows["default", "a"]["metadata"] |= DELETED
        await until("the final delete", lambda: "uid-a" in site.meta.deleted)
        assert "default/a is not up to date" in caplog.text


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


async def test_what_somebody_did_to_a_status_is_undone(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """As a node controller does it to the pods of a node that was not heard of for a while."""
    site.meta.put_pod(make_pod("a", container("c", "x")))
    async with site.edged():
        await until("it runs", lambda: site.phase("a") == "Running")
        status = site.meta.status("default", "a")
        status["conditions"] = [
            c | {"status": "False", "reason": "NodeNotReady"} for c in status["conditions"]
        ]
        status["reason"] = "NodeLost"

        def healed() -> bool:
            now = site.meta.status("default", "a")
            return "reason" not in now and all(c["status"] == "True" for c in now["conditions"])

        await until("it is ready again", healed)
        assert "the cluster shows another status" in caplog.text


async def test_nothing_is_said_while_all_is_well(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.meta.put_pod(make_pod("a", container("c", "x")))
    async with site.edged():
        await until("it runs", lambda: site.phase("a") == "Running")
        asked, rows = 0, site.meta.pods

        def count() -> list[bytes]:
            nonlocal asked
            asked += 1
            return rows()

        site.meta.pods = count  # type: ignore[method-assign]
        await until("a round", lambda: asked > 1)
        patches = len(site.meta.patches)
        await until("more rounds", lambda: asked > 4)
    assert len(site.meta.patches) == patches
    assert "another status" not in caplog.text
    assert "not those" not in caplog.text


async def test_an_empty_database_is_not_believed_while_the_cloud_is_away(site: Site) -> None:
    site.meta.put_pod(make_pod("a", container("c", "x")))
    async with site.edged() as manager:
        await until("it runs", lambda: site.phase("a") == "Running")
        site.meta.connected = False
        asked = 0

        def nothing() -> list[bytes]:
            nonlocal asked
            asked += 1
            return []

        site.meta.pods = nothing  # type: ignore[method-assign]
        await until("some rounds", lambda: asked > 3)
        assert [pod.uid for pod, _ in manager.pods()] == ["uid-a"]
        site.meta.connected = True
        await until("it is believed", lambda: not [*manager.pods()])


async def test_a_pod_that_makes_no_sense_any_more_runs_on_until_it_is_deleted(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.meta.put_pod(make_pod("a", container("c", "x")))
    async with site.edged():
        await until("it runs", lambda: site.phase("a") == "Running")
        before = set(site.runtime.containers)
        site.meta.rows["default", "a"]["spec"]["terminationGracePeriodSeconds"] = "soon"
        site.meta.put_pod(site.meta.rows["default", "a"])
        rounds = caplog.text.count("a pod is ignored")
        await until("some rounds", lambda: caplog.text.count("a pod is ignored") > rounds + 3)
        assert set(site.runtime.containers) == before
    async with site.edged():  # as after an update of edgecore
        calls = len(site.runtime.calls)
        await until("it has relisted", lambda: len(site.runtime.calls) > calls + 10)
        assert set(site.runtime.containers) == before
        site.meta.remove_pod("default", "a")
        await until("it is ended", lambda: not site.runtime.sandboxes)
    assert "not those of the database" not in caplog.text
