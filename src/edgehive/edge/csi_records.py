"""What the node has asked of CSI drivers, on disk: it survives a kill, and tells after it what is still to be undone.

The files are a kubelet's ``vol_data.json`` (a map of strings), in its directories. A record is written before the driver
is called and marked with the boot in which the call succeeded: without the mark of this boot it is called again.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

FILE = "vol_data.json"
PLUGIN = "kubernetes.io~csi"
BOOT = "edgehiveBoot"

Record = dict[str, str]


def load(home: Path) -> Record:
    """Return the record in `home`, empty when there is none that can be read."""
    try:
        found = json.loads((home / FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def save(home: Path, record: Record) -> None:
    """Write the record durably, in one step; raises `OSError`."""
    home.mkdir(parents=True, exist_ok=True, mode=0o750)
    temporary = home / f"{FILE}.tmp"
    with temporary.open("w") as out:
        json.dump(record, out)
        out.flush()
        os.fsync(out.fileno())
    temporary.rename(home / FILE)


def remove(home: Path, mount_point: str) -> None:
    """Remove the record with its directories; one that still has something mounted or in it stays, with an `OSError`."""
    point = home / mount_point
    if point.is_mount():
        raise OSError(f"{point} is still mounted")
    with contextlib.suppress(FileNotFoundError):
        if point.is_dir():
            point.rmdir()
        else:
            point.unlink()
    (home / FILE).unlink(missing_ok=True)
    (home / f"{FILE}.tmp").unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        home.rmdir()


def boot_id() -> str:
    """What tells this boot of the machine from all others."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Places:
    """Where the volumes of a node are."""

    def __init__(self, root: Path) -> None:
        self._pods = root / "pods"
        self._staged = root / "plugins" / "kubernetes.io" / "csi"

    def pod(self, uid: str) -> Path:
        """The directory of a pod's CSI volumes."""
        return self._pods / uid / "volumes" / PLUGIN

    def volume(self, uid: str, name: str) -> Path:
        """The directory of one volume of a pod; the volume itself appears in ``mount`` below it."""
        return self.pod(uid) / name

    def staging(self, driver: str, handle: str) -> Path:
        """The directory of a staged volume; it is staged at ``globalmount`` below it."""
        return self._staged / driver / hashlib.sha256(handle.encode()).hexdigest()

    def published(self) -> Iterator[Record]:
        """Yield the record of every volume of every pod."""
        with contextlib.suppress(OSError):
            for pod in self._pods.iterdir():
                with contextlib.suppress(OSError):
                    for home in self.pod(pod.name).iterdir():
                        if record := load(home):
                            yield record

    def staged(self, driver: str) -> Iterator[Record]:
        """Yield the record of every volume of `driver` that is staged."""
        with contextlib.suppress(OSError):
            for home in (self._staged / driver).iterdir():
                if record := load(home):
                    yield record
