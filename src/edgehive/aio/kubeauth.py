"""Who we are to an API server: files, in-cluster mounts, rotating tokens, exec plugins, TLS contexts."""

import asyncio
import base64
import json
import logging
import os
import ssl
import tempfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from edgehive.aio.tls import trusting
from edgehive.kit.errors import Unreachable, UserError
from edgehive.kit.text import safe_label
from edgehive.kube.kubeconfig import ExecPlugin, KubeConfig, parse_kubeconfig, with_files_read

log = logging.getLogger(__name__)

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TOKEN_AGE = 60.0  # bound service-account tokens are rotated at 80 % of their hour: a minute is soon enough
_EXPIRY_MARGIN = 30.0
_EXEC_TIMEOUT = 60.0


def load_kubeconfig(path: str | Path = "", context: str = "") -> KubeConfig:
    """Read a kubeconfig and the files it names; default ``$KUBECONFIG`` (a list is merged), ``~/.kube/config``.

    Raises:
        UserError: a file cannot be read or is not a kubeconfig.
    """
    if path:
        paths = [Path(path)]
    else:
        listed = [Path(p) for p in os.environ.get("KUBECONFIG", "").split(os.pathsep) if p]
        paths = [p for p in listed if p.exists()] or listed[:1] or [Path.home() / ".kube" / "config"]
    sources = [(_read(p).decode("utf-8", "replace"), str(p.resolve().parent)) for p in paths]
    try:
        return read_files(parse_kubeconfig(sources, context=context))
    except UserError as exc:
        where = ", ".join(str(p) for p in paths)
        raise UserError(f"{where}: {exc.message}", hint=exc.hint) from exc


def read_files(config: KubeConfig) -> KubeConfig:
    """Fill in CA, certificate and key from the files `config` names.

    Raises:
        UserError: a file cannot be read.
    """
    names = [n for n in (config.ca_file, config.cert_file, config.key_file) if n]
    return with_files_read(config, {n: _read(Path(n)) for n in names})


