"""Which messages are kept until they are acknowledged."""

import pytest

from edgehive.wire.classify import requires_ack
from edgehive.wire.message import Message


def message(
    operation: str,
    resource: str,
    source: str = "edgecontroller",
    group: str = "resource",
    content: bytes = b"{}",
) -> Message:
    return Message("i", 1, operation, resource, content, source=source, group=group)


ACK = [
    ("insert", "default/pod/p", "edgecontroller"),
    ("update", "default/pod/p", "edgecontroller"),
    ("delete", "default/pod/p", "edgecontroller"),
    ("update", "null/node/e1", "edgecontroller"),
    ("insert", "default/configmap/c", "edgecontroller"),
    ("delete", "default/secret/s", "edgecontroller"),
    ("insert", "default/device/d", "devicecontroller"),
    ("insert", "default/devicemodel/m", "devicecontroller"),
    ("update", "default/serviceaccountaccess/a", "policycontroller"),
    ("insert", "null/namespace/n", "dynamiccontroller"),
    ("response", "default/configmap/c", "edgecontroller"),
    ("response", "default/secret/s", "edgecontroller"),
    ("response", "null/persistentvolume/v", "edgecontroller"),
    ("response", "default/volumeattachment/v", "edgecontroller"),
]
NO_ACK = [
    ("response", "default/pod/p", "edgecontroller"),
    ("response", "default/podpatch/p", "edgecontroller"),
    ("response", "null/nodepatch/e1", "edgecontroller"),
    ("response", "null/node/e1", "edgecontroller"),
    ("delete", "null/node/e1", "edgecontroller"),
    ("response", "kube-node-lease/lease/e1", "edgecontroller"),
    ("response", "default/serviceaccounttoken/sa", "edgecontroller"),
    ("response", "default/certificatesigningrequest/x", "edgecontroller"),
    ("response", "k8s/ca.crt", "cloudhub"),
    ("applicationResponse", "ignore/Application/ignore", "edgecontroller"),
    ("createvolume", "default/volume/v", "cloudhub"),
    ("Check", "operations.kubeedge.io/v1alpha2/nodeupgradejob/j/node/e1", "taskmanager"),
    ("update", "default/pod/p", "taskmanager"),
    ("upgrade", "default/pod/p", "nodeupgradejobcontroller"),
]


@pytest.mark.parametrize(("operation", "resource", "source"), ACK)
def test_kept(operation: str, resource: str, source: str) -> None:
    assert requires_ack(message(operation, resource, source))


@pytest.mark.parametrize(("operation", "resource", "source"), NO_ACK)
def test_fired_once(operation: str, resource: str, source: str) -> None:
    assert not requires_ack(message(operation, resource, source))


def test_other_groups_are_fired_once() -> None:
    assert not requires_ack(message("update", "membership", "devicecontroller", "twin"))
    assert not requires_ack(message("publish", "some/topic/x", "router_eventbus", "user"))


def test_ok_and_errors_need_no_ack() -> None:
    assert not requires_ack(message("response", "default/configmap/c", content=b'"OK"'))
    error = b'{"ErrStatus":{"code":404}}'
    assert not requires_ack(message("response", "default/configmap/c", content=error))


@pytest.mark.parametrize("name", ["membership-list", "podlist", "serviceaccounttoken-x", "my-k8s-ca"])
def test_a_name_does_not_cost_an_object_its_guarantee(name: str) -> None:
    """KubeEdge decides by substrings of the whole resource."""
    assert requires_ack(message("update", f"default/configmap/{name}"))
    assert requires_ack(message("update", f"{name}/configmap/x"))
