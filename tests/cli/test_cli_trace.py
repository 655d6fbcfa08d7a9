"""What `edgehive trace` makes of records and sessions."""

from pathlib import Path
from typing import Any

import pytest

from edgehive.cli.trace import default_monitor, merge
from edgehive.wire.objectsync import SyncKey, SyncRecord


def record(node: str, version: str, uid: str = "u1") -> SyncRecord:
    return SyncRecord(SyncKey(node, "default", uid), "v1", "ConfigMap", "c", version=version)


def session(node: str, **fields: Any) -> dict[str, Any]:
    return {"node": node, "meant": True, **fields}


@pytest.mark.parametrize(
    ("records", "sessions", "state"),
    [
        ([record("a", "9")], [], "current"),
        ([record("a", "8")], [], "waits for the node"),
        ([record("a", "8")], [session("a", acknowledged=9)], "current"),
        ([record("a", "8")], [session("a", acknowledged=8, inFlight=9, sends=3)], "sent"),
        ([record("a", "8")], [session("a", acknowledged=7, inFlight=8, queued=[9])], "queued"),
        ([], [session("a")], "not sent"),
        ([record("a", "")], [session("a")], "not sent"),
    ],
)
def test_the_state_of_an_object_that_exists(records: Any, sessions: Any, state: str) -> None:
    (row,) = merge(9, "u1", records, sessions)
    assert row.state == state
    assert row.connected == bool(sessions)


def test_cloudcore_is_looked_for_beside_the_kubeconfig(tmp_path: Path) -> None:
    assert default_monitor("", {"HOME": str(tmp_path)}) == "127.0.0.1:9091"
    for place, port in ((tmp_path / "a", 1), (tmp_path / ".local/state/edgehive", 2)):
        (place / "cloud").mkdir(parents=True)
        text = f"commonConfig: {{monitorServer: {{bindAddress: '127.0.0.1:{port}'}}}}"
        (place / "cloud" / "cloudcore.yaml").write_text(text)
    home = {"HOME": str(tmp_path)}
    assert default_monitor("", home) == "127.0.0.1:2"
    assert default_monitor(f"{tmp_path}/a/kubeconfig", home) == "127.0.0.1:1"
    assert default_monitor("", {**home, "KUBECONFIG": f"{tmp_path}/a/kubeconfig:/other"}) == "127.0.0.1:1"
    assert default_monitor("/elsewhere/kubeconfig", home) == "127.0.0.1:9091"


def test_resends_are_the_sends_after_the_first() -> None:
    (row,) = merge(9, "u1", [], [session("a", inFlight=9, sends=3)])
    assert row.resends == 2


def test_the_states_of_an_object_that_is_gone() -> None:
    rows = merge(
        None,
        "",
        [record("a", "9"), record("b", "9")],
        [session("b", acknowledged=9, deleted="sent"), session("c", acknowledged=9, deleted="acknowledged")],
    )
    assert [row.state for row in rows] == ["delete waits for the node", "delete under way", "deleted"]


def test_a_record_of_an_old_incarnation_is_a_delete_that_waits() -> None:
    (row,) = merge(9, "u2", [record("a", "5", uid="u1")], [])
    assert (row.state, row.recorded) == ("delete waits for the node", None)
