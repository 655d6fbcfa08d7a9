"""kubeconfig files: which server, whom to trust, who we are.

Pure: text comes in, file paths and exec plugins come out as data for the caller to read and run.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import yaml

from edgehive.kit.errors import UserError
from edgehive.kit.text import safe_label

_HINT = "See https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecPlugin:
    """A command that prints an ``ExecCredential``."""

    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    api_version: str = "client.authentication.k8s.io/v1"
    provide_cluster_info: bool = False
    install_hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeConfig:
    """Everything needed to talk to one API server as one user.

    A ``*_file`` field names a file that wins over the bytes next to it once the caller has read it.
    """

    server: str
    namespace: str = "default"
    ca_pem: bytes = b""
    ca_file: str = ""
    insecure: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    cert_pem: bytes = b""
    cert_file: str = ""
    key_pem: bytes = field(default=b"", repr=False)
    key_file: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    exec: ExecPlugin | None = None
    as_user: str = ""
    as_uid: str = ""
    as_groups: tuple[str, ...] = ()
    as_extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


def parse_kubeconfig(
    sources: str | Sequence[tuple[str, str]], *, context: str = "", base: str = ""
) -> KubeConfig:
    """Read one kubeconfig text, or several (text, directory) in falling precedence.

    Relative paths are resolved against the directory (`base` for a single text).

    Raises:
        UserError: not a kubeconfig, or the context does not exist.
    """
    files = [(sources, base)] if isinstance(sources, str) else list(sources)
    documents = [_document(text, where) for text, where in files]
    chosen = context or next((str(d["current-context"]) for d in documents if d.get("current-context")), "")
    if not chosen:
        raise UserError("the kubeconfig has no current-context", hint="Name one, or set current-context.")
    entry = _named(documents, "contexts", "context", chosen)
    cluster = _named(documents, "clusters", "cluster", _text(entry, "cluster"))
    user_name = _text(entry, "user")
    user = _named(documents, "users", "user", user_name) if user_name else {}
    server = _text(cluster, "server").rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise UserError(f"the server of context {safe_label(chosen)} must be an http(s) URL", hint=_HINT)
    return KubeConfig(
        server=server,
        namespace=_text(entry, "namespace") or "default",
        ca_pem=_data(cluster, "certificate-authority-data"),
        ca_file=_path(cluster, "certificate-authority"),
        insecure=cluster.get("insecure-skip-tls-verify") is True,
        tls_server_name=_text(cluster, "tls-server-name"),
        proxy_url=_text(cluster, "proxy-url"),
        cert_pem=_data(user, "client-certificate-data"),
        cert_file=_path(user, "client-certificate"),
        key_pem=_data(user, "client-key-data"),
        key_file=_path(user, "client-key"),
        token=_text(user, "token"),
        token_file=_path(user, "tokenFile"),
        username=_text(user, "username"),
        password=_text(user, "password"),
        exec=_exec(user),
        as_user=_text(user, "as"),
        as_uid=_text(user, "as-uid"),
        as_groups=tuple(str(g) for g in _list(user, "as-groups")),
        as_extra=tuple(
            (str(k), tuple(str(v) for v in values))
            for k, values in _mapping(user, "as-user-extra").items()
            if isinstance(values, list)
        ),
    )


def format_kubeconfig(config: KubeConfig, *, name: str, user: str = "") -> str:
    """Return a kubeconfig with one cluster, one user and one context called `name`."""
    cluster: dict[str, Any] = {"server": config.server}
    if config.insecure:
        cluster["insecure-skip-tls-verify"] = True
    _put(cluster, "certificate-authority", config.ca_file, config.ca_pem)
    if config.tls_server_name:
        cluster["tls-server-name"] = config.tls_server_name
    who: dict[str, Any] = {}
    _put(who, "client-certificate", config.cert_file, config.cert_pem)
    _put(who, "client-key", config.key_file, config.key_pem)
    if config.token:
        who["token"] = config.token
    if config.token_file:
        who["tokenFile"] = config.token_file
    user = user or name
    context = {"cluster": name, "user": user}
    if config.namespace not in ("", "default"):
        context["namespace"] = config.namespace
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": user, "user": who}],
        "contexts": [{"name": name, "context": context}],
        "current-context": name,
    }
    return yaml.safe_dump(document, sort_keys=False)


def with_files_read(config: KubeConfig, read: Mapping[str, bytes]) -> KubeConfig:
    """Return `config` with the contents of its CA, certificate and key files filled in.

    `token_file` stays a path: tokens rotate and are read again.
    """
    return replace(
        config,
        ca_pem=read.get(config.ca_file, config.ca_pem),
        cert_pem=read.get(config.cert_file, config.cert_pem),
        key_pem=read.get(config.key_file, config.key_pem),
    )


def _document(text: str, base: str) -> dict[str, Any]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        what = safe_label(getattr(exc, "problem", None) or str(exc), 200)
        raise UserError(f"the kubeconfig is not YAML{where}: {what}", hint=_HINT) from exc
    if not isinstance(document, dict) or document.get("kind", "Config") != "Config":
        raise UserError("this is not a kubeconfig (a mapping of kind Config)", hint=_HINT)
    return {**document, "_base": base}


def _named(documents: list[dict[str, Any]], plural: str, kind: str, name: str) -> dict[str, Any]:
    for document in documents:
        for entry in _list(document, plural):
            if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(kind), dict):
                return {**entry[kind], "_base": document["_base"]}
    raise UserError(f"the kubeconfig has no {kind} named {safe_label(name)}", hint=_HINT)


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{key} in the kubeconfig must be text", hint=_HINT)
    return value


def _list(entry: Mapping[str, Any], key: str) -> list[Any]:
    value = entry.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise UserError(f"{key} in the kubeconfig must be a list", hint=_HINT)
    return value


def _mapping(entry: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = entry.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{key} in the kubeconfig must be a mapping", hint=_HINT)
    return value


def _data(entry: Mapping[str, Any], key: str) -> bytes:
    try:
        return base64.b64decode(_text(entry, key), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise UserError(f"{key} in the kubeconfig is not base64", hint=_HINT) from exc


def _path(entry: Mapping[str, Any], key: str) -> str:
    text = _text(entry, key)
    return str(PurePosixPath(str(entry["_base"])) / text) if text else ""


def _exec(user: Mapping[str, Any]) -> ExecPlugin | None:
    plugin = _mapping(user, "exec")
    if not plugin:
        return None
    command = _text(plugin, "command")
    if not command:
        raise UserError("the exec plugin in the kubeconfig has no command", hint=_HINT)
    if "/" in command:
        command = str(PurePosixPath(str(user["_base"])) / command)
    return ExecPlugin(
        command=command,
        args=tuple(str(a) for a in _list(plugin, "args")),
        env=tuple((_text(e, "name"), _text(e, "value")) for e in _list(plugin, "env") if isinstance(e, dict)),
        api_version=_text(plugin, "apiVersion") or "client.authentication.k8s.io/v1",
        provide_cluster_info=plugin.get("provideClusterInfo") is True,
        install_hint=_text(plugin, "installHint"),
    )


def _put(entry: dict[str, Any], key: str, path: str, data: bytes) -> None:
    if path:
        entry[key] = path
    elif data:
        entry[f"{key}-data"] = base64.b64encode(data).decode()
