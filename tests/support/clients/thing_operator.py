"""A controller written against plain Kubernetes: for each Thing it keeps a ConfigMap with what the Thing says."""

import kopf
import kubernetes


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_):
    settings.persistence.finalizer = "clients.example.com/operator"
    settings.posting.enabled = False


@kopf.on.create("clients.example.com", "v1", "things")
@kopf.on.update("clients.example.com", "v1", "things")
@kopf.on.resume("clients.example.com", "v1", "things")
def keep(spec, name, namespace, patch, logger, **_):
    """Make the ConfigMap equal to the Thing, and say so in its status."""
    core = kubernetes.client.CoreV1Api()
    body = kubernetes.client.V1ConfigMap(
        metadata=kubernetes.client.V1ObjectMeta(name=f"of-{name}"), data={"v": spec["v"]}
    )
    try:
        core.replace_namespaced_config_map(f"of-{name}", namespace, body)
    except kubernetes.client.ApiException as exc:
        if exc.status != 404:
            raise kopf.TemporaryError(f"the API said {exc.status}", delay=1) from exc
        core.create_namespaced_config_map(namespace, body)
    patch.status["seen"] = spec["v"]
    logger.info("kept %s", spec["v"])
