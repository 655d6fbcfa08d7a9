"""Hostile bodies: whatever comes, the answer is a Status, and the store is as before or has a valid object."""

import asyncio
import copy
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgehive.kube.status import ApiStatus

POD = {
    "metadata": {"name": "p", "labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["x/y"]},
    "spec": {
        "serviceAccountName": "default",
        "priorityClassName": "system-node-critical",
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "imagePullSecrets": [{"name": "s"}],
        "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
        "containers": [
            {
                "name": "c",
                "image": "i",
                "ports": [{"containerPort": 80}],
                "env": [{"name": "E", "value": "v"}],
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
            }
        ],
    },
    "status": {"phase": "Running"},
}
SERVICE = {
    "metadata": {"name": "s", "namespace": "default"},
    "spec": {
        "type": "NodePort",
        "ports": [{"port": 80, "nodePort": 30001}],
        "clusterIP": "",
        "selector": {"a": "b"},
    },
}
NAMESPACE = {"metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}}
SECRET = {"metadata": {"name": "s"}, "data": {"a": "YQ=="}, "stringData": {"b": "c"}, "type": "Opaque"}
DEPLOYMENT = {
    "metadata": {
        "name": "d",
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}],
    },
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"a": "b"}},
        "template": POD,
        "strategy": {"type": "Recreate"},
    },
}
CRD = {
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": ".spec.a"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}},
            }
        ],
    },
}
VALID = {
    "pods": POD,
    "services": SERVICE,
    "namespaces": NAMESPACE,
    "secrets": SECRET,
    "deployments": DEPLOYMENT,
    "customresourcedefinitions": CRD,
}

junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(["", "default", "None", "10.96.0.1", "999", "-1"]),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=3), st.just({})), max_size=2),
    st.dictionaries(st.text(max_size=4), st.one_of(st.none(), st.integers(), st.just([])), max_size=2),
)


def paths(value, at=()):
    yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, (*at, index))


@st.composite
def mutated(draw):
    resource = draw(st.sampled_from(sorted(VALID)))
    body = copy.deepcopy(VALID[resource])
    for _ in range(draw(st.integers(0, 2))):
        path = draw(st.sampled_from([p for p in paths(body) if p]))
        target = body
        for key in path[:-1]:
            target = target[key]
        if draw(st.booleans()):
            target[path[-1]] = draw(junk)
        elif isinstance(target, dict):
            del target[path[-1]]
        if not isinstance(body, dict):
            break
    return resource, body


async def attempt(work) -> bool:
    try:
        await work
    except ApiStatus as exc:
        return refusal(exc)
    return True


def refusal(status: ApiStatus) -> bool:
    assert 400 <= status.code < 500, status.message
    json.dumps(status.to_dict())
    return False


@settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
@given(sample=mutated(), patch=mutated(), kind=st.sampled_from(["merge", "strategic", "apply", "json"]))
def test_any_body_is_stored_or_refused(new_cluster, sample, patch, kind):
    async def run() -> None:
        cluster = new_cluster()
        await cluster.storage.open()
        await cluster.create("namespaces", {"metadata": {"name": "default"}})
        resource, body = sample
        name = (VALID[resource])["metadata"]["name"]
        await attempt(cluster.create(resource, copy.deepcopy(body)))
        _, change = patch
        if kind == "json":
            change = [{"op": "replace", "path": "/spec", "value": change.get("spec")}]
        await attempt(cluster.patch(resource, name, change, kind, force=kind == "apply"))
        if isinstance(body.get("metadata"), dict):
            body["metadata"]["name"] = name
            await attempt(cluster.update(resource, copy.deepcopy(body)))
        await attempt(
            cluster.patch(f"{resource}/status", name, {"status": change})
            if resource != "secrets"
            else _none()
        )
        for raw in cluster.page(resource, namespace="").items:
            json.loads(raw)
        await attempt(cluster.delete(resource, name))
        await cluster.storage.close()

    asyncio.run(run())


async def _none() -> None:
    return None


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    body=st.one_of(junk, mutated().map(lambda sample: sample[1])),
    sub=st.sampled_from(["scale", "binding", "token", "eviction"]),
)
def test_any_body_of_a_subresource_is_answered(new_cluster, body, sub):
    async def run() -> None:
        cluster = new_cluster()
        await cluster.storage.open()
        await cluster.create("namespaces", {"metadata": {"name": "default"}})
        await cluster.create("pods", copy.deepcopy(POD))
        await cluster.create("deployments", copy.deepcopy(DEPLOYMENT))
        subs, body_ = (
            cluster.subresources,
            body
            if isinstance(body, dict)
            else {"spec": body, "target": body, "metadata": body, "deleteOptions": body},
        )
        match sub:
            case "scale":
                await attempt(subs.put_scale(cluster.call("deployments/scale", "d"), body_))
                await attempt(
                    subs.patch_scale(
                        cluster.call("deployments/scale", "d"),
                        json.dumps(body_).encode(),
                        "application/merge-patch+json",
                    )
                )
            case "binding":
                await attempt(subs.bind(cluster.call("pods/binding", "p"), body_))
            case "eviction":
                await attempt(subs.evict(cluster.call("pods/eviction", "p"), body_))
            case "token":
                await attempt(subs.issue_token(cluster.call("serviceaccounts/token", "default"), body_))
        await cluster.storage.close()

    asyncio.run(run())
