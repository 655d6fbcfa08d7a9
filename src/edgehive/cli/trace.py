"""`edgehive trace KIND/NAME`: where an object stands on its way to the edges."""

import argparse
import asyncio
import http.client
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import yaml

from edgehive.aio.kubeauth import load_kubeconfig
from edgehive.aio.kubeclient import KubeClient
from edgehive.cli.kubeconfig_flag import add_kubeconfig
from edgehive.cli.up_layout import Layout, default_data_dir
from edgehive.kit.errors import ProtocolError, UserError
from edgehive.kube.api import ListOptions, WriteOptions
from edgehive.kube.crd_devices import DEVICE_MODELS, DEVICES
from edgehive.kube.refs import (
    CLUSTEROBJECTSYNCS,
    CONFIGMAPS,
    GVR,
    NODES,
    OBJECTSYNCS,
    PODS,
    SECRETS,
)
from edgehive.kube.status import ApiStatus
from edgehive.wire.objectsync import SyncRecord, parse_sync
from edgehive.wire.outbound import parse_version

_KINDS: dict[str, tuple[str, GVR]] = {
    **dict.fromkeys(("pod", "pods", "po"), ("Pod", PODS)),
    **dict.fromkeys(("configmap", "configmaps", "cm"), ("ConfigMap", CONFIGMAPS)),
    **dict.fromkeys(("secret", "secrets"), ("Secret", SECRETS)),
    **dict.fromkeys(("node", "nodes", "no"), ("Node", NODES)),
    **dict.fromkeys(("device", "devices"), ("Device", DEVICES)),
    **dict.fromkeys(("devicemodel", "devicemodels"), ("DeviceModel", DEVICE_MODELS)),
}
_TIMEOUT = 5.0
_PAGE = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument(
        "object", metavar="KIND/NAME", help="a pod, configmap, secret, node, device or devicemodel"
    )
    parser.add_argument("-n", "--namespace", default="default", help="of the object (default: %(default)s)")
    add_kubeconfig(parser, "whom to ask")
    parser.add_argument(
        "--monitor",
        action="append",
        metavar="HOST:PORT",
        help="a cloudcore's monitor address, repeated for several (default: that of `edgehive up`, "
        "else 127.0.0.1:9091)",
    )
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")


@dataclass(slots=True)
class Row:
    """One node."""

    node: str
    connected: bool = False
    sent: int = 0
    """The newest version that this session has put on the wire."""
    acknowledged: int = 0
    recorded: int | None = None
    """The version in the ObjectSync; ``None`` when there is none."""
    resends: int = 0
    queued: int = 0
    state: str = ""


def run_trace(arguments: argparse.Namespace) -> int:
    """Print where the object stands; 1 if a node does not have its newest version."""
    kind, gvr, namespace, name = _parse(arguments.object, arguments.namespace)
    version, uid, records = asyncio.run(_ask_kubernetes(arguments.kubeconfig, kind, gvr, namespace, name))
    monitors = arguments.monitor or [default_monitor(arguments.kubeconfig, os.environ)]
    sessions: list[dict[str, Any]] = []
    wanted = 0
    problems: list[str] = []
    for monitor in monitors:
        try:
            answer = _ask_cloudcore(monitor, kind.lower(), namespace, name)
            sessions += answer["nodes"]
            wanted = max(wanted, parse_version(answer["wanted"]))
        except (OSError, ValueError, http.client.HTTPException) as exc:
            problems.append(f"cloudcore at {monitor} does not answer: {exc}")
    if version is None and not records and not sessions:
        where = f" in namespace {namespace}" if namespace else ""
        raise UserError(f"there is no {kind.lower()} {name}{where}, and no edge has had one")
    # A pod's own status reports make it newer in Kubernetes, and not for its node.
    rows = merge((wanted or version) if version is not None else None, uid, records, sessions)
    result = {
        "kind": kind,
        "namespace": namespace,
        "name": name,
        "uid": uid,
        "version": version,
        "wanted": wanted or version,
        "nodes": [asdict(row) for row in rows],
        "problems": problems,
    }
    print(json.dumps(result, indent=2) if arguments.output == "json" else _table(result, rows))
    return 0 if all(row.state in ("current", "deleted") for row in rows) and not problems else 1


def merge(
    version: int | None, uid: str, records: list[SyncRecord], sessions: list[dict[str, Any]]
) -> list[Row]:
    """One row a node from what the cluster has recorded and what the sessions know."""
    rows: dict[str, Row] = {}
    gone: set[str] = set()
    for record in records:
        row = rows.setdefault(record.key.node, Row(record.key.node))
        if uid and record.key.uid != uid:
            gone.add(record.key.node)  # of an incarnation that no longer exists
            continue
        row.recorded = parse_version(record.version)
    deleted: dict[str, str] = {}
    for session in sessions:
        row = rows.setdefault(session["node"], Row(session["node"]))
        row.connected = True
        row.acknowledged = max(row.acknowledged, session.get("acknowledged", 0))
        row.sent = max(row.sent, row.acknowledged, session.get("inFlight", 0))
        row.resends = max(0, session.get("sends", 0) - 1)
        row.queued = len(session.get("queued", ()))
        deleted[row.node] = session.get("deleted", "")
    for row in rows.values():
        row.state = _state(row, version, deleted.get(row.node, ""), row.node in gone)
    return sorted(rows.values(), key=lambda row: row.node)


