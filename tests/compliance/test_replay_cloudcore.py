"""The recorded edge against a whole cloudcore of ours: real sockets, an API server in memory, every answer compared."""

import importlib.util
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import replay
from replay import Connection, read_connections

from edgehive.kube.refs import CONFIGMAPS, LEASES, NODES, PODS, SECRETS, SERVICEACCOUNTS

TESTS = Path(__file__).parents[1]
SOURCES = [*replay.WRITTEN, *sorted(replay.RECORDED.glob("ws.jsonl.gz"))]
ASKED_OF_KUBERNETES = {"query", "insert", "update", "patch", "delete"}
PLURALS = {"configmap": CONFIGMAPS, "secret": SECRETS, "pod": PODS, "node": NODES}


def load_lab() -> Any:
    """The cloudcore of the cloud tests (`tests/cloud/conftest.py`)."""
    sys.path.insert(0, str(TESTS / "support"))
    spec = importlib.util.spec_from_file_location("cloud_lab", TESTS / "cloud" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def prepare(api: Any, request: dict[str, Any], answer: dict[str, Any], connection: Connection) -> None:
    """Give the API server what it must have had when the recorded answer was made."""
    namespace, kind, name = request["route"]["resource"].split("/")
    content = answer["content"]
    if kind in ("configmap", "secret") and "metadata" in content:
        api.put(PLURALS[kind], json.loads(json.dumps(content)))
    elif kind == "serviceaccounttoken" and api.find(SERVICEACCOUNTS, namespace, name) is None:
        api.put(SERVICEACCOUNTS, {"metadata": {"name": name, "namespace": namespace}})
    elif kind in ("podpatch", "pod"):
        known = [m for m in connection.down() if m["route"]["resource"] == f"{namespace}/pod/{name}"]
        pods = [m["content"] for m in known if isinstance(m["content"], dict)]
        if pods and api.find(PODS, namespace, name) is None:
            api.put(PODS, json.loads(json.dumps(pods[0])))
    elif kind == "node":
        refused = isinstance(content, dict) and content.get("Err") is not None
        if refused and api.find(NODES, "", name) is None:
            api.put(NODES, {"metadata": {"name": name}})


def renew(api: Any, message: dict[str, Any], answer: dict[str, Any]) -> None:
    """Versions are of the day: a lease that was renewed with success is renewed over the version there is now."""
    namespace, kind, name = message["route"]["resource"].split("/")
    held = api.find(LEASES, namespace, name) if kind == "lease" else None
    if held is not None and message["content"] and not answer["content"].get("Err"):
        message["content"]["metadata"]["resourceVersion"] = held["metadata"]["resourceVersion"]


def outline(message: dict[str, Any]) -> dict[str, Any]:
    """What must be the same in every run."""
    content = message["content"]
    found: dict[str, Any] = {
        "route": message["route"],
        "versioned": "resourceversion" in message["header"],
        "content": content if isinstance(content, str) else sorted(content),
    }
    if isinstance(content, dict):
        error = (
            (content.get("Err") or content).get("ErrStatus")
            if "Err" in content or "ErrStatus" in content
            else None
        )
        if error:
            found["error"] = {key: error[key] for key in ("status", "reason", "code")}
        inner = content.get("Object", content) or {}
        meta = inner.get("metadata", {})
        # What comes with an error is an empty object in the original; a token's name is the API server's doing.
        nameless = error or inner.get("kind") == "TokenRequest"
        found["name"] = None if nameless else (meta.get("name"), meta.get("namespace"))
        if "data" in inner:
            found["data"] = inner["data"]
        if not error:
            found["kinds"] = (inner.get("kind"), inner.get("apiVersion")) if "Object" not in content else None
    return found


def exchanges(connections: list[Connection]) -> list[tuple[Connection, dict[str, Any], dict[str, Any]]]:
    found = []
    for connection in connections:
        answers = {m["header"].get("parent_msg_id"): m for m in connection.down()}
        for message in connection.up():
            route, answer = message["route"], answers.get(message["header"]["msg_id"])
            if (
                answer is None
                or route.get("source") != "edged"
                or route["operation"] not in ASKED_OF_KUBERNETES
            ):
                continue
            if not is_formless(answer["content"]):
                found.append((connection, message, answer))
    return found


def is_formless(content: Any) -> bool:
    """A Go error in place of a Status (the API server could not be reached), which its own edge takes for success."""
    error = content.get("Err") if isinstance(content, dict) else None
    return error is not None and "ErrStatus" not in error


# This compares answers; that nothing is left open is what the cloud tests check.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name.split(".")[0])
async def test_every_request_is_answered_as_the_original_answers(path: Path, tmp_path: Path) -> None:
    module = load_lab()
    api = module.FakeApi()
    lab = module.Lab(api, tmp_path)
    compared = 0
    try:
        await lab.start()
        connections = read_connections(path)
        edge = await lab.edge(connections[0].node)
        edge.auto_ack = True
        for connection, recorded, theirs in exchanges(connections):
            prepare(api, recorded, theirs, connection)
            message = json.loads(json.dumps(recorded))
            message["header"]["msg_id"] = request_id = str(uuid.uuid4())
            renew(api, message, theirs)
            await edge.socket.send(replay.frame(message), text=True)
            answer = await edge.wait(lambda m, wanted=request_id: m.parent_id == wanted, timeout=20.0)
            ours = next(f for f in map(json.loads, edge.frames) if f["header"]["msg_id"] == answer.id)
            assert outline(ours) == outline(theirs), recorded["route"]
            compared += 1
    finally:
        await lab.close()
    assert compared >= 8
