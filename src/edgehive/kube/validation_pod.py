"""Pods and pod templates: what their spec must fulfil, and what of it may change."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from edgehive.kube import fielderror as err
from edgehive.kube.fielderror import FieldError
from edgehive.kube.names import (
    config_key_problem,
    env_name_problem,
    is_ip,
    label_value_problem,
    name_problem,
    port_name_problem,
    qualified_name_problem,
)
from edgehive.kube.quantity import parse_quantity

Object = Mapping[str, Any]

_PULL = ("Always", "IfNotPresent", "Never")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_OPERATORS = ("DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn")
_EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")
_VOLUME_KINDS = frozenset(
    "awsElasticBlockStore azureDisk azureFile cephfs cinder configMap csi downwardAPI emptyDir ephemeral fc "
    "flexVolume flocker gcePersistentDisk gitRepo glusterfs hostPath image iscsi nfs persistentVolumeClaim "
    "photonPersistentDisk portworxVolume projected quobyte rbd scaleIO secret storageos vsphereVolume".split()
)
_HOST_PATH_TYPES = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)


def objects(value: Any) -> list[Object]:
    """Return the objects in a list; anything else is empty (the schema has reported it)."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def validate_pod_spec(spec: Object, path: str) -> list[FieldError]:
    """Return what is wrong with a pod spec whose defaults are filled in."""
    errors: list[FieldError] = []
    volumes = _validate_volumes(spec, path, errors)
    if not spec.get("containers"):
        errors.append(err.required(f"{path}.containers"))
    names: set[str] = set()
    for where, container, init in _containers(spec, path):
        _validate_container(container, where, volumes, names, errors, init=init)
    _choice(spec, "restartPolicy", path, ("Always", "OnFailure", "Never"), errors)
    _choice(spec, "dnsPolicy", path, ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"), errors)
    _validate_numbers(spec, path, errors)
    _validate_scheduling(spec, path, errors)
    for key, form in (
        ("nodeName", "subdomain"),
        ("serviceAccountName", "subdomain"),
        ("hostname", "label"),
        ("subdomain", "label"),
        ("priorityClassName", "subdomain"),
        ("runtimeClassName", "subdomain"),
    ):
        if (value := spec.get(key)) and (problem := name_problem(form, str(value))):
            errors.append(err.invalid_value(f"{path}.{key}", value, problem))
    for index, alias in enumerate(objects(spec.get("hostAliases"))):
        if not is_ip(str(alias.get("ip") or "")):
            errors.append(
                err.invalid_value(
                    f"{path}.hostAliases[{index}].ip", alias.get("ip"), "must be a valid IP address"
                )
            )
    dns = spec.get("dnsConfig")
    if spec.get("dnsPolicy") == "None" and not (isinstance(dns, Mapping) and dns.get("nameservers")):
        errors.append(
            err.required(
                f"{path}.dnsConfig.nameservers",
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            )
        )
    return errors


def _containers(spec: Object, path: str) -> Iterator[tuple[str, Object, bool]]:
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(objects(spec.get(key))):
            yield f"{path}.{key}[{index}]", container, key == "initContainers"


def _choice(obj: Object, key: str, path: str, allowed: tuple[str, ...], errors: list[FieldError]) -> None:
    value = obj.get(key)
    if value is not None and value not in allowed:
        errors.append(err.not_supported(f"{path}.{key}", value, allowed))


def _validate_numbers(spec: Object, path: str, errors: list[FieldError]) -> None:
    grace = spec.get("terminationGracePeriodSeconds")
    if isinstance(grace, int) and grace < 0:
        errors.append(
            err.invalid_value(
                f"{path}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0"
            )
        )
    deadline = spec.get("activeDeadlineSeconds")
    if isinstance(deadline, int) and not 1 <= deadline < 2**31:
        errors.append(
            err.invalid_value(
                f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive"
            )
        )


def _validate_container(
    container: Object,
    path: str,
    volumes: Mapping[str, Object],
    names: set[str],
    errors: list[FieldError],
    *,
    init: bool,
) -> None:
    name = container.get("name")
    if not name:
        errors.append(err.required(f"{path}.name"))
    elif problem := name_problem("label", str(name)):
        errors.append(err.invalid_value(f"{path}.name", name, problem))
    elif name in names:
        errors.append(err.duplicate(f"{path}.name", name))
    names.add(str(name))
    image = container.get("image")
    if not image:
        errors.append(err.required(f"{path}.image"))
    elif str(image) != str(image).strip():
        errors.append(
            err.invalid_value(f"{path}.image", image, "must not have leading or trailing whitespace")
        )
    _choice(container, "imagePullPolicy", path, _PULL, errors)
    _choice(container, "terminationMessagePolicy", path, ("FallbackToLogsOnError", "File"), errors)
    if init:
        _choice(container, "restartPolicy", path, ("Always",), errors)
    _validate_ports(container, path, errors)
    _validate_env(container, path, errors)
    _validate_mounts(container, path, volumes, errors)
    validate_resources(container.get("resources"), f"{path}.resources", errors)
    sidecar = init and container.get("restartPolicy") == "Always"
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(key)
        if isinstance(probe, Mapping):
            if init and not sidecar:
                errors.append(
                    err.forbidden(
                        f"{path}.{key}", "may not be set for init containers without restartPolicy=Always"
                    )
                )
            _validate_probe(probe, f"{path}.{key}", errors, readiness=key == "readinessProbe")
    lifecycle = container.get("lifecycle")
    for key in ("postStart", "preStop"):
        handler = lifecycle.get(key) if isinstance(lifecycle, Mapping) else None
        if isinstance(handler, Mapping):
            _validate_handler(handler, f"{path}.lifecycle.{key}", errors)


def _validate_ports(container: Object, path: str, errors: list[FieldError]) -> None:
    seen: set[str] = set()
    for index, port in enumerate(objects(container.get("ports"))):
        where = f"{path}.ports[{index}]"
        name = port.get("name")
        if name:
            if problem := port_name_problem(str(name)):
                errors.append(err.invalid_value(f"{where}.name", name, problem))
            elif name in seen:
                errors.append(err.duplicate(f"{where}.name", name))
            seen.add(name)
        number = port.get("containerPort")
        if not number:
            errors.append(err.required(f"{where}.containerPort"))
        elif not is_port(number):
            errors.append(
                err.invalid_value(f"{where}.containerPort", number, "must be between 1 and 65535, inclusive")
            )
        if port.get("hostPort") and not is_port(port["hostPort"]):
            errors.append(
                err.invalid_value(
                    f"{where}.hostPort", port["hostPort"], "must be between 1 and 65535, inclusive"
                )
            )
        _choice(port, "protocol", where, _PROTOCOLS, errors)


def is_port(value: Any) -> bool:
    """Tell whether `value` is a port number."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535


def _validate_env(container: Object, path: str, errors: list[FieldError]) -> None:
    for index, env in enumerate(objects(container.get("env"))):
        where = f"{path}.env[{index}]"
        name = env.get("name")
        if not name:
            errors.append(err.required(f"{where}.name"))
        elif problem := env_name_problem(str(name)):
            errors.append(err.invalid_value(f"{where}.name", name, problem))
        source = env.get("valueFrom")
        if not isinstance(source, Mapping):
            continue
        chosen = [key for key, value in source.items() if value is not None]
        if env.get("value"):
            errors.append(
                err.invalid_value(f"{where}.valueFrom", "", "may not be specified when `value` is not empty")
            )
        elif len(chosen) != 1:
            detail = (
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
            )
            more = "may not have more than one field specified at a time"
            errors.append(err.invalid_value(f"{where}.valueFrom", "", more if chosen else detail))
        for key in ("configMapKeyRef", "secretKeyRef"):
            ref = source.get(key)
            if isinstance(ref, Mapping) and not ref.get("key"):
                errors.append(err.required(f"{where}.valueFrom.{key}.key"))
    for index, source in enumerate(objects(container.get("envFrom"))):
        where = f"{path}.envFrom[{index}]"
        refs = [key for key in ("configMapRef", "secretRef") if isinstance(source.get(key), Mapping)]
        if len(refs) != 1:
            detail = "must specify one of: `configMapRef` or `secretRef`"
            errors.append(
                err.invalid_value(
                    where, "", "may not have more than one field specified at a time" if refs else detail
                )
            )
        for key in refs:
            if not source[key].get("name"):
                errors.append(err.required(f"{where}.{key}.name"))


def _validate_mounts(
    container: Object, path: str, volumes: Mapping[str, Object], errors: list[FieldError]
) -> None:
    paths: set[str] = set()
    for index, mount in enumerate(objects(container.get("volumeMounts"))):
        where = f"{path}.volumeMounts[{index}]"
        name = mount.get("name")
        if not name:
            errors.append(err.required(f"{where}.name"))
        elif name not in volumes:
            errors.append(err.not_found(f"{where}.name", name))
        target = mount.get("mountPath")
        if not target:
            errors.append(err.required(f"{where}.mountPath"))
        elif target in paths:
            errors.append(err.invalid_value(f"{where}.mountPath", target, "must be unique"))
        paths.add(str(target))
        for key in ("subPath", "subPathExpr"):
            if problem := _inner_path_problem(mount.get(key)):
                errors.append(err.invalid_value(f"{where}.{key}", mount[key], problem))
        if mount.get("subPath") and mount.get("subPathExpr"):
            errors.append(
                err.invalid_value(
                    f"{where}.subPathExpr",
                    mount["subPathExpr"],
                    "subPathExpr and subPath are mutually exclusive",
                )
            )


def _inner_path_problem(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    if value.startswith("/"):
        return "must be a relative path"
    return "must not contain '..'" if ".." in value.split("/") else ""


def validate_resources(resources: Any, path: str, errors: list[FieldError]) -> None:
    """Append what is wrong with requests and limits."""
    if not isinstance(resources, Mapping):
        return
    amounts: dict[str, dict[str, Any]] = {"limits": {}, "requests": {}}
    for kind, parsed in amounts.items():
        for name, text in (
            (resources.get(kind) or {}).items() if isinstance(resources.get(kind), Mapping) else ()
        ):
            where = f"{path}.{kind}[{name}]"
            if problem := qualified_name_problem(name):
                errors.append(err.invalid_value(where, name, problem))
            try:
                parsed[name] = parse_quantity(text)
            except ValueError as error:
                errors.append(err.invalid_value(f"{path}.{kind}.{name}", text, str(error)))
                continue
            if parsed[name] < 0:
                errors.append(
                    err.invalid_value(f"{path}.{kind}.{name}", text, "must be greater than or equal to 0")
                )
    for name, amount in amounts["requests"].items():
        limit = amounts["limits"].get(name)
        if limit is not None and amount > limit:
            text = resources["requests"][name]
            detail = f"must be less than or equal to {name} limit of {resources['limits'][name]}"
            errors.append(err.invalid_value(f"{path}.requests", str(text), detail))


def _validate_probe(probe: Object, path: str, errors: list[FieldError], *, readiness: bool) -> None:
    for key in (
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ):
        value = probe.get(key)
        if isinstance(value, int) and value < 0:
            errors.append(err.invalid_value(f"{path}.{key}", value, "must be greater than or equal to 0"))
    if not readiness and probe.get("successThreshold") not in (None, 1):
        errors.append(err.invalid_value(f"{path}.successThreshold", probe["successThreshold"], "must be 1"))
    _validate_handler(probe, path, errors)


def _validate_handler(handler: Object, path: str, errors: list[FieldError]) -> None:
    chosen = [
        key
        for key in ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
        if isinstance(handler.get(key), Mapping)
    ]
    if not chosen:
        errors.append(err.required(path, "must specify a handler type"))
    for extra in chosen[1:]:
        errors.append(err.forbidden(f"{path}.{extra}", "may not specify more than 1 handler type"))
    for key in chosen:
        action = handler[key]
        if key == "exec" and not action.get("command"):
            errors.append(err.required(f"{path}.exec.command"))
        if key in ("httpGet", "tcpSocket", "grpc"):
            port = action.get("port")
            named = isinstance(port, str) and not port.isdigit() and key != "grpc"
            if named and (problem := port_name_problem(str(port))):
                errors.append(err.invalid_value(f"{path}.{key}.port", port, problem))
            elif not named and not is_port(int(port) if isinstance(port, str) and port.isdigit() else port):
                errors.append(
                    err.invalid_value(
                        f"{path}.{key}.port", port or 0, "must be between 1 and 65535, inclusive"
                    )
                )
        if key == "httpGet":
            _choice(action, "scheme", f"{path}.httpGet", ("HTTP", "HTTPS"), errors)


def _validate_volumes(spec: Object, path: str, errors: list[FieldError]) -> dict[str, Object]:
    volumes: dict[str, Object] = {}
    for index, volume in enumerate(objects(spec.get("volumes"))):
        where = f"{path}.volumes[{index}]"
        name = volume.get("name")
        if not name:
            errors.append(err.required(f"{where}.name"))
        elif problem := name_problem("label", str(name)):
            errors.append(err.invalid_value(f"{where}.name", name, problem))
        elif name in volumes:
            errors.append(err.duplicate(f"{where}.name", name))
        volumes[str(name)] = volume
        kinds = [key for key in volume if key in _VOLUME_KINDS]
        if not kinds:
            errors.append(err.required(where, "must specify a volume type"))
        for extra in kinds[1:]:
            errors.append(err.forbidden(f"{where}.{extra}", "may not specify more than 1 volume type"))
        for kind in kinds:
            if isinstance(volume[kind], Mapping):
                _validate_volume_source(kind, volume[kind], f"{where}.{kind}", errors)
    return volumes


def _validate_volume_source(kind: str, source: Object, path: str, errors: list[FieldError]) -> None:
    needed = {
        "configMap": ("name",),
        "secret": ("secretName",),
        "hostPath": ("path",),
        "persistentVolumeClaim": ("claimName",),
        "nfs": ("server", "path"),
        "csi": ("driver",),
    }.get(kind, ())
    errors.extend(err.required(f"{path}.{key}") for key in needed if not source.get(key))
    if kind == "hostPath":
        _choice(source, "type", path, _HOST_PATH_TYPES, errors)
        if ".." in str(source.get("path") or "").split("/"):
            errors.append(err.invalid_value(f"{path}.path", source["path"], "must not contain '..'"))
    mode = source.get("defaultMode")
    if isinstance(mode, int) and not 0 <= mode <= 0o777:
        errors.append(
            err.invalid_value(
                f"{path}.defaultMode", mode, "must be a number between 0 and 0777 (octal), both inclusive"
            )
        )
    for index, item in enumerate(objects(source.get("items"))):
        where = f"{path}.items[{index}]"
        if kind != "downwardAPI" and not item.get("key"):
            errors.append(err.required(f"{where}.key"))
        if not item.get("path"):
            errors.append(err.required(f"{where}.path"))
        elif problem := _inner_path_problem(item["path"]):
            errors.append(err.invalid_value(f"{where}.path", item["path"], problem))
    if kind == "emptyDir" and source.get("sizeLimit") is not None:
        try:
            parse_quantity(source["sizeLimit"])
        except ValueError as error:
            errors.append(err.invalid_value(f"{path}.sizeLimit", source["sizeLimit"], str(error)))


def _validate_scheduling(spec: Object, path: str, errors: list[FieldError]) -> None:
    for key, value in (spec.get("nodeSelector") or {}).items():
        for problem in (qualified_name_problem(key), label_value_problem(str(value))):
            if problem:
                errors.append(err.invalid_value(f"{path}.nodeSelector", f"{key}={value}", problem))
    for index, toleration in enumerate(objects(spec.get("tolerations"))):
        where = f"{path}.tolerations[{index}]"
        operator = toleration.get("operator") or "Equal"
        if operator not in ("Equal", "Exists"):
            errors.append(err.not_supported(f"{where}.operator", operator, ("Equal", "Exists")))
        if operator == "Exists" and toleration.get("value"):
            errors.append(
                err.invalid_value(
                    f"{where}.operator", operator, "value must be empty when `operator` is 'Exists'"
                )
            )
        if not toleration.get("key") and operator != "Exists":
            errors.append(
                err.invalid_value(
                    f"{where}.operator",
                    operator,
                    'operator must be Exists when `key` is empty, which means "match all values and all keys"',
                )
            )
        if toleration.get("effect"):
            _choice(toleration, "effect", where, _EFFECTS, errors)
        if toleration.get("tolerationSeconds") is not None and toleration.get("effect") != "NoExecute":
            errors.append(
                err.invalid_value(
                    f"{where}.effect",
                    toleration.get("effect") or "",
                    "effect must be 'NoExecute' when `tolerationSeconds` is set",
                )
            )
    for where, term in _node_terms(spec, path):
        for index, expression in enumerate(objects(term.get("matchExpressions"))):
            _validate_expression(expression, f"{where}.matchExpressions[{index}]", errors)
    for index, spread in enumerate(objects(spec.get("topologySpreadConstraints"))):
        where = f"{path}.topologySpreadConstraints[{index}]"
        if not isinstance(spread.get("maxSkew"), int) or spread["maxSkew"] <= 0:
            errors.append(
                err.invalid_value(f"{where}.maxSkew", spread.get("maxSkew"), "must be greater than zero")
            )
        if not spread.get("topologyKey"):
            errors.append(err.required(f"{where}.topologyKey", "can not be empty"))
        _choice(spread, "whenUnsatisfiable", where, ("DoNotSchedule", "ScheduleAnyway"), errors)


def _node_terms(spec: Object, path: str) -> Iterator[tuple[str, Object]]:
    affinity = spec.get("affinity")
    node = affinity.get("nodeAffinity") if isinstance(affinity, Mapping) else None
    if not isinstance(node, Mapping):
        return
    base = f"{path}.affinity.nodeAffinity"
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution")
    if isinstance(required, Mapping):
        for index, term in enumerate(objects(required.get("nodeSelectorTerms"))):
            yield f"{base}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[{index}]", term
    for index, preferred in enumerate(objects(node.get("preferredDuringSchedulingIgnoredDuringExecution"))):
        if isinstance(preferred.get("preference"), Mapping):
            yield (
                f"{base}.preferredDuringSchedulingIgnoredDuringExecution[{index}].preference",
                preferred["preference"],
            )


def _validate_expression(expression: Object, path: str, errors: list[FieldError]) -> None:
    operator = expression.get("operator")
    values = expression.get("values") or []
    if operator not in _OPERATORS:
        errors.append(err.not_supported(f"{path}.operator", operator, _OPERATORS))
    elif operator in ("In", "NotIn") and not values:
        errors.append(err.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist") and values:
        errors.append(
            err.forbidden(
                f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            )
        )
    elif operator in ("Gt", "Lt") and len(values) != 1:
        errors.append(
            err.required(f"{path}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
        )
    if problem := qualified_name_problem(str(expression.get("key") or "")):
        errors.append(err.invalid_value(f"{path}.key", expression.get("key"), problem))


def validate_pod(pod: Object) -> list[FieldError]:
    """Return what is wrong with a Pod's spec."""
    spec = pod.get("spec")
    return validate_pod_spec(spec, "spec") if isinstance(spec, Mapping) else [err.required("spec")]


def pod_changes(pod: Object, old: Object) -> list[FieldError]:
    """Return what may not change in a Pod: all but images, tolerations (added), deadline, grace when negative."""
    new_spec, old_spec = pod.get("spec") or {}, old.get("spec") or {}
    if new_spec == old_spec:
        return []
    comparable = copy.deepcopy(dict(new_spec))
    for key in ("containers", "initContainers"):
        olds = {c.get("name"): c for c in objects(old_spec.get(key))}
        for container in objects(comparable.get(key)):
            before = olds.get(container.get("name"))
            if before is not None:
                container["image"] = before.get("image")  # type: ignore[index]
    errors: list[FieldError] = []
    _deadline_change(new_spec, old_spec, errors)
    tolerations = new_spec.get("tolerations") or []
    if any(toleration not in tolerations for toleration in old_spec.get("tolerations") or []):
        errors.append(
            err.forbidden(
                "spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"
            )
        )
    for key in (
        "activeDeadlineSeconds",
        "tolerations",
        "terminationGracePeriodSeconds",
        "schedulingGates",
        "ephemeralContainers",
    ):
        if key == "terminationGracePeriodSeconds" and not (
            isinstance(old_spec.get(key), int) and old_spec[key] < 0 and new_spec.get(key) == 1
        ):
            continue
        _carry(comparable, old_spec, key)
    if comparable != old_spec:
        errors.append(
            err.forbidden(
                "spec",
                "pod updates may not change fields other than `spec.containers[*].image`, "
                "`spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.tolerations` (only additions to "
                "existing tolerations), `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
                "previously negative)",
            )
        )
    return errors


def _carry(target: dict[str, Any], source: Object, key: str) -> None:
    if key in source:
        target[key] = source[key]
    else:
        target.pop(key, None)


def _deadline_change(new: Object, old: Object, errors: list[FieldError]) -> None:
    before, after = old.get("activeDeadlineSeconds"), new.get("activeDeadlineSeconds")
    if isinstance(before, int) and (not isinstance(after, int) or after > before):
        detail = (
            "must be less than or equal to previous value"
            if after is not None
            else "must not update from a positive integer to nil value"
        )
        errors.append(err.invalid_value("spec.activeDeadlineSeconds", after, detail))


def validate_config_keys(data: Any, path: str) -> list[FieldError]:
    """Return what is wrong with the keys of a ConfigMap or Secret."""
    return [
        err.invalid_value(f"{path}[{key}]", key, problem)
        for key in (data if isinstance(data, Mapping) else ())
        if (problem := config_key_problem(key))
    ]
