"""What a message asks of Kubernetes."""

import pytest

from edgehive.wire.access import Access, access_of
from edgehive.wire.message import Message


def message(operation: str, resource: str, source: str = "edged") -> Message:
    return Message("1", 1, operation, resource, b"null", source=source, group="meta")


@pytest.mark.parametrize(
    ("operation", "resource", "access"),
    [
        ("insert", "null/node/n", Access("create", "", "nodes", "", "", "n")),
        ("patch", "null/nodepatch/n", Access("patch", "", "nodes", "status", "", "n")),
        ("insert", "null/nodestatus/n", Access("create", "", "nodes", "", "", "n")),
        ("update", "null/nodestatus/n", Access("update", "", "nodes", "status", "", "n")),
        ("delete", "default/pod/p", Access("delete", "", "pods", "", "default", "p")),
        ("patch", "default/podpatch/p", Access("patch", "", "pods", "status", "default", "p")),
        ("query", "default/secret/s", Access("get", "", "secrets", "", "default", "s")),
        (
            "query",
            "default/serviceaccounttoken/a",
            Access("create", "", "serviceaccounts", "token", "default", "a"),
        ),
        ("query", "null/persistentvolume/v", Access("get", "", "persistentvolumes", "", "", "v")),
        (
            "query",
            "default/volumeattachment/v",
            Access("get", "storage.k8s.io", "volumeattachments", "", "", "v"),
        ),
        (
            "update",
            "kube-node-lease/lease/n",
            Access("update", "coordination.k8s.io", "leases", "", "kube-node-lease", "n"),
        ),
        ("insert", "default/event/e", Access("create", "", "events", "", "default", "e")),
        ("insert", "null/event/e", Access("create", "", "events", "", "default", "e")),
    ],
)
def test_each_request_is_an_action(operation: str, resource: str, access: Access) -> None:
    assert access_of(message(operation, resource)) == access


@pytest.mark.parametrize(
    ("operation", "resource", "source"),
    [
        ("keepalive", "node", "websocket"),
        ("response", "default/pod/p", "edgecontroller"),
        ("error", "default/pod/p", "metamanager"),
        ("upload", "topic", "eventbus"),
        ("UpdateNodeActionStatus", "nodejob/j/node/n", "taskmanager"),
        ("query", "default/secret/s", "metaserver"),
        ("update", "device/d/twin/edge_updated", "twin"),
        ("query", "k8s/ca.crt", "metamanager"),
        ("update", "default/podstatus", "edged"),
        ("query", "default/rulestatus/r", "edged"),
        ("dance", "default/pod/p", "edged"),
    ],
)
def test_what_is_kubeedges_own_is_no_action(operation: str, resource: str, source: str) -> None:
    assert access_of(message(operation, resource, source)) is None
