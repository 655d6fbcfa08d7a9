"""The shell scripts of the process runtime: a shim that outlives edgecore, and what it starts.

The shim is a POSIX shell of well under a megabyte. It writes its own identity, starts the command in a session of
its own, writes the command's identity, waits, kills what the command left behind, and writes the exit code. An
identity is a pid, the start time from ``/proc/<pid>/stat`` and the boot id, so a reused pid is never taken for it.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgehive.edge.runtime import Mount

CONTAINER_VARIABLE = "EDGEHIVE_CONTAINER_ID"
ROOT_VARIABLE = "EDGEHIVE_ROOT"

SHIM = """\
# usage: shim.sh DIRECTORY TERMINAL INPUT COMMAND...   INPUT: keep, once or none
cd "$1" || exit 1
exec </dev/null >/dev/null 2>&1
terminal=$2 input=$3
shift 3
trap : HUP INT TERM
read -r boot </proc/sys/kernel/random/boot_id
identity() {
    read -r line <"/proc/$1/stat" || line="$1 (gone) Z 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"
    pid=$1
    set -- ${line##*) }
    echo "$pid ${20} $boot"
}
identity $$ >shim
# Opened for both directions, a pipe neither blocks nor breaks while its reader is away.
if [ -n "$terminal" ]; then
    # The monitor keeps the terminal open until it is told that somebody else has.
    (exec <"$terminal" >"$terminal" 2>&1; : >opened; exec setsid -c "$@") &
elif [ "$input" = keep ]; then
    exec 3<>out 4<>err 5<>in
    setsid "$@" <&5 >&3 2>&4 3>&- 4>&- 5>&- &
elif [ "$input" = once ]; then
    exec 3<>out 4<>err
    setsid "$@" <in >&3 2>&4 3>&- 4>&- &
else
    exec 3<>out 4<>err
    setsid "$@" </dev/null >&3 2>&4 3>&- 4>&- &
fi
child=$!
identity "$child" >pid
while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
done
kill -KILL "-$child" 2>/dev/null
echo "$code" >exit
"""

LAUNCH = 'setsid sh "$@" </dev/null >/dev/null 2>&1 &'

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of this boot."""

    pid: int
    started: str
    boot: str

    @classmethod
    def load(cls, path: Path) -> "Identity | None":
        """Read what the shim wrote; None when it is not there or not whole."""
        try:
            pid, started, boot = path.read_text().split()
            return cls(int(pid), started, boot)
        except (OSError, ValueError):
            return None

    def alive(self, boot: str) -> bool:
        """Whether exactly this process still runs (a zombie does not)."""
        if self.boot != boot:
            return False
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            return False
        return len(fields) > 19 and fields[19] == self.started and fields[0] not in ("Z", "X")


def boot_id() -> str:
    """Identify this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _place(joins: Sequence[str], oom_score: int) -> list[str]:
    """Lines that put the shell, and what it becomes, into its cgroup; a limit that cannot be had stops nothing."""
    lines = [f"{{ echo $$ >{shlex.quote(file)}; }} 2>/dev/null" for file in joins]
    return [*lines, f"{{ echo {oom_score} >/proc/self/oom_score_adj; }} 2>/dev/null"]


def enter_script(directory: str, *, user: Sequence[str], joins: Sequence[str], oom_score: int) -> str:
    """Return the script that runs its arguments as a further command of the container."""
    home = shlex.quote(directory)
    lines = [*_place(joins, oom_score), f". {home}/env.sh", f'cd "${ROOT_VARIABLE}"']
    lines.append(f'exec {shlex.join(user)} "$@"' if user else 'exec "$@"')
    return "\n".join(lines) + "\n"


def start_script(
    *,
    command: Sequence[str],
    directory: str,
    mounts: Sequence[Mount],
    user: Sequence[str],
    joins: Sequence[str] = (),
    oom_score: int = 0,
) -> str:
    """Return the script that becomes the container's command; `mounts` are bound in its mount namespace.

    A mount whose path cannot be made stays reachable below ``$EDGEHIVE_ROOT``; the log says so.
    """
    lines = _place(joins, oom_score)
    for mount in sorted(mounts, key=lambda m: m.container_path):
        source, target = shlex.quote(mount.host_path), shlex.quote(mount.container_path)
        lines.append(
            f'if [ -d {source} ]; then mkdir -p {target}; else mkdir -p "$(dirname {target})"; '
            f"[ -e {target} ] || : >{target}; fi 2>/dev/null"
        )
        check = ":"
        if mount.identity:
            swapped = f'echo "edgehive: what is mounted at "{target}" was swapped meanwhile" >&2'
            check = f'[ "$(stat -c %d:%i {target})" = {mount.identity} ] || {{ {swapped}; exit 128; }}'
        lines.append(
            f"if mount --bind {source} {target}; then {check}; "
            f'else echo "edgehive: "{target}" is only at \\${ROOT_VARIABLE}"{target} >&2; fi'
        )
        if mount.readonly:
            lines.append(f"mount -o remount,bind,ro {target}")
    lines += [". ./env.sh", f"cd {shlex.quote(directory)} || exit 128"]
    lines.append("exec " + shlex.join([*user, *command]))
    return "\n".join(lines) + "\n"


def env_script(env: Mapping[str, str]) -> tuple[str, list[str]]:
    """Return the exports, and for names that a shell cannot export an ``env`` prefix of the command."""
    exports = [
        f"export {name}={shlex.quote(value)}" for name, value in env.items() if _VARIABLE.fullmatch(name)
    ]
    others = [f"{name}={value}" for name, value in env.items() if not _VARIABLE.fullmatch(name)]
    return "\n".join(exports) + "\n", (["env", *others] if others else [])
