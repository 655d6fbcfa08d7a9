"""What the machine is and how it feels: read from /proc, /sys and the file systems, nothing cached for long.

The paths are arguments, so that a test brings its own machine.
"""

import fcntl
import logging
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_ELSEWHERE = "192.0.2.1"  # TEST-NET-1: routed like any far address, and nobody's
_SIOCGIFADDR = 0x8915

_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "riscv64": "riscv64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "loongarch64": "loong64",
}


@dataclass(frozen=True, slots=True)
class Machine:
    """What does not change while the machine runs; sizes in bytes."""

    cores: int
    memory: int
    storage: int
    hugepages: tuple[tuple[str, int], ...]
    """(``2Mi``, bytes)"""
    machine_id: str
    system_uuid: str
    boot_id: str
    kernel: str
    os_image: str
    architecture: str


@dataclass(frozen=True, slots=True)
class Levels:
    """How much is left of what can run out: (available, capacity) each; capacity 0 means not known."""

    memory: tuple[int, int]
    node_bytes: tuple[int, int]
    node_inodes: tuple[int, int]
    image_bytes: tuple[int, int]
    image_inodes: tuple[int, int]
    pids: tuple[int, int]


class NodeProbe:
    """Reads the machine under `root` (``/``). `own_limits` takes the limits of our own cgroup into account.

    That is right when pods run as our children (the process runtime); beside a container runtime our own
    limits say nothing about the pods'.
    """

    def __init__(
        self,
        *,
        storage: Path,
        images: Path | None = None,
        root: Path = Path("/"),
        own_limits: bool = False,
    ) -> None:
        self._root = root
        self._storage = storage
        self._images = images
        self._own_limits = own_limits

    def machine(self) -> Machine:
        """Read what does not change."""
        info = self._meminfo()
        machine_id = self._read("etc/machine-id") or self._read("var/lib/dbus/machine-id")
        uname = os.uname()
        memory = info.get("MemTotal", 0)
        if self._own_limits:
            memory = min(memory, self._memory_limit() or memory)
        return Machine(
            cores=os.cpu_count() or 1,
            memory=memory,
            storage=_file_system(self._storage)[0][1],
            hugepages=self._hugepages(),
            machine_id=machine_id,
            system_uuid=self._read("sys/class/dmi/id/product_uuid").lower() or machine_id,
            boot_id=self._read("proc/sys/kernel/random/boot_id"),
            kernel=uname.release,
            os_image=self._os_image(),
            architecture=_ARCHITECTURES.get(uname.machine, uname.machine),
        )

    def levels(self) -> Levels:
        """Read what is left now."""
        info = self._meminfo()
        node_bytes, node_inodes = _file_system(self._storage)
        image_bytes, image_inodes = (
            _file_system(self._images) if self._images is not None else (node_bytes, node_inodes)
        )
        return Levels(
            (info.get("MemAvailable", 0), info.get("MemTotal", 0)),
            node_bytes,
            node_inodes,
            image_bytes,
            image_inodes,
            self._pids(),
        )

    def _read(self, name: str) -> str:
        try:
            return (self._root / name).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""

    def _meminfo(self) -> dict[str, int]:
        found = {}
        for line in self._read("proc/meminfo").splitlines():
            name, _, rest = line.partition(":")
            number = rest.split()
            if number and number[0].isdigit():
                found[name] = int(number[0]) * 1024
        return found

    def memory_is_limited(self) -> bool:
        """Whether our own cgroup may have less memory than the machine has."""
        limit = self._memory_limit()
        return 0 < limit < self._meminfo().get("MemTotal", 0)

    def _memory_limit(self) -> int:
        """The memory limit of our own cgroup (v2, else v1), 0 when there is none."""
        for line in self._read("proc/self/cgroup").splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0":
                text = self._read(f"sys/fs/cgroup{path}/memory.max")
            elif "memory" in controllers.split(","):
                text = self._read(f"sys/fs/cgroup/memory{path}/memory.limit_in_bytes")
            else:
                continue
            if text.isdigit():
                return int(text)
        return 0

    def _hugepages(self) -> tuple[tuple[str, int], ...]:
        sizes = []
        base = self._root / "sys/kernel/mm/hugepages"
        for directory in sorted(base.glob("hugepages-*kB")) if base.is_dir() else []:
            kib = int(directory.name.removeprefix("hugepages-").removesuffix("kB"))
            count = self._read(f"sys/kernel/mm/hugepages/{directory.name}/nr_hugepages")
            name = f"{kib >> 20}Gi" if kib >= 1 << 20 else f"{kib >> 10}Mi" if kib >= 1 << 10 else f"{kib}Ki"
            sizes.append((name, int(count or 0) * kib * 1024))
        return tuple(sizes)

    def _pids(self) -> tuple[int, int]:
        limit = self._read("proc/sys/kernel/pid_max")
        fields = self._read("proc/loadavg").split()
        if not limit.isdigit() or len(fields) < 4:
            return 0, 0
        running = fields[3].partition("/")[2]
        return int(limit) - int(running or 0), int(limit)

    def _os_image(self) -> str:
        for line in self._read("etc/os-release").splitlines():
            if line.startswith("PRETTY_NAME="):
                return line.partition("=")[2].strip("\"'")
        return os.uname().sysname


def _file_system(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """((available, all) bytes, (available, all) inodes) of the file system that `path` is or will be on.

    Zeros when a failing disk does not even say that much: the node goes on with what runs.
    """
    try:
        while not path.exists() and path != path.parent:
            path = path.parent
        stat = os.statvfs(path)
    except OSError as exc:
        log.warning("the file system of %s cannot be measured: %s", path, exc)
        return (0, 0), (0, 0)
    return (
        (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize),
        (stat.f_favail, stat.f_files),
    )


def interface_address(name: str) -> str:
    """The IPv4 address of the interface `name`; empty when it has none."""
    request = struct.pack("256s", name.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])


def apparmor_enabled(root: Path = Path("/")) -> bool:
    """Whether this kernel enforces AppArmor profiles."""
    try:
        return (root / "sys/module/apparmor/parameters/enabled").read_text().strip() == "Y"
    except OSError:
        return False


def running_kubelet(root: Path = Path("/")) -> int:
    """The process id of a kubelet on this machine, 0 if there is none."""
    for comm in (root / "proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text(encoding="utf-8", errors="replace").strip() == "kubelet":
                return int(comm.parent.name)
        except OSError:
            continue  # it ended meanwhile
    return 0


def local_address(towards: str) -> str:
    """The address this machine uses to reach `towards`; no packet is sent and no name is looked up.

    For a host name it is the address of the default route, 127.0.0.1 while there is none.
    """
    for family, target in (
        (socket.AF_INET, towards),
        (socket.AF_INET6, towards),
        (socket.AF_INET, _ELSEWHERE),
    ):
        try:
            socket.inet_pton(family, target)
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return "127.0.0.1"
