"""Pods: users and groups, privileges, sysctls, name servers, ports in the host's network."""

import re
from collections.abc import Mapping
from typing import Any

from edgehive.kube import fielderror as err
from edgehive.kube.fielderror import FieldError
from edgehive.kube.names import is_ip
from edgehive.kube.validation_parts import Object, objects

_SYSCTL = re.compile(r"(?:[a-z0-9](?:[-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9](?:[-_a-z0-9]*[a-z0-9])?")
_MOST_SYSCTL, _MOST_SERVERS, _MOST_SEARCHES = 253, 3, 32
_HIGHEST_ID = (1 << 31) - 1


def validate_security(spec: Object, path: str, errors: list[FieldError]) -> None:
    """Append what is wrong with who the pod runs as and what it may do."""
    context = _mapping(spec.get("securityContext"))
    where = f"{path}.securityContext"
    _validate_ids(context, where, ("runAsUser", "runAsGroup", "fsGroup"), errors)
    for index, group in enumerate(_list(context.get("supplementalGroups"))):
        _validate_id(group, f"{where}.supplementalGroups[{index}]", errors)
    _validate_sysctls(context, where, errors)
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(objects(spec.get(key))):
            at = f"{path}.{key}[{index}]"
            _validate_container(_mapping(container.get("securityContext")), f"{at}.securityContext", errors)
            if spec.get("hostNetwork") is True:
                _validate_host_ports(container, at, errors)


def validate_dns(spec: Object, path: str, errors: list[FieldError]) -> None:
    """Append what is wrong with the pod's own name servers."""
    config = _mapping(spec.get("dnsConfig"))
    servers, searches = _list(config.get("nameservers")), _list(config.get("searches"))
    if spec.get("dnsPolicy") == "None" and not servers:
        detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        errors.append(err.required(f"{path}.dnsConfig.nameservers", detail))
    for name, given, most in (
        ("nameservers", servers, _MOST_SERVERS),
        ("searches", searches, _MOST_SEARCHES),
    ):
        if len(given) > most:
            detail = f"must not have more than {most} {name if name == 'nameservers' else 'search paths'}"
            errors.append(err.invalid_value(f"{path}.dnsConfig.{name}", given, detail))
    errors.extend(
        err.invalid_value(f"{path}.dnsConfig.nameservers[{index}]", server, "must be valid IP address")
        for index, server in enumerate(servers)
        if not is_ip(str(server))
    )


def _mapping(value: Any) -> Object:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _validate_ids(context: Object, path: str, keys: tuple[str, ...], errors: list[FieldError]) -> None:
    for key in keys:
        if context.get(key) is not None:
            _validate_id(context[key], f"{path}.{key}", errors)


def _validate_id(value: Any, path: str, errors: list[FieldError]) -> None:
    if isinstance(value, int) and not 0 <= value <= _HIGHEST_ID:
        errors.append(err.invalid_value(path, value, f"must be between 0 and {_HIGHEST_ID}, inclusive"))


def _validate_sysctls(context: Object, path: str, errors: list[FieldError]) -> None:
    seen: set[str] = set()
    for index, sysctl in enumerate(objects(context.get("sysctls"))):
        where = f"{path}.sysctls[{index}].name"
        name = str(sysctl.get("name") or "")
        if not name:
            errors.append(err.required(where))
        elif len(name) > _MOST_SYSCTL or _SYSCTL.fullmatch(name) is None:
            detail = f"must have at most {_MOST_SYSCTL} characters and match regex ^{_SYSCTL.pattern}$"
            errors.append(err.invalid_value(where, name, detail))
        elif name in seen:
            errors.append(err.duplicate(where, name))
        seen.add(name)


def _validate_container(context: Object, path: str, errors: list[FieldError]) -> None:
    _validate_ids(context, path, ("runAsUser", "runAsGroup"), errors)
    if context.get("allowPrivilegeEscalation") is not False:
        return
    added = _list(_mapping(context.get("capabilities")).get("add"))
    for wrong, what in (
        (context.get("privileged") is True, "`privileged` to true"),
        ("CAP_SYS_ADMIN" in added, "`capabilities.Add` CAP_SYS_ADMIN"),
    ):
        if wrong:
            detail = f"cannot set `allowPrivilegeEscalation` to false and {what}"
            errors.append(err.invalid_value(path, dict(context), detail))


def _validate_host_ports(container: Object, path: str, errors: list[FieldError]) -> None:
    for index, port in enumerate(objects(container.get("ports"))):
        if port.get("hostPort") and port["hostPort"] != port.get("containerPort"):
            detail = "must match `containerPort` when `hostNetwork` is true"
            errors.append(
                err.invalid_value(f"{path}.ports[{index}].containerPort", port.get("containerPort"), detail)
            )
