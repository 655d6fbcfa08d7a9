"""Containers of a pod: ports, environment, mounts, resources, probes."""

from collections.abc import Mapping
from typing import Any

from edgehive.kube import fielderror as err
from edgehive.kube.fielderror import FieldError
from edgehive.kube.names import env_name_problem, name_problem, port_name_problem, qualified_name_problem
from edgehive.kube.quantity import parse_quantity
from edgehive.kube.validation_parts import Object, choice, inner_path_problem, is_port, objects

_PULL = ("Always", "IfNotPresent", "Never")
_PROTOCOLS = ("SCTP", "TCP", "UDP")


def validate_container(
    container: Object,
    path: str,
    volumes: Mapping[str, Object],
    names: set[str],
    errors: list[FieldError],
    *,
    init: bool,
) -> None:
    """Append what is wrong with one container; `names` collects the names seen."""
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
    choice(container, "imagePullPolicy", path, _PULL, errors)
    choice(container, "terminationMessagePolicy", path, ("FallbackToLogsOnError", "File"), errors)
    if init:
        choice(container, "restartPolicy", path, ("Always",), errors)
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
        choice(port, "protocol", where, _PROTOCOLS, errors)


def _validate_env(container: Object, path: str, errors: list[FieldError]) -> None:
    for index, env in enumerate(objects(container.get("env"))):
        where = f"{path}.env[{index}]"
        name = env.get("name")
        if not name:
            errors.append(err.required(f"{where}.name"))
        elif problem := env_name_problem(str(name)):
            errors.append(err.invalid_value(f"{where}.name", name, problem))
        if isinstance(env.get("valueFrom"), Mapping):
            _validate_env_source(env, f"{where}.valueFrom", errors)
    for index, source in enumerate(objects(container.get("envFrom"))):
        where = f"{path}.envFrom[{index}]"
        refs = [key for key in ("configMapRef", "secretRef") if isinstance(source.get(key), Mapping)]
        if len(refs) != 1:
            detail = _MORE_THAN_ONE if refs else "must specify one of: `configMapRef` or `secretRef`"
            errors.append(err.invalid_value(where, "", detail))
        errors.extend(err.required(f"{where}.{key}.name") for key in refs if not source[key].get("name"))


_MORE_THAN_ONE = "may not have more than one field specified at a time"


def _validate_env_source(env: Object, path: str, errors: list[FieldError]) -> None:
    source = env["valueFrom"]
    chosen = [key for key, value in source.items() if value is not None]
    if env.get("value"):
        errors.append(err.invalid_value(path, "", "may not be specified when `value` is not empty"))
    elif len(chosen) != 1:
        detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        errors.append(err.invalid_value(path, "", _MORE_THAN_ONE if chosen else detail))
    for key in ("configMapKeyRef", "secretKeyRef"):
        ref = source.get(key)
        if isinstance(ref, Mapping) and not ref.get("key"):
            errors.append(err.required(f"{path}.{key}.key"))


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
        errors.extend(
            err.invalid_value(f"{where}.{key}", mount[key], problem)
            for key in ("subPath", "subPathExpr")
            if (problem := inner_path_problem(mount.get(key)))
        )
        if mount.get("subPath") and mount.get("subPathExpr"):
            errors.append(
                err.invalid_value(
                    f"{where}.subPathExpr",
                    mount["subPathExpr"],
                    "subPathExpr and subPath are mutually exclusive",
                )
            )


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
            except ValueError:
                continue  # the schema reports what is no quantity
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
    detail = "may not specify more than 1 handler type"
    errors.extend(err.forbidden(f"{path}.{extra}", detail) for extra in chosen[1:])
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
            choice(action, "scheme", f"{path}.httpGet", ("HTTP", "HTTPS"), errors)
