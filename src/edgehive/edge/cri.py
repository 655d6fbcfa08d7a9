"""The CRI runtime: containerd, CRI-O and others over ``runtime.v1`` on a unix socket.

Lists are cheap: an item whose bytes were seen in the last list is not decoded again, and what only a status call
tells (start, end, exit code, address) is asked once for each state an item is in.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from edgehive.aio import cri_messages as cri
from edgehive.aio import grpc
from edgehive.aio.protobuf import Message, Method, decode, encode, split_repeated
from edgehive.edge.cri_spec import check_non_root, container_config, sandbox_config
from edgehive.edge.runtime import (
    ContainerInfo,
    ContainerSpec,
    ExecResult,
    ImageInfo,
    Interface,
    PodUsage,
    RuntimeFailure,
    RuntimeVersion,
    SandboxInfo,
    SandboxSpec,
    State,
    Usage,
)
from edgehive.kit.errors import Unreachable
from edgehive.kit.text import safe_label

log = logging.getLogger(__name__)

_TIMEOUT = 120.0
_SANDBOX_TIMEOUT = 240.0
_NODE_NETWORK = 2
_UID = "io.kubernetes.pod.uid"
_STATES = (State.CREATED, State.RUNNING, State.EXITED, State.UNKNOWN)

_STARTING = "server is not initialized yet"
"""What containerd says, with status UNKNOWN, between opening its socket and having loaded its containers."""

Value = dict[str, Any]


class CriRuntime:
    """A `Runtime` behind the socket at `endpoint`."""

    def __init__(self, *, endpoint: str, node_ip: str) -> None:
        self._client = grpc.GrpcClient(endpoint.removeprefix("unix://"))
        self._node_ip = node_ip
        self._seen_sandboxes: dict[bytes, Value] = {}
        self._seen_containers: dict[bytes, Value] = {}
        self._sandbox_infos: dict[str, SandboxInfo] = {}
        self._container_infos: dict[str, ContainerInfo] = {}

    async def _call(self, method: Method, within: float | None = _TIMEOUT, **request: Any) -> Value:
        return decode(method.response, await self._raw(method, within, request))

    async def _raw(self, method: Method, timeout: float | None, request: Value) -> bytes:
        name = method.path.rpartition("/")[2]
        try:
            return await self._client.call(method.path, encode(method.request, request), timeout=timeout)
        except grpc.GrpcError as exc:
            if exc.code == grpc.UNAVAILABLE or exc.message == _STARTING:
                raise Unreachable(f"{name}: {exc}") from exc
            reason = "NotFound" if exc.code == grpc.NOT_FOUND else f"{name}Failed"
            raise RuntimeFailure(reason, safe_label(exc.message, 1000)) from exc

    @property
    def has_own_files(self) -> bool:
        return True

    # --- node -------------------------------------------------------------------------------------------

    async def version(self) -> RuntimeVersion:
        answer = await self._call(cri.Version, version="v1")
        return RuntimeVersion(
            str(answer.get("runtime_name", "unknown")), str(answer.get("runtime_version", ""))
        )

    async def network_problem(self) -> str:
        answer = await self._call(cri.Status)
        for condition in answer.get("status", {}).get("conditions", ()):
            if condition.get("type") == "NetworkReady" and not condition.get("status"):
                return f"{condition.get('reason', '')}: {condition.get('message', '')}"
        return ""

    async def own_config(self) -> str:
        """The runtime's configuration as it tells it (containerd: JSON), for `edge.cni.directories_of`."""
        answer = await self._call(cri.Status, verbose=True)
        return str(answer.get("info", {}).get("config", ""))

    async def image_filesystem(self) -> str:
        """Return the mount point that holds the images; empty when the runtime does not say."""
        answer = await self._call(cri.ImageFsInfo)
        for one in answer.get("image_filesystems", ()):
            return str(one.get("fs_id", {}).get("mountpoint", ""))
        return ""

    async def check_pod(self, pod: Mapping[str, object]) -> None:
        """Images and commands are the runtime's to judge; it does when containers are created."""

    # --- sandboxes --------------------------------------------------------------------------------------

    async def run_sandbox(self, spec: SandboxSpec) -> str:
        answer = await self._call(
            cri.RunPodSandbox,
            _SANDBOX_TIMEOUT,
            config=sandbox_config(spec),
            runtime_handler=spec.runtime_handler,
        )
        return str(answer["pod_sandbox_id"])

    async def stop_sandbox(self, sandbox_id: str) -> None:
        with _gone_is_fine():
            await self._call(cri.StopPodSandbox, _SANDBOX_TIMEOUT, pod_sandbox_id=sandbox_id)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        with _gone_is_fine():
            await self._call(cri.RemovePodSandbox, pod_sandbox_id=sandbox_id)

    async def list_sandboxes(self, pod_uid: str = "") -> Sequence[SandboxInfo]:
        request = {"filter": {"label_selector": {_UID: pod_uid}}} if pod_uid else {}
        raw = await self._raw(cri.ListPodSandbox, _TIMEOUT, request)
        items, seen = _decode_items(raw, cri.SANDBOX, self._seen_sandboxes)
        result = []
        for item in items:
            with _gone_is_fine():
                result.append(await self._sandbox_info(item))
        if not pod_uid:
            self._seen_sandboxes = seen
            self._sandbox_infos = {info.id: info for info in result}
        return result

    async def _sandbox_info(self, item: Value) -> SandboxInfo:
        ready = item.get("state", 0) == 0
        known = self._sandbox_infos.get(item["id"])
        if known is not None and (known.ready == ready):
            return known
        if known is not None:
            info = replace(known, ready=ready)
        else:
            info = await self.sandbox_status(item["id"])
        self._sandbox_infos[info.id] = info
        return info

    async def sandbox_status(self, sandbox_id: str) -> SandboxInfo:
        answer = await self._call(cri.PodSandboxStatus, pod_sandbox_id=sandbox_id)
        status = answer.get("status", {})
        options = status.get("linux", {}).get("namespaces", {}).get("options", {})
        host = options.get("network") == _NODE_NETWORK
        return SandboxInfo(
            id=sandbox_id,
            ready=status.get("state", 0) == 0,
            created_at=_seconds(status.get("created_at", 0)),
            labels=status.get("labels", {}),
            annotations=status.get("annotations", {}),
            ip=self._node_ip if host else str(status.get("network", {}).get("ip", "")),
            attempt=int(status.get("metadata", {}).get("attempt", 0)),
        )

    # --- containers -------------------------------------------------------------------------------------

    async def create_container(self, sandbox_id: str, spec: ContainerSpec, sandbox: SandboxSpec) -> str:
        if spec.security.get("runAsNonRoot"):
            image = await self.image_status(spec.image)
            check_non_root(spec, image.user if image else "")
        answer = await self._call(
            cri.CreateContainer,
            pod_sandbox_id=sandbox_id,
            config=container_config(spec, sandbox),
            sandbox_config=sandbox_config(sandbox),
        )
        return str(answer["container_id"])

    async def start_container(self, container_id: str) -> None:
        await self._call(cri.StartContainer, container_id=container_id)

    async def stop_container(self, container_id: str, grace: float) -> None:
        with _gone_is_fine():
            await self._call(
                cri.StopContainer, _TIMEOUT + grace, container_id=container_id, timeout=int(grace)
            )

    async def remove_container(self, container_id: str) -> None:
        with _gone_is_fine():
            await self._call(cri.RemoveContainer, container_id=container_id)

    async def list_containers(self, pod_uid: str = "") -> Sequence[ContainerInfo]:
        request = {"filter": {"label_selector": {_UID: pod_uid}}} if pod_uid else {}
        raw = await self._raw(cri.ListContainers, _TIMEOUT, request)
        items, seen = _decode_items(raw, cri.CONTAINER, self._seen_containers)
        result = []
        for item in items:
            with _gone_is_fine():
                result.append(await self._container_info(item))
        if not pod_uid:
            self._seen_containers = seen
            self._container_infos = {info.id: info for info in result}
        return result

    async def _container_info(self, item: Value) -> ContainerInfo:
        state = _STATES[item.get("state", 0) & 3]
        known = self._container_infos.get(item["id"])
        if known is None or known.state is not state:
            known = await self._status(item["id"], str(item.get("pod_sandbox_id", "")))
            self._container_infos[known.id] = known
        return known

    async def container_status(self, container_id: str) -> ContainerInfo:
        known = self._container_infos.get(container_id)
        return await self._status(container_id, known.sandbox_id if known else "")

    async def _status(self, container_id: str, sandbox_id: str) -> ContainerInfo:
        answer = await self._call(cri.ContainerStatus, container_id=container_id)
        status = answer.get("status", {})
        metadata = status.get("metadata", {})
        return ContainerInfo(
            id=container_id,
            sandbox_id=sandbox_id,
            name=str(metadata.get("name", "")),
            attempt=int(metadata.get("attempt", 0)),
            state=_STATES[status.get("state", 0) & 3],
            created_at=_seconds(status.get("created_at", 0)),
            started_at=_seconds(status.get("started_at", 0)),
            finished_at=_seconds(status.get("finished_at", 0)),
            exit_code=int(status.get("exit_code", 0)),
            reason=str(status.get("reason", "")),
            message=str(status.get("message", "")),
            image=str(status.get("image", {}).get("image", "")),
            image_id=str(status.get("image_ref", "")),
            labels=status.get("labels", {}),
            annotations=status.get("annotations", {}),
            log_path=str(status.get("log_path", "")),
        )

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
        answer = await self._call(
            cri.ExecSync,
            timeout + 10 if timeout else None,
            container_id=container_id,
            cmd=list(command),
            timeout=int(timeout),
        )
        return ExecResult(
            int(answer.get("exit_code", 0)), answer.get("stdout", b""), answer.get("stderr", b"")
        )

    async def usage(self) -> Mapping[str, Usage]:
        answer = await self._call(cri.ListContainerStats)
        found = {}
        for one in answer.get("stats", ()):
            cpu, memory, layer = one.get("cpu", {}), one.get("memory", {}), one.get("writable_layer", {})
            at = _seconds(cpu.get("timestamp", 0) or memory.get("timestamp", 0))
            found[str(one.get("attributes", {}).get("id", ""))] = Usage(
                memory=_value(memory, "working_set_bytes"),
                disk=_value(layer, "used_bytes"),
                at=at,
                cpu=_value(cpu, "usage_core_nano_seconds"),
                total=_value(memory, "usage_bytes"),
                resident=_value(memory, "rss_bytes"),
                page_faults=_value(memory, "page_faults"),
                major_page_faults=_value(memory, "major_page_faults"),
                inodes=_value(layer, "inodes_used"),
            )
        return found

    async def pod_usage(self) -> Mapping[str, PodUsage]:
        try:
            answer = await self._call(cri.ListPodSandboxStats)
        except RuntimeFailure as exc:
            # Older runtimes do not know it; containerd 1.6 refuses all for one sandbox without a cgroup parent.
            log.debug("the container runtime tells nothing of pods' networks: %s", exc.message)
            return {}
        found = {}
        for one in answer.get("stats", ()):
            linux = one.get("linux", {})
            network = linux.get("network", {})
            known = {str(i.get("name", "")): i for i in network.get("interfaces", ())}
            if "default_interface" in network:
                first = network["default_interface"]
                known = {str(first.get("name", "")): first} | known
            uid = str(one.get("attributes", {}).get("metadata", {}).get("uid", ""))
            found[uid] = PodUsage(
                [
                    Interface(
                        name,
                        _value(i, "rx_bytes"),
                        _value(i, "rx_errors"),
                        _value(i, "tx_bytes"),
                        _value(i, "tx_errors"),
                    )
                    for name, i in known.items()
                    if name
                ],
                _value(linux.get("process", {}), "process_count"),
            )
        return found

    async def reopen_log(self, container_id: str) -> bool:
        await self._call(cri.ReopenContainerLog, container_id=container_id)
        return True

    async def exec_url(
        self, container_id: str, command: Sequence[str], *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str:
        """Where the runtime's streaming server runs a command for a client."""
        answer = await self._call(
            cri.Exec,
            container_id=container_id,
            cmd=list(command),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            tty=tty,
        )
        return str(answer.get("url", ""))

    async def attach_url(
        self, container_id: str, *, stdin: bool, stdout: bool, stderr: bool, tty: bool
    ) -> str:
        """Where the runtime's streaming server joins a client to a container's command."""
        answer = await self._call(
            cri.Attach, container_id=container_id, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty
        )
        return str(answer.get("url", ""))

    async def port_forward_url(self, sandbox_id: str, ports: Sequence[int]) -> str:
        """Where the runtime's streaming server forwards ports of a sandbox."""
        answer = await self._call(cri.PortForward, pod_sandbox_id=sandbox_id, port=list(ports))
        return str(answer.get("url", ""))

    async def events(self) -> AsyncIterator[str]:
        """Yield pod uids from the runtime's event stream; end at once where it has none."""
        method = cri.GetContainerEvents
        try:
            async with contextlib.aclosing(self._client.stream(method.path, b"")) as stream:
                async for raw in stream:
                    event = decode(method.response, raw)
                    yield str(event.get("pod_sandbox_status", {}).get("metadata", {}).get("uid", ""))
        except grpc.GrpcError as exc:
            if exc.code != grpc.UNIMPLEMENTED:
                raise Unreachable(f"events of the container runtime: {exc}") from exc
            log.info("the container runtime offers no events; relisting instead")

    # --- images -----------------------------------------------------------------------------------------

    async def image_status(self, image: str) -> ImageInfo | None:
        answer = await self._call(cri.ImageStatus, image={"image": image})
        found = answer.get("image")
        return _image(found) if found and found.get("id") else None

    async def pull_image(self, image: str, auth: Mapping[str, str] | None = None) -> str:
        request: Value = {"image": {"image": image}}
        if auth:
            request["auth"] = dict(auth)
        answer = await self._call(cri.PullImage, None, **request)
        return str(answer.get("image_ref") or image)

    async def list_images(self) -> Sequence[ImageInfo]:
        answer = await self._call(cri.ListImages)
        return [_image(one) for one in answer.get("images", ())]

    async def remove_image(self, image: str) -> None:
        with _gone_is_fine():
            await self._call(cri.RemoveImage, image={"image": image})

    async def close(self) -> None:
        await self._client.close()


def _decode_items(
    raw: bytes, kind: Message, seen: Mapping[bytes, Value]
) -> tuple[list[Value], dict[bytes, Value]]:
    now = {part: seen.get(part) or decode(kind, part) for part in split_repeated(raw, 1)}
    return list(now.values()), now


def _seconds(nanoseconds: int) -> float:
    # A container that has not ended yet has the zero time of Go, long before 1970.
    return max(nanoseconds, 0) / 1e9


def _value(found: Value, name: str) -> int:
    return int(found.get(name, {}).get("value", 0))


def _image(found: Value) -> ImageInfo:
    uid = found.get("uid", {}).get("value") if "uid" in found else None
    user = str(uid) if uid is not None else str(found.get("username", "")) or ("0" if "uid" in found else "")
    return ImageInfo(
        id=str(found.get("id", "")),
        tags=found.get("repo_tags", []),
        digests=found.get("repo_digests", []),
        size=int(found.get("size", 0)),
        user=user,
        pinned=bool(found.get("pinned", False)),
    )


@contextlib.contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except RuntimeFailure as exc:
        if exc.reason != "NotFound":
            raise
