"""Kubernetes objects of the end-to-end tests; they run in containers and as host processes."""

from typing import Any

LOOP = 'trap exit TERM; echo started; while :; do sleep 100000 & wait "$!"; done'


def pod_template(name: str, script: str = LOOP, **spec: Any) -> dict[str, Any]:
    """A template with one busybox container."""
    container = {
        "name": "main",
        "image": "busybox:1.36",
        "command": ["sh", "-c", script],
        **spec.pop("container", {}),
    }
    return {
        "metadata": {"labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 2, "containers": [container], **spec},
    }


def deployment(name: str, replicas: int = 1, script: str = LOOP, **spec: Any) -> dict[str, Any]:
    """A Deployment."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": pod_template(name, script, **spec),
        },
    }


def daemonset(name: str, script: str = LOOP, **spec: Any) -> dict[str, Any]:
    """A DaemonSet."""
    body = deployment(name, script=script, **spec)
    del body["spec"]["replicas"]
    return body | {"kind": "DaemonSet"}


def pod(name: str, script: str = LOOP, **spec: Any) -> dict[str, Any]:
    """A bare pod."""
    body = pod_template(name, script, **spec)
    body["metadata"]["name"] = name
    return {"apiVersion": "v1", "kind": "Pod", **body}


def configmap(name: str, **data: str) -> dict[str, Any]:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def mounted(kind: str, name: str, path: str) -> dict[str, Any]:
    """What a template needs for one configMap or secret volume at `path`."""
    source = {"configMap": {"name": name}} if kind == "configMap" else {"secret": {"secretName": name}}
    return {
        "volumes": [{"name": "data", **source}],
        "container": {"volumeMounts": [{"name": "data", "mountPath": path}]},
    }
