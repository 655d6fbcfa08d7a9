"""Static pods and their mirrors, and events, through a real cloudcore and kubectl."""

import json
import os
import signal
from typing import Any

import pytest

from tests.support.installation import Installation, eventually, is_ready
from tests.support.manifests import LOOP, pod

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def write(made: Installation, name: str, script: str = LOOP) -> None:
    """Put a manifest where edgecore looks; JSON is YAML too."""
    directory = made.layout.edge("edge-1") / "manifests"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.yaml").write_text(json.dumps(pod(name, script)))


def mirror(made: Installation, name: str) -> dict[str, Any]:
    """The mirror pod once it is ready."""

    def found() -> Any:
        body = made.get("pods", f"--field-selector=metadata.name={name}-edge-1")["items"]
        return body and is_ready(body[0]) and body[0]

    return eventually(found, what=f"the mirror of {name} is ready")  # type: ignore[no-any-return]


def test_a_static_pod_has_a_mirror_that_cannot_hurt_it(up: Installation) -> None:
    write(up, "fixed")
    first = mirror(up, "fixed")
    notes = first["metadata"]["annotations"]
    assert notes["kubernetes.io/config.source"] == "file"
    assert notes["kubernetes.io/config.mirror"] == notes["kubernetes.io/config.hash"]
    (owner,) = first["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("Node", "edge-1")
    assert owner["uid"] == up.get("node", "edge-1")["metadata"]["uid"]
    assert up.kubectl("logs", "fixed-edge-1") == "started\n"
    assert up.kubectl("exec", "fixed-edge-1", "--", "echo", "inside") == "inside\n"
    up.kubectl("delete", "pod", "fixed-edge-1", "--grace-period=0", "--force")
    eventually(
        lambda: mirror(up, "fixed")["metadata"]["uid"] != first["metadata"]["uid"], what="it is there again"
    )
    second = mirror(up, "fixed")
    ids = [one["status"]["containerStatuses"][0]["containerID"] for one in (first, second)]
    assert ids[0] == ids[1], "what runs did not notice"


def test_a_changed_manifest_is_followed_and_a_removed_one_ends_both(up: Installation) -> None:
    write(up, "moving", f"echo one; {LOOP}")
    first = mirror(up, "moving")
    write(up, "moving", f"echo two; {LOOP}")
    eventually(lambda: "two" in up.kubectl("logs", "moving-edge-1", check=False), what="the new one runs")
    assert mirror(up, "moving")["metadata"]["uid"] != first["metadata"]["uid"]
    (up.layout.edge("edge-1") / "manifests" / "moving.yaml").unlink()
    eventually(lambda: "moving-edge-1" not in up.kubectl("get", "pods"), what="the mirror is gone")


def test_a_manifest_written_while_the_cloud_is_away_runs_and_is_mirrored_later(up: Installation) -> None:
    cloudcore = up.pid("cloudcore")
    os.kill(cloudcore, signal.SIGSTOP)
    try:
        write(up, "lonely", f"echo alone; {LOOP}")
        logs = up.layout.edge("edge-1") / "pod-logs"
        eventually(
            lambda: any("alone" in log.read_text() for log in logs.glob("default_lonely-edge-1_*/*/*.log")),
            what="it runs without a cloud",
        )
    finally:
        os.kill(cloudcore, signal.SIGCONT)
    assert mirror(up, "lonely")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_the_same_event_again_is_counted_and_many_are_combined(up: Installation) -> None:
    failing = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    up.apply(pod("sick", LOOP, container={"readinessProbe": failing}))

    def events(reason: str) -> list[dict[str, Any]]:
        selector = f"involvedObject.name=sick,reason={reason}"
        return list(up.get("events", f"--field-selector={selector}")["items"])

    eventually(lambda: events("Unhealthy") and events("Unhealthy")[0]["count"] >= 5, what="it was counted")
    (only,) = events("Unhealthy")
    assert only["firstTimestamp"] < only["lastTimestamp"]
    assert "Readiness probe failed" in only["message"]
    # Each of these differs in its text: the probe's own words are in it.
    failing["exec"]["command"] = ["sh", "-c", "cat /proc/uptime; exit 1"]  # type: ignore[index]
    up.kubectl("delete", "pod", "sick")
    up.apply(pod("sick", LOOP, container={"readinessProbe": failing}))
    eventually(
        lambda: any(
            one["message"].startswith("(combined from similar events)") for one in events("Unhealthy")
        ),
        what="many of a kind are one",
        seconds=40,
    )
    assert len(events("Unhealthy")) <= 12, "the one of before, ten, and one for all the others"
    up.kubectl("delete", "pod", "sick")
