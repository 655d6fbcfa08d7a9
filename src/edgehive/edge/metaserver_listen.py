"""Where MetaServer listens, and which of it pods are told: from the configuration, without surprises.

Without ``requireAuthorization`` only loopback is served. With it, also the dummy address, which every pod of a node can
reach: on an interface ``edge-dummy0`` that is made here when it may be, or on loopback where the kernel has no such.
"""

import ipaddress
import logging
import socket
import subprocess
from dataclasses import dataclass

from edgehive.edge.config import EdgeCoreConfig
from edgehive.edge.config_load import split_address
from edgehive.edge.programs import find_program
from edgehive.kit.errors import UserError

log = logging.getLogger(__name__)

GATE = "requireAuthorization"
INTERFACE = "edge-dummy0"
_KEY = "modules.metaManager.metaServer"


@dataclass(frozen=True, slots=True)
class Listening:
    """`addresses` are served, with TLS and authorization if `secure`; pods are told `for_pods`, if anything."""

    addresses: tuple[tuple[str, int], ...]
    secure: bool = False

    @property
    def for_pods(self) -> tuple[str, str]:
        """``KUBERNETES_SERVICE_HOST`` and ``_PORT``; clients in pods speak TLS only."""
        host, port = self.addresses[-1]
        return (host, str(port)) if self.secure and port else ("", "")


def check_config(config: EdgeCoreConfig) -> Listening:
    """Read where to listen.

    Raises:
        UserError: that would serve others than this machine without asking who they are.
    """
    settings = config.modules.meta_manager.meta_server
    host, port = split_address(settings.server)
    if not config.feature_gates.get(GATE):
        if not _is_loopback(host):
            raise UserError(
                f"{_KEY}.server: {host} can be reached by others, and MetaServer asks nobody who he is",
                hint=f"use 127.0.0.1, or switch the feature gate {GATE} on",
            )
        return Listening(((host, port),))
    if not _is_address(host):
        raise UserError(f"{_KEY}.server: {host} must be an address, as it goes into a certificate")
    addresses = [(host, port)]
    if settings.dummy_server:
        dummy = split_address(settings.dummy_server)
        if not _is_address(dummy[0]):
            raise UserError(
                f"{_KEY}.dummyServer: {dummy[0]} must be an address, as it goes into a certificate"
            )
        addresses.append(dummy)
    return Listening(tuple(addresses), secure=True)


def reachable(listening: Listening, *, make_interface: bool) -> Listening:
    """What of `listening` this machine can serve: the dummy address only where it is, or can be made."""
    if len(listening.addresses) < 2:
        return listening
    host, _ = listening.addresses[1]
    if _is_here(host) or (make_interface and _make_interface(host)):
        return listening
    log.warning(
        "the address %s is not on this machine and may not be made; pods are told %s, which those with a network of "
        "their own cannot reach if it is loopback",
        host,
        listening.addresses[0][0],
    )
    return Listening(listening.addresses[:1], listening.secure)


def _is_here(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def _make_interface(host: str) -> bool:
    """Give this machine the address, on a dummy interface or, where the kernel has none, on loopback."""
    program = find_program("ip")
    if program is None:
        return False
    address = f"{host}/{128 if ':' in host else 32}"
    dummy = (
        f"link add {INTERFACE} type dummy",
        f"addr add {address} dev {INTERFACE}",
        f"link set {INTERFACE} up",
    )
    for place, commands in ((INTERFACE, dummy), ("lo", (f"addr add {address} dev lo",))):
        if all(_run(program, command) for command in commands) and _is_here(host):
            log.info("%s is now an address of %s", host, place)
            return True
    return False


def _run(program: str, command: str) -> bool:
    done = subprocess.run([program, *command.split()], capture_output=True, timeout=10, check=False)
    if done.returncode and b"File exists" not in done.stderr:
        log.info("ip %s: %s", command, done.stderr.decode("utf-8", "replace").strip())
        return False
    return True


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback if _is_address(host) else host == "localhost"
