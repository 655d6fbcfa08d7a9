"""The two files that a container gets: ``/etc/hosts``, and one for last words."""

import re
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from edgehive.edge.pods_spec import Container, Pod
from edgehive.edge.runtime import ContainerInfo, Mount, SandboxSpec, State

_HOSTS = "/etc/hosts"
_MESSAGE_LIMIT = 4096
_LOG_TAIL = 2048
_CRI_PREFIX = re.compile(r"^\S+ (?:stdout|stderr) [FP] ", re.MULTILINE)


class PodFiles:
    """Files below ``<root>/pods/<uid>``; they go with the pod's volumes."""

    def __init__(self, root: Path) -> None:
        self._pods = root / "pods"

    def mounts(
        self,
        pod: Pod,
        container: Container,
        attempt: int,
        sandbox: SandboxSpec,
        pod_ip: str,
        *,
        own_files: bool = True,
    ) -> list[Mount]:
        """Write the files for a start of `container` and return their mounts.

        Without `own_files` it sees those of the node, which are enough unless the pod has names of its own.

        Raises:
            OSError: They cannot be written.
        """
        base = self._pods / pod.uid
        base.mkdir(parents=True, exist_ok=True)
        result = []
        wanted = own_files or pod.spec.host_aliases
        if wanted and all(one.mount_path != _HOSTS for one in container.volume_mounts):
            hosts = base / "etc-hosts"
            text = hosts_text(pod, sandbox if own_files else replace(sandbox, host_network=True), pod_ip)
            if not _has(hosts, text.encode()):
                hosts.write_text(text)  # in place: other containers of the pod have it mounted
            result.append(Mount(str(hosts), _HOSTS))
        if path := container.termination_message_path:
            words = self._words(pod.uid, container.name, attempt)
            words.parent.mkdir(parents=True, exist_ok=True)
            words.touch(mode=0o666)
            words.chmod(0o666)  # whoever the container runs as
            result.append(Mount(str(words), path))
        return result

    def with_messages(self, pod: Pod, containers: Sequence[ContainerInfo]) -> list[ContainerInfo]:
        """Add to containers that have ended what they wrote as their last words."""
        return [self._with_message(pod, info) for info in containers]

    def _with_message(self, pod: Pod, info: ContainerInfo) -> ContainerInfo:
        if info.state is not State.EXITED or info.message:
            return info
        one = pod.container(info.name)
        text = _read(self._words(pod.uid, info.name, info.attempt), _MESSAGE_LIMIT)
        fallback = one is not None and one.termination_message_policy == "FallbackToLogsOnError"
        if not text and fallback and info.exit_code != 0 and info.log_path:
            text = _CRI_PREFIX.sub("", _tail(Path(info.log_path)))
        return replace(info, message=text) if text else info

    def forget(self, uid: str, info: ContainerInfo) -> None:
        """Remove the last words of a container that is removed."""
        self._words(uid, info.name, info.attempt).unlink(missing_ok=True)

    def _words(self, uid: str, name: str, attempt: int) -> Path:
        return self._pods / uid / "containers" / name / str(attempt)


def hosts_text(pod: Pod, sandbox: SandboxSpec, pod_ip: str) -> str:
    """Return the content of ``/etc/hosts``: the host's own for pods in its network, and the pod's hostAliases."""
    if sandbox.host_network:
        text = _read(Path(_HOSTS), 1 << 20).rstrip("\n") + "\n"
    else:
        lines = [
            "127.0.0.1\tlocalhost",
            "::1\tlocalhost ip6-localhost ip6-loopback",
        ]
        if pod_ip:
            names = sandbox.hostname
            if pod.spec.subdomain:
                names = f"{names}.{pod.spec.subdomain}.{pod.metadata.namespace}.svc {names}"
            lines.append(f"{pod_ip}\t{names}")
        text = "\n".join(lines) + "\n"
    for alias in pod.spec.host_aliases:
        names = "\t".join(str(name) for name in alias.get("hostnames") or ())
        text += f"{alias.get('ip', '')}\t{names}\n"
    return text


def _has(path: Path, content: bytes) -> bool:
    """Whether a file has exactly this; no more is read of it, since containers write there what they like."""
    try:
        with path.open("rb") as file:
            return file.read(len(content) + 1) == content
    except OSError:
        return False


def _read(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            return file.read(limit).decode(errors="replace")
    except OSError:
        return ""


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_TAIL))
            return file.read(_LOG_TAIL).decode(errors="replace")
    except OSError:
        return ""
