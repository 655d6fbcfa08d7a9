"""The files of one container of the process runtime: its working directory, variables and scripts."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgehive.edge.cgroups import Limits, slice_directory
from edgehive.edge.process_host import give_to_user, link_mounts, user_prefix, working_directory
from edgehive.edge.process_shim import (
    CONTAINER_VARIABLE,
    ROOT_VARIABLE,
    enter_script,
    env_script,
    start_script,
)
from edgehive.edge.runtime import ContainerSpec, Mount

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def container_cgroup(parent: str, container_id: str) -> list[str]:
    """The components of a container's cgroup below its pod's: a directory, or a slice of systemd."""
    where = slice_directory(parent) if parent.endswith(".slice") else parent
    return [*(part for part in where.split("/") if part), container_id]


def limits_of(spec: ContainerSpec) -> Limits:
    """What a container's cgroup is given."""
    return Limits(
        cpu_shares=spec.cpu_shares or None,
        cpu_quota=spec.cpu_quota or None,
        cpu_period=spec.cpu_period or 100_000,
        memory=spec.memory_limit or None,
    )


def streams_of(spec: ContainerSpec) -> str:
    """The flags of `edge.process_monitor` for a container's pipes."""
    flags = (("t", spec.tty), ("i", spec.stdin), ("o", spec.stdin and spec.stdin_once))
    return "".join(letter for letter, given in flags if given)


@dataclass(frozen=True, slots=True)
class ContainerFiles:
    """Where one container's files are, and what goes into them besides its specification.

    `mounts` are bound in its mount namespace; `joins` are the files that put a process into its cgroup.
    """

    directory: Path
    hostname: str
    mounts: Sequence[Mount]
    joins: Sequence[str]

    def write(self, spec: ContainerSpec) -> None:
        """Make the directory; raises `OSError` or `RuntimeFailure`."""
        root = self.directory / "root"
        self.directory.mkdir(mode=0o700)
        if not spec.tty:
            for name in ("out", "err", *(["in"] if spec.stdin else [])):
                os.mkfifo(self.directory / name, 0o600)
        root.mkdir(mode=0o755)
        link_mounts(root, spec.mounts)
        where = working_directory(root, spec.working_dir)
        given = {"PATH": PATH, "HOME": str(root), "HOSTNAME": self.hostname}
        given |= ({"TERM": "xterm"} if spec.tty else {}) | dict(spec.env)
        given |= {CONTAINER_VARIABLE: self.directory.name, ROOT_VARIABLE: str(root)}
        exports, prefix = env_script(given)
        user = user_prefix(spec.security)
        start = start_script(
            command=[*prefix, *spec.command, *spec.args],
            directory="root" if where == root else str(where),
            mounts=self.mounts,
            user=user,
            joins=self.joins,
            oom_score=spec.oom_score_adj,
        )
        enter = enter_script(str(self.directory), user=user, joins=self.joins, oom_score=spec.oom_score_adj)
        if user:
            self.directory.chmod(0o711)
            give_to_user(root, spec.security)
        for name, text in (("start.sh", start), ("enter.sh", enter), ("env.sh", exports)):
            (self.directory / name).touch(mode=0o600)
            (self.directory / name).write_text(text)