def load_in_cluster(mount: Path = _SERVICE_ACCOUNT) -> KubeConfig:
    """Return the configuration of a process inside a pod.

    Raises:
        UserError: this process does not run in a cluster.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (mount / "token").exists():
        raise UserError(
            "no kubeconfig was given and this process does not run inside a cluster",
            hint="Give a kubeconfig, or run it in a pod with a service account.",
        )
    namespace = mount / "namespace"
    host = f"[{host}]" if ":" in host else host
    return KubeConfig(
        server=f"https://{host}:{port}",
        ca_pem=_read(mount / "ca.crt"),
        token_file=str(mount / "token"),
        namespace=_read(namespace).decode().strip() if namespace.exists() else "default",
    )


def client_tls(config: KubeConfig) -> ssl.SSLContext | None:
    """Make the TLS context; None for a plain ``http`` server.

    Raises:
        UserError: the CA, certificate or key cannot be used.
    """
    if config.server.startswith("http://"):
        return None
    try:
        if config.insecure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif config.ca_pem:
            context = trusting(cadata=config.ca_pem.decode("ascii"))
        else:
            context = trusting()
        if config.cert_pem and config.key_pem:
            _load_pair(context, config.cert_pem, config.key_pem)
    except (ssl.SSLError, ValueError) as exc:
        raise UserError(
            f"the CA or client certificate for {safe_label(config.server)} cannot be used: {exc}",
            hint="Check certificate-authority, client-certificate and client-key.",
        ) from exc
    return context


def _load_pair(context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
    # OpenSSL's loader wants a path; the file is private and gone before anything else happens.
    with tempfile.NamedTemporaryFile(prefix="edgehive-") as file:
        file.write(cert.rstrip() + b"\n" + key)
        file.flush()
        context.load_cert_chain(file.name)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise UserError(
            f"cannot read {path}: {exc.strerror}",
            hint="Check the path and its permissions; $KUBECONFIG and --kubeconfig name another kubeconfig.",
        ) from exc


class Credentials:
    """Gives the Authorization header, and the client certificate of an exec plugin or of files that were renewed."""

    def __init__(self, config: KubeConfig) -> None:
        self._config = config
        self._token = config.token
        self._checked = float("-inf")
        self._expires = float("inf")
        self._lock = asyncio.Lock()
        self.client_pair: tuple[bytes, bytes] | None = None
        """Certificate and key that came after those of the configuration."""

    async def authorization(self, now: float, wall: float) -> str:
        """Return the header's value, empty when a certificate alone is used.

        Raises:
            UserError: the exec plugin cannot be run or printed nonsense.
            Unreachable: the exec plugin failed or took too long.
        """
        config = self._config
        if config.exec is not None:
            async with self._lock:
                if (not self._token and self.client_pair is None) or wall > self._expires - _EXPIRY_MARGIN:
                    await self._run_plugin(config.exec)
        elif (config.token_file or config.cert_file) and now - self._checked > _TOKEN_AGE:
            self._read_again(now)
        if self._token:
            return f"Bearer {self._token}"
        if config.username:
            return "Basic " + base64.b64encode(f"{config.username}:{config.password}".encode()).decode()
        return ""

    def rejected(self) -> bool:
        """Note a 401; True when other credentials may be had by asking again."""
        self._checked = float("-inf")
        if self._config.exec is not None:
            self._token, self.client_pair, self._expires = "", None, float("inf")
            return True
        return bool(self._config.token_file or self._config.cert_file)

    def _read_again(self, now: float) -> None:
        self._checked = now
        if self._config.token_file:
            self._read_token()
        if self._config.cert_file and self._config.key_file:
            self._read_pair(self._config)

    def _read_pair(self, config: KubeConfig) -> None:
        """Take a certificate that was renewed; files that do not fit each other are half way through that."""
        try:
            pair = (Path(config.cert_file).read_bytes(), Path(config.key_file).read_bytes())
            if pair == (self.client_pair or (config.cert_pem, config.key_pem)):
                return
            client_tls(with_pair(config, pair))
        except (OSError, UserError) as exc:
            log.warning("client certificate: %s; keeping the one read before", safe_label(str(exc), 300))
            return
        log.info("the client certificate %s was renewed", safe_label(config.cert_file, 200))
        self.client_pair = pair

    def _read_token(self) -> None:
        try:
            self._token = Path(self._config.token_file).read_text(encoding="utf-8").strip()
        except OSError as exc:
            if not self._token:
                raise UserError(f"cannot read the token file: {exc}") from exc
            log.warning("token file: %s; keeping the token read before", exc)

    async def _run_plugin(self, plugin: ExecPlugin) -> None:
        spec: dict[str, Any] = {"interactive": False}
        if plugin.provide_cluster_info:
            ca = base64.b64encode(self._config.ca_pem).decode()
            spec["cluster"] = {"server": self._config.server, "certificate-authority-data": ca}
        info = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
        env = os.environ | dict(plugin.env) | {"KUBERNETES_EXEC_INFO": json.dumps(info)}
        try:
            process = await asyncio.create_subprocess_exec(
                plugin.command,
                *plugin.args,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as exc:
            hint = plugin.install_hint or "Install the plugin that the kubeconfig names."
            raise UserError(
                f"cannot run the exec plugin {safe_label(plugin.command)}: {exc}", hint=hint
            ) from exc
        try:
            async with asyncio.timeout(_EXEC_TIMEOUT):
                out, err = await process.communicate()
        except TimeoutError as exc:
            raise Unreachable(f"the exec plugin {safe_label(plugin.command)} took too long") from exc
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            why = safe_label(err.decode("utf-8", "replace").strip(), 300)
            raise Unreachable(f"the exec plugin {safe_label(plugin.command)} failed: {why}")
        self._take(out, plugin)

    def _take(self, out: bytes, plugin: ExecPlugin) -> None:
        try:
            status = json.loads(out)["status"]
            token, cert, key = (
                str(status.get(k) or "") for k in ("token", "clientCertificateData", "clientKeyData")
            )
            expiry = status.get("expirationTimestamp")
            expires = datetime.fromisoformat(str(expiry)).timestamp() if expiry else float("inf")
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise UserError(
                f"the exec plugin {safe_label(plugin.command)} printed no ExecCredential"
            ) from exc
        if not token and not (cert and key):
            raise UserError(
                f"the exec plugin {safe_label(plugin.command)} gave neither token nor certificate"
            )
        self._token, self._expires = token, expires
        self.client_pair = (cert.encode(), key.encode()) if cert and key else None


def with_pair(config: KubeConfig, pair: tuple[bytes, bytes]) -> KubeConfig:
    """Return `config` with another client certificate and key."""
    return replace(config, cert_pem=pair[0], key_pem=pair[1])
