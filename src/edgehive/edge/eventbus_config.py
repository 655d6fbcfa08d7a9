"""What ``modules.eventBus`` means: which broker is ours, which one is somebody else's, and how it is reached."""

import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import msgspec

from edgehive.aio.tls import trusting
from edgehive.edge.config import EventBus as EventBusConfig
from edgehive.edge.config import EventBusTls
from edgehive.kit.errors import UserError
from edgehive.kit.text import safe_label

_PLAIN = {"tcp": 1883, "mqtt": 1883}
_TLS = {"ssl": 8883, "tls": 8883, "mqtts": 8883, "tcps": 8883}
_INTERNAL_ONLY = 0
_EXTERNAL_ONLY = 2


class Internal(msgspec.Struct, frozen=True):
    """The embedded broker: where it listens, and how edgecore publishes on it."""

    host: str
    port: int
    qos: int
    retain: bool
    queue: int
    """Messages that wait for one client."""

    @property
    def public(self) -> bool:
        """Whether others than this machine can connect; nobody is asked who he is."""
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"


@dataclass(frozen=True, slots=True)
class External:
    """Somebody else's broker; `tls` is ``None`` for plain TCP. An empty client id means a random one."""

    host: str
    port: int
    subscriber: str
    publisher: str
    username: str
    password: str = field(repr=False)
    tls: "TlsFiles | None"


class TlsFiles(msgspec.Struct, frozen=True):
    """PEM files; without `ca` the system's authorities are trusted, without `certificate` we have none."""

    ca: str = ""
    certificate: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """Read the files.

        Raises:
            OSError: they cannot be read, or are not what they should be.
        """
        context = trusting(cafile=self.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate:
            # A password, lest an encrypted key makes OpenSSL ask for one on the terminal.
            context.load_cert_chain(Path(self.certificate), Path(self.key), password="")
        return context


class EventBusSettings(msgspec.Struct, frozen=True):
    """Mode 0 has the embedded broker, mode 2 an external one, mode 1 both."""

    internal: Internal | None
    external: External | None


def settings_of(config: EventBusConfig) -> EventBusSettings:
    """Read the section.

    Raises:
        UserError: an address cannot be used.
    """
    internal = external = None
    if config.mqtt_mode != _EXTERNAL_ONLY:
        parts = _parse(config.mqtt_server_internal, "mqttServerInternal", ("tcp", "mqtt"))
        internal = Internal(
            host=parts.hostname or "",
            port=_port(parts, _PLAIN),
            qos=config.mqtt_qos,
            retain=config.mqtt_retain,
            queue=config.mqtt_session_queue_size,
        )
    if config.mqtt_mode != _INTERNAL_ONLY:
        external = _external(config)
    return EventBusSettings(internal, external)


def _external(config: EventBusConfig) -> External:
    parts = _parse(config.mqtt_server_external, "mqttServerExternal", (*_PLAIN, *_TLS))
    secure = parts.scheme in _TLS or config.event_bus_tls.enable
    return External(
        host=parts.hostname or "",
        port=_port(parts, _TLS if parts.scheme in _TLS else _PLAIN),
        subscriber=config.mqtt_sub_client_id,
        publisher=config.mqtt_pub_client_id,
        username=config.mqtt_username,
        password=config.mqtt_password,
        tls=_files(config.event_bus_tls) if secure else None,
    )


def _files(tls: EventBusTls) -> TlsFiles:
    if not tls.enable:
        return TlsFiles()
    return TlsFiles(tls.tls_mqtt_ca_file, tls.tls_mqtt_cert_file, tls.tls_mqtt_private_key_file)


def _parse(url: str, key: str, schemes: tuple[str, ...]) -> SplitResult:
    key = f"modules.eventBus.{key}"
    try:
        parts = urlsplit(url if "://" in url else f"tcp://{url}")
        labels = (parts.hostname or "").removesuffix(".").split(".")
        if parts.port == 0 or not all(0 < len(label) < 64 for label in labels):
            raise ValueError(url)
    except ValueError as exc:
        raise UserError(f"{key}: {safe_label(url)} is no address", hint="write tcp://HOST:PORT") from exc
    if parts.scheme not in schemes:
        raise UserError(
            f"{key}: {safe_label(parts.scheme)}:// is not spoken here", hint=f"use {', '.join(schemes)}"
        )
    if parts.username or parts.password:
        raise UserError(
            f"{key}: user and password do not belong into the address",
            hint="use mqttUsername and mqttPassword",
        )
    return parts


def _port(parts: SplitResult, defaults: dict[str, int]) -> int:
    return parts.port if parts.port is not None else defaults.get(parts.scheme, 1883)
