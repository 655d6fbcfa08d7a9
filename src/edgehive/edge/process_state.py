"""What the process runtime keeps on disk: one directory a sandbox and a container, one JSON record in each."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from edgehive.edge.patient import Steps
from edgehive.edge.programs import discard_tree, discarding
from edgehive.kit.errors import StorageError

_Record = TypeVar("_Record")


class SandboxRecord(msgspec.Struct):
    """A sandbox; of the present boot only when `boot` says so."""

    id: str
    attempt: int
    created_at: float
    boot: str
    log_directory: str
    hostname: str
    labels: dict[str, str]
    annotations: dict[str, str]
    stopped: bool = False


class ContainerRecord(msgspec.Struct):
    """A container and, once known, how it ended."""

    id: str
    sandbox_id: str
    name: str
    attempt: int
    image: str
    created_at: float
    log_path: str
    labels: dict[str, str]
    annotations: dict[str, str]
    mount_points: list[str] = []
    made_paths: list[str] = []
    """Directories and files made on the host so that mounts have a place; removed with the last user."""
    private_mounts: bool = False
    streams: str | None = None
    """How the monitor holds its pipes, see `edge.process_monitor`; None when it was started without one."""
    cgroup: list[str] = []
    """The components of its cgroup's path; none when it is in edgecore's."""
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int | None = None
    reason: str = ""


class ProcessState:
    """The directories below `base`."""

    def __init__(self, base: Path) -> None:
        self._base = base

    def prepare(self) -> None:
        """Make the directories; only their owner can list them."""
        for name in ("sandboxes", "containers"):
            (self._base / name).mkdir(parents=True, exist_ok=True, mode=0o711)
        self._base.chmod(0o711)  # a command of another user must reach its own directory

    def directory(self, container_id: str) -> Path:
        return self._base / "containers" / container_id

    def script(self, name: str, text: str) -> Path:
        """Write a script once; a running shell reads its script as it goes, so it is never overwritten."""
        path = self._base / name
        if not path.exists():
            _write(path, text.encode())
        return path

    def save_sandbox(self, record: SandboxRecord) -> None:
        directory = self._base / "sandboxes" / record.id
        directory.mkdir(exist_ok=True, mode=0o700)
        _write(directory / "sandbox.json", msgspec.json.encode(record))

    def save_container(self, record: ContainerRecord) -> None:
        directory = self.directory(record.id)
        directory.mkdir(exist_ok=True, mode=0o700)
        _write(directory / "container.json", msgspec.json.encode(record))

    def sandboxes(self) -> Iterator[SandboxRecord]:
        """Yield what is on disk; a directory whose record was never completed is removed."""
        yield from _load(self._base / "sandboxes", "sandbox.json", SandboxRecord)

    def containers(self) -> Iterator[ContainerRecord]:
        """Yield what is on disk, as `sandboxes`."""
        yield from _load(self._base / "containers", "container.json", ContainerRecord)

    def remove_sandbox(self, sandbox_id: str) -> None:
        discard_tree(self._base / "sandboxes" / sandbox_id)

    def emptying(self, container_id: str) -> Steps:
        """Remove what a container has written to its own place, in steps; its record stays until it is removed."""
        return discarding(self.directory(container_id) / "root")

    def remove_container(self, container_id: str) -> None:
        discard_tree(self.directory(container_id))


def _load(base: Path, name: str, kind: type[_Record]) -> Iterator[_Record]:
    for directory in base.iterdir():
        try:
            yield msgspec.json.decode((directory / name).read_bytes(), type=kind)
        except (OSError, msgspec.MsgspecError):
            discard_tree(directory)


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        temporary.rename(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {exc.strerror}") from exc