def _state(row: Row, version: int | None, deleted: str, stale_record: bool) -> str:
    if version is None or stale_record:
        if deleted == "acknowledged":
            return "deleted"
        if row.recorded is None and not stale_record:
            return "deleted"
        return "delete under way" if row.connected else "delete waits for the node"
    has = max(row.recorded or 0, row.acknowledged)
    if has >= version:
        return "current"
    if not row.connected:
        return "waits for the node"
    if row.sent >= version:
        return "sent"
    return "queued" if row.queued or row.sent else "not sent"


def _table(result: dict[str, Any], rows: list[Row]) -> str:
    where = f" -n {result['namespace']}" if result["namespace"] else ""
    version = result["version"]
    known = "not in Kubernetes (any more)"
    if version is not None:
        known = f"version {version}, uid {result['uid']}"
        if result["wanted"] != version:
            known += f"; nodes should have {result['wanted']}"
    lines = [f"{result['kind'].lower()}/{result['name']}{where}: {known}"]
    lines += [f"warning: {problem}" for problem in result["problems"]]
    if not rows:
        return "\n".join([*lines, "No node has it or is meant to have it."])
    table = [("NODE", "CONNECTED", "SENT", "ACKNOWLEDGED", "RECORDED", "RESENDS", "STATE")]
    for row in rows:
        recorded = "-" if row.recorded is None else str(row.recorded)
        connected = "yes" if row.connected else "no"
        sent, acknowledged = (str(value) if value else "-" for value in (row.sent, row.acknowledged))
        table.append((row.node, connected, sent, acknowledged, recorded, str(row.resends), row.state))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines += [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
    return "\n".join(lines)


def _parse(text: str, namespace: str) -> tuple[str, GVR, str, str]:
    kind, slash, name = text.partition("/")
    found = _KINDS.get(kind.lower())
    if not slash or not name or found is None:
        raise UserError(
            f"{text!r} cannot be traced",
            hint="say pod/NAME, configmap/NAME, secret/NAME, node/NAME, device/NAME or devicemodel/NAME",
        )
    return found[0], found[1], "" if found[1] == NODES else namespace, name


async def _ask_kubernetes(
    kubeconfig: str, kind: str, gvr: GVR, namespace: str, name: str
) -> tuple[int | None, str, list[SyncRecord]]:
    """The object's version and UID, and its records."""
    version, uid = None, ""
    records: list[SyncRecord] = []
    async with KubeClient(load_kubeconfig(kubeconfig), user_agent="edgehive-trace") as api:
        try:
            meta = msgspec.json.decode(await api.get(gvr, name, WriteOptions(namespace=namespace or None)))
            version = parse_version(meta["metadata"]["resourceVersion"])
            uid = str(meta["metadata"]["uid"])
        except ApiStatus as exc:
            if exc.code != 404:
                raise
        token = ""
        while True:
            options = ListOptions(namespace=namespace or None, limit=_PAGE, continue_token=token)
            try:
                page = await api.list(OBJECTSYNCS if namespace else CLUSTEROBJECTSYNCS, options)
            except ApiStatus as exc:
                if exc.code != 404:
                    raise
                raise UserError(
                    "this cluster has no ObjectSyncs", hint="was cloudcore ever started on it?"
                ) from exc
            records += _matching(page.items, kind, name)
            token = page.continue_token
            if not token:
                return version, uid, records


def _matching(items: Any, kind: str, name: str) -> list[SyncRecord]:
    found = []
    for raw in items:
        try:
            record = parse_sync(raw)
        except ProtocolError:
            continue
        if record.kind.lower() == kind.lower() and record.object_name == name:
            found.append(record)
    return found


def _ask_cloudcore(monitor: str, kind: str, namespace: str, name: str) -> dict[str, Any]:
    host, colon, port = monitor.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError("the address is not HOST:PORT")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_TIMEOUT)
    try:
        query = urlencode({"kind": kind, "namespace": namespace, "name": name})
        connection.request("GET", f"/debug/trace?{query}")
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status == http.client.NOT_FOUND:
        raise ValueError("it has no /debug/trace, so it is not an edgehive cloudcore")
    if response.status != http.client.OK:
        raise ValueError(f"it answers {response.status}")
    answer: dict[str, Any] = json.loads(body)
    return answer


def default_monitor(kubeconfig: str, environ: Mapping[str, str]) -> str:
    """That of the `edgehive up` whose kubeconfig is used, or KubeEdge's default."""
    named = kubeconfig or environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    layout = Layout(Path(named).absolute().parent) if named else Layout(default_data_dir(environ))
    try:
        config = yaml.safe_load((layout.cloud / "cloudcore.yaml").read_text(encoding="utf-8"))
        return str(config["commonConfig"]["monitorServer"]["bindAddress"])
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return "127.0.0.1:9091"
