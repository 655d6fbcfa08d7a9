"""What the gate of MetaServer makes of a ServiceAccountAccess."""

import json
from pathlib import Path

import pytest

from edgehive.apiserver.context import User
from edgehive.edge.metaserver_auth import AuthSettings, Gate
from edgehive.edge.store import EdgeStore
from edgehive.kube.rules import Attributes
from edgehive.wire.rows import Put, Row

APP = User("system:serviceaccount:home:app", ("system:serviceaccounts", "system:authenticated"))


def binding(namespace: str, *verbs: str) -> dict:
    rule = {"verbs": list(verbs), "apiGroups": [""], "resources": ["configmaps"]}
    return {"roleBinding": {"metadata": {"name": "b", "namespace": namespace}}, "rules": [rule]}


@pytest.fixture
def gate(tmp_path: Path):
    store = EdgeStore(tmp_path / "edge.db")
    access = {
        "metadata": {"name": "app", "namespace": "home"},
        "spec": {
            "serviceAccount": {"metadata": {"name": "app", "namespace": "home", "uid": "u"}},
            "serviceAccountUid": "u",
            "accessRoleBinding": [binding("home", "get"), binding("away", "list")],
        },
    }
    row = Row("home/serviceaccountaccess/app", "serviceaccountaccess", json.dumps(access).encode())
    store.apply([Put(row)])
    yield Gate(settings=AuthSettings("n", ("iss",)), store=store, verify=None, wall=lambda: 0.0)
    store.close()


def test_a_binding_counts_in_its_own_namespace_whatever_that_of_the_account_is(gate: Gate):
    assert gate.allows(APP, Attributes("get", resource="configmaps", namespace="home", name="c"))
    assert gate.allows(APP, Attributes("list", resource="configmaps", namespace="away"))
    assert not gate.allows(APP, Attributes("list", resource="configmaps", namespace="home"))
    assert not gate.allows(APP, Attributes("get", resource="configmaps", namespace="away", name="c"))
    assert not gate.allows(APP, Attributes("list", resource="configmaps"))
    assert not gate.allows(User("system:serviceaccount:home:other"), Attributes("get", resource="configmaps"))
