"""The recorded life of a device against a cloudcore of ours over the embedded API server's registry."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
import replay
from test_replay_cloudcore import load_lab

from edgehive.kube.crd_devices import DEVICE_MODELS, DEVICE_STATUSES, DEVICES
from tests.support.realapi import RealApi

SOURCE = replay.RECORDED / "ws.jsonl.gz"
DEVICE = "default/device/thermo-1"
MODEL = "default/devicemodel/thermo-model"

pytestmark = pytest.mark.skipif(not SOURCE.exists(), reason="the recorded sessions are not on this machine")


def desired(recorded: dict[str, Any]) -> dict[str, Any]:
    """What an administrator had applied to get the object that was recorded."""
    meta = recorded["content"]["metadata"]
    kept = {key: meta[key] for key in ("name", "namespace", "labels") if key in meta}
    return {"metadata": kept, "spec": recorded["content"]["spec"]}


def shape(message: Any) -> dict[str, Any]:
    """What must be the same in every run."""
    if not isinstance(message, dict):
        message = {
            "route": {
                "source": message.source,
                "group": message.group,
                "operation": message.operation,
                "resource": message.resource,
            },
            "header": {"resourceversion": message.resource_version} if message.resource_version else {},
            "content": json.loads(message.content),
        }
    content = message["content"]
    if isinstance(content, dict) and "metadata" in content:
        content = {**content, "metadata": {k: content["metadata"].get(k) for k in ("name", "namespace")}}
        content.pop("status", None)
    elif isinstance(content, dict):
        content = {k: v for k, v in content.items() if k not in ("event_id", "timestamp")}
    return {
        "route": message["route"],
        "versioned": "resourceversion" in message["header"],
        "content": content,
    }


async def test_a_device_lives_as_it_did_with_the_original(tmp_path: Path) -> None:
    connection = next(c for c in replay.read_connections(SOURCE) if any("thermo" in str(m) for m in c.down()))
    theirs = [m for m in connection.down() if m["route"]["source"] == "devicecontroller"]
    sent = [m for m in theirs if m["route"]["resource"] in (MODEL, DEVICE)]
    assert [m["route"]["operation"] for m in sent] == ["insert", "insert", "update"]
    api = RealApi()
    await api.open()
    lab = load_lab().Lab(api, tmp_path)
    try:
        await lab.start(lab.make_config(devices={"statusInterval": 0.05, "summary": False}))
        edge = await lab.edge(connection.node)
        for recorded, gvr in ((sent[0], DEVICE_MODELS), (sent[1], DEVICES)):
            await api.put(gvr, desired(recorded))
        for recorded in [m for m in theirs[:3] if m["route"]["operation"] != "response"]:
            found = await edge.wait(lambda m, r=recorded: m.resource == r["route"]["resource"])
            assert shape(found) == shape(recorded)
        answers = {m["header"].get("parent_msg_id"): m for m in theirs}
        reports = [m for m in connection.up() if m["route"]["source"] == "twin"]
        compared = 0
        for message in reports:
            answered = answers.get(message["header"]["msg_id"])
            if answered is None:
                continue  # the question for all devices, which the original leaves open
            again = json.loads(json.dumps(message))
            again["header"]["msg_id"] = asked = str(uuid.uuid4())
            await edge.socket.send(replay.frame(again), text=True)
            reply = await edge.wait(lambda m, asked=asked: m.parent_id == asked)
            assert shape(reply) == shape(answered)
            compared += 1
        assert compared == 4
        status = api.find(DEVICE_STATUSES, "default", "thermo-1")["status"]
        [temperature] = status["twins"]
        assert (temperature["reported"]["value"], temperature["observedDesired"]["value"]) == ("28", "44")
        assert (status["state"], status["lastOnlineTime"]) == ("online", "2026-11-24T03:35:12Z")
        await api.put(DEVICES, desired(sent[2]))
        found = await edge.wait(lambda m: m.resource == DEVICE and m.operation == "update")
        assert shape(found) == shape(sent[2])
        last = next(m for m in connection.up() if m["route"]["resource"] == "membership/detail")
        await edge.socket.send(replay.frame(last), text=True)  # answered by ours: the faults table says why
        await edge.wait(lambda m: m.resource == "membership/detail")
    finally:
        await lab.close()
        await api.close()
