"""A network for pods on a machine where nobody has set one up: a bridge of our own, as one file for the runtime.

``modules.edged.defaultPodNetwork: bridge`` asks for it. The file is written only while there is no other
configuration, and its name sorts behind all others, so a network add-on that comes later wins.
"""

import ipaddress
import json
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgehive.kit.errors import UserError

log = logging.getLogger(__name__)

FILE_NAME = "99-edgehive.conflist"
BRIDGE = "edgehive0"
NEEDED = ("bridge", "host-local", "loopback", "portmap")
PACKAGES = "install the CNI plugins (Debian: containernetworking-plugins; elsewhere into /opt/cni/bin)"

_SUFFIXES = (".conf", ".conflist", ".json")
_SUBNETS = ("10.86.0.0/16", "10.186.0.0/16", "172.29.0.0/16", "192.168.248.0/21")
_CONF_DIR, _BIN_DIRS = "/etc/cni/net.d", ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")


@dataclass(frozen=True, slots=True)
class NetworkDirectories:
    """Where the runtime looks for configurations and for plugins."""

    configurations: str = _CONF_DIR
    plugins: Sequence[str] = _BIN_DIRS


def directories_of(config: str) -> NetworkDirectories:
    """Read a runtime's configuration as its verbose status has it; the usual places when it does not say."""
    try:
        found = json.loads(config or "{}").get("cni") or {}
        plugins = [str(one) for one in found.get("binDirs") or [found.get("binDir")] if one]
        where = str(found.get("confDir") or "")
    except (ValueError, RecursionError, AttributeError, TypeError):
        return NetworkDirectories()
    usual = NetworkDirectories()
    return NetworkDirectories(where or usual.configurations, plugins or usual.plugins)


def missing_plugins(directories: NetworkDirectories) -> list[str]:
    """Which of the plugins that are needed are not there."""
    return [
        name
        for name in NEEDED
        if not any(os.access(Path(place, name), os.X_OK) for place in directories.plugins)
    ]


def others(directories: NetworkDirectories) -> list[str]:
    """Configurations that somebody else has written."""
    try:
        names = sorted(path.name for path in Path(directories.configurations).iterdir())
    except OSError:
        return []
    return [name for name in names if name.endswith(_SUFFIXES) and name != FILE_NAME]


def choose_subnet(wanted: str, taken: Iterable[ipaddress.IPv4Network]) -> str:
    """`wanted`, or the first of a few private networks that this machine has no route to.

    Raises:
        UserError: `wanted` is no IPv4 network, or all are in use.
    """
    if wanted:
        try:
            return str(ipaddress.IPv4Network(wanted))
        except ValueError as exc:
            raise UserError(f"modules.edged.tailoredKubeletConfig.podCIDR: {exc}") from exc
    routes = list(taken)
    for candidate in _SUBNETS:
        if not any(ipaddress.IPv4Network(candidate).overlaps(route) for route in routes):
            return candidate
    raise UserError(
        "every network that edgehive would give to pods is in use here",
        hint="choose one: modules.edged.tailoredKubeletConfig.podCIDR",
    )


def parse_routes(text: str) -> list[ipaddress.IPv4Network]:
    """Read ``/proc/net/route`` (addresses are hexadecimal, least byte first); the default route is left out."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8 or fields[0] == BRIDGE or fields[7] == "00000000":
            continue
        address, mask = (bytes.fromhex(fields[n])[::-1] for n in (1, 7))
        bits = bin(int.from_bytes(mask, "big")).count("1")
        found.append(ipaddress.IPv4Network((address, bits), strict=False))
    return found


def conflist(subnet: str, *, firewall: bool) -> str:
    """The configuration: a bridge with the gateway, addresses from `subnet`, masquerading, host ports."""
    plugins = [
        {
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": subnet}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    if firewall:  # lets pods' packets pass where the FORWARD chain drops, as beside Docker
        plugins.append({"type": "firewall"})
    return json.dumps({"cniVersion": "0.4.0", "name": "edgehive", "plugins": plugins}, indent=2) + "\n"


def set_up(directories: NetworkDirectories, subnet: str, *, routes: Path = Path("/proc/net/route")) -> str:
    """Write the configuration if there is none; return what was done, empty when nothing had to be.

    Raises:
        UserError: plugins are missing, no network is free, or the directory cannot be written.
    """
    if found := others(directories):
        log.debug("pods are given addresses by %s", found[0])
        return ""
    path = Path(directories.configurations, FILE_NAME)
    if path.exists():
        return ""
    if missing := missing_plugins(directories):
        where = ", ".join(directories.plugins)
        raise UserError(f"no network for pods: {', '.join(missing)} not found in {where}", hint=PACKAGES)
    try:
        chosen = choose_subnet(subnet, parse_routes(routes.read_text()))
        firewall = any(Path(place, "firewall").exists() for place in directories.plugins)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{FILE_NAME}.new")
        temporary.write_text(conflist(chosen, firewall=firewall and shutil.which("iptables") is not None))
        temporary.rename(path)
    except OSError as exc:
        raise UserError(f"no network for pods: {path}: {exc.strerror}") from exc
    return f"pods get addresses of {chosen} on the bridge {BRIDGE} ({path})"
