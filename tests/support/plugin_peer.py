"""Plugins of a node as grpcio makes them, from field numbers alone: a CSI driver and a device plugin.

The driver keeps the rules of the CSI specification and notes in `violations` whatever a node does against them. As root
it binds a directory of its own; otherwise it copies a file, which is all that can be seen of a volume then.
"""

import os
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from tests.support.dmi_peer import messages

_REGISTRATION = """\
InfoRequest:
PluginInfo: type=1 string; name=2 string; endpoint=3 string; supported_versions=4 rep string
RegistrationStatus: plugin_registered=1 bool; error=2 string
RegistrationStatusResponse:
"""
_CSI = """\
Empty:
NodeGetInfoResponse: node_id=1 string; max_volumes_per_node=2 int64; accessible_topology=3 Topology
Topology: segments=1 map<string,string>
NodeGetCapabilitiesResponse: capabilities=1 rep NodeServiceCapability
NodeServiceCapability: rpc=1 RPC
RPC: type=1 int32
AccessMode: mode=1 int32
MountVolume: fs_type=1 string; mount_flags=2 rep string; volume_mount_group=3 string
BlockVolume:
VolumeCapability: block=1 BlockVolume; mount=2 MountVolume; access_mode=3 AccessMode
NodeStageVolumeRequest: volume_id=1 string; publish_context=2 map<string,string>; staging_target_path=3 string; volume_capability=4 VolumeCapability; secrets=5 map<string,string>; volume_context=6 map<string,string>
NodeUnstageVolumeRequest: volume_id=1 string; staging_target_path=2 string
NodePublishVolumeRequest: volume_id=1 string; publish_context=2 map<string,string>; staging_target_path=3 string; target_path=4 string; volume_capability=5 VolumeCapability; readonly=6 bool; secrets=7 map<string,string>; volume_context=8 map<string,string>
NodeUnpublishVolumeRequest: volume_id=1 string; target_path=2 string
"""
_DEVICES = """\
Empty:
DevicePluginOptions: pre_start_required=1 bool; get_preferred_allocation_available=2 bool
RegisterRequest: version=1 string; endpoint=2 string; resource_name=3 string; options=4 DevicePluginOptions
Device: ID=1 string; health=2 string
ListAndWatchResponse: devices=1 rep Device
PreStartContainerRequest: devices_ids=1 rep string
PreStartContainerResponse:
ContainerPreferredAllocationRequest: available_deviceIDs=1 rep string; must_include_deviceIDs=2 rep string; allocation_size=3 int32
PreferredAllocationRequest: container_requests=1 rep ContainerPreferredAllocationRequest
ContainerPreferredAllocationResponse: deviceIDs=1 rep string
PreferredAllocationResponse: container_responses=1 rep ContainerPreferredAllocationResponse
ContainerAllocateRequest: devices_ids=1 rep string
AllocateRequest: container_requests=1 rep ContainerAllocateRequest
CDIDevice: name=1 string
Mount: container_path=1 string; host_path=2 string; read_only=3 bool
DeviceSpec: container_path=1 string; host_path=2 string; permissions=3 string
ContainerAllocateResponse: envs=1 map<string,string>; mounts=2 rep Mount; devices=3 rep DeviceSpec; annotations=4 map<string,string>; cdi_devices=5 rep CDIDevice
AllocateResponse: container_responses=1 rep ContainerAllocateResponse
"""
REGISTRATION, CSI, DEVICES = messages(_REGISTRATION), messages(_CSI), messages(_DEVICES)

ROOT = os.geteuid() == 0


class _Server(grpc.GenericRpcHandler):
    """Serves methods by the last part of their names at unix sockets."""

    def __init__(self) -> None:
        self._server: grpc.Server | None = None

    def start(self, *sockets: Path) -> None:
        for path in sockets:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=[self])
        for path in sockets:
            self._server.add_insecure_port(f"unix:{path}")
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None

    def service(self, call: Any) -> Any:
        handler: Callable[..., Any] | None = getattr(self, call.method.rpartition("/")[2], None)
        if handler is None:
            return None
        if call.method.endswith("ListAndWatch"):
            return grpc.unary_stream_rpc_method_handler(handler)
        return grpc.unary_unary_rpc_method_handler(handler)


class CsiDriverPeer(_Server):
    """A driver named `name`; its socket and its registration are one."""

    def __init__(self, root: Path, store: Path, name: str = "fake.csi.example.org") -> None:
        super().__init__()
        self.name = name
        self.socket = root / "plugins_registry" / f"{name[:8]}.sock"
        self.endpoint = self.socket
        self.asked = 0
        self.store = store
        self.rpcs: list[int] = [1]
        self.topology: Mapping[str, str] = {}
        self.staged: dict[str, str] = {}
        self.published: dict[str, str] = {}
        self.calls: list[tuple[str, Any]] = []
        self.violations: list[str] = []
        self.failures: dict[str, tuple[grpc.StatusCode, str]] = {}
        self.told: queue.Queue[tuple[bool, str]] = queue.Queue()
        self.versions = ["1.0.0"]
        self._lock = threading.Lock()

    def run(self) -> None:
        """Serve and be found."""
        self.start(self.socket)

    def end(self) -> None:
        """Stop as a killed driver does; what it has mounted stays."""
        self.stop()
        self.socket.unlink(missing_ok=True)

    def count(self, name: str) -> int:
        return sum(1 for called, _ in self.calls if called == name)

    def last(self, name: str) -> Any:
        return next(request for called, request in reversed(self.calls) if called == name)

    # registration

    def GetInfo(self, request: bytes, context: Any) -> bytes:
        self.asked += 1
        info = REGISTRATION["PluginInfo"](
            type="CSIPlugin", name=self.name, endpoint=str(self.endpoint), supported_versions=self.versions
        )
        return bytes(info.SerializeToString())

    def NotifyRegistrationStatus(self, request: bytes, context: Any) -> bytes:
        status = REGISTRATION["RegistrationStatus"].FromString(request)
        self.told.put((status.plugin_registered, status.error))
        return b""

    # the node service

    def NodeGetInfo(self, request: bytes, context: Any) -> bytes:
        answer = CSI["NodeGetInfoResponse"](node_id="the-node", max_volumes_per_node=8)
        answer.accessible_topology.segments.update(self.topology)
        return bytes(answer.SerializeToString())

    def NodeGetCapabilities(self, request: bytes, context: Any) -> bytes:
        answer = CSI["NodeGetCapabilitiesResponse"]()
        for one in self.rpcs:
            answer.capabilities.add().rpc.type = one
        return bytes(answer.SerializeToString())

    def _called(self, name: str, kind: str, request: bytes, context: Any) -> Any:
        message = CSI[kind].FromString(request)
        self.calls.append((name, message))
        if (failure := self.failures.get(name)) is not None:
            context.abort(*failure)
        return message

    def NodeStageVolume(self, request: bytes, context: Any) -> bytes:
        message = self._called("stage", "NodeStageVolumeRequest", request, context)
        path = Path(message.staging_target_path)
        with self._lock:
            if not path.is_dir():
                self.violations.append(f"stage: {path} is no directory")
            if not message.volume_capability.access_mode.mode or not message.HasField("volume_capability"):
                self.violations.append("stage: no access mode")
            if self.staged.get(message.volume_id) != str(path):
                volume = self.store / message.volume_id
                volume.mkdir(parents=True, exist_ok=True)
                (volume / "name").touch()
                (volume / "name").write_text(message.volume_id)
                _bind(volume, path)
                self.staged[message.volume_id] = str(path)
        return b""

    def NodePublishVolume(self, request: bytes, context: Any) -> bytes:
        message = self._called("publish", "NodePublishVolumeRequest", request, context)
        path, source = Path(message.target_path), Path(message.staging_target_path)
        with self._lock:
            if not path.parent.is_dir():
                self.violations.append(f"publish: there is no {path.parent}")
            if 1 in self.rpcs and source.name and self.staged.get(message.volume_id) != str(source):
                self.violations.append(f"publish: {message.volume_id} is not staged at {source}")
            if not source.name:
                source = self.store / message.volume_id
                source.mkdir(parents=True, exist_ok=True)
                (source / "name").write_text(message.volume_id)
            if str(path) not in self.published:
                path.mkdir()
                _bind(source, path)
                self.published[str(path)] = message.volume_id
        return b""

    def NodeUnpublishVolume(self, request: bytes, context: Any) -> bytes:
        message = self._called("unpublish", "NodeUnpublishVolumeRequest", request, context)
        with self._lock:
            _unbind(Path(message.target_path))
            self.published.pop(message.target_path, None)
        return b""

    def NodeUnstageVolume(self, request: bytes, context: Any) -> bytes:
        message = self._called("unstage", "NodeUnstageVolumeRequest", request, context)
        with self._lock:
            if message.volume_id in self.published.values():
                self.violations.append(f"unstage: {message.volume_id} is still published")
            _unbind(Path(message.staging_target_path))
            self.staged.pop(message.volume_id, None)
        return b""


def _bind(source: Path, target: Path) -> None:
    if ROOT:
        subprocess.run(["mount", "--bind", str(source), str(target)], check=True, capture_output=True)
    else:
        (target / "name").write_text((source / "name").read_text())


def _unbind(target: Path) -> None:
    if ROOT:
        subprocess.run(["umount", str(target)], check=False, capture_output=True)
    else:
        (target / "name").unlink(missing_ok=True)


class DevicePluginPeer(_Server):
    """A plugin with the devices `devices` (id to health) of one resource."""

    def __init__(self, root: Path, resource: str = "example.org/gpu", *ids: str) -> None:
        super().__init__()
        self.directory = root / "device-plugins"
        self.resource = resource
        self.endpoint = f"{resource.rpartition('/')[2]}.sock"
        self.devices = dict.fromkeys(ids, "Healthy")
        self.options = DEVICES["DevicePluginOptions"]()
        self.answer: Callable[[list[str]], Any] = lambda ids: DEVICES["ContainerAllocateResponse"](
            envs={"GPUS": ",".join(ids)}
        )
        self.allocated: list[list[str]] = []
        self.prepared: list[list[str]] = []
        self.preferred: Callable[[list[str]], list[str]] = lambda ids: ids
        self.failure: tuple[grpc.StatusCode, str] | None = None
        self._news = threading.Condition()
        self._version = 0
        self._ended = False

    def run(self) -> None:
        """Serve, and register with the node."""
        self._ended = False
        (self.directory / self.endpoint).unlink(missing_ok=True)
        self.start(self.directory / self.endpoint)
        self.register()

    def register(self, **more: Any) -> None:
        fields = {
            "version": "v1beta1",
            "endpoint": self.endpoint,
            "resource_name": self.resource,
            "options": self.options,
        } | more
        request = DEVICES["RegisterRequest"](**fields)
        with grpc.insecure_channel(f"unix:{self.directory / 'kubelet.sock'}") as channel:
            call = channel.unary_unary("/v1beta1.Registration/Register")
            call(request.SerializeToString(), timeout=10, wait_for_ready=True)

    def change(self, **devices: str) -> None:
        """Have other devices from now on."""
        with self._news:
            self.devices = dict(devices)
            self._version += 1
            self._news.notify_all()

    def end(self) -> None:
        """Go away."""
        with self._news:
            self._ended = True
            self._news.notify_all()
        self.stop()
        (self.directory / self.endpoint).unlink(missing_ok=True)

    def GetDevicePluginOptions(self, request: bytes, context: Any) -> bytes:
        return bytes(self.options.SerializeToString())

    def ListAndWatch(self, request: bytes, context: Any) -> Iterator[bytes]:
        seen = -1
        while True:
            with self._news:
                self._news.wait_for(lambda seen=seen: self._ended or self._version != seen)  # type: ignore[misc]
                if self._ended:
                    return
                seen = self._version
                answer = DEVICES["ListAndWatchResponse"]()
                for name, health in self.devices.items():
                    answer.devices.add(ID=name, health=health)
            yield answer.SerializeToString()

    def GetPreferredAllocation(self, request: bytes, context: Any) -> bytes:
        (one,) = DEVICES["PreferredAllocationRequest"].FromString(request).container_requests
        answer = DEVICES["PreferredAllocationResponse"]()
        answer.container_responses.add(
            deviceIDs=self.preferred(list(one.available_deviceIDs))[: one.allocation_size]
        )
        return bytes(answer.SerializeToString())

    def Allocate(self, request: bytes, context: Any) -> bytes:
        answer = DEVICES["AllocateResponse"]()
        if self.failure is not None:
            context.abort(*self.failure)
        for one in DEVICES["AllocateRequest"].FromString(request).container_requests:
            self.allocated.append(list(one.devices_ids))
            answer.container_responses.append(self.answer(list(one.devices_ids)))
        return bytes(answer.SerializeToString())

    def PreStartContainer(self, request: bytes, context: Any) -> bytes:
        self.prepared.append(list(DEVICES["PreStartContainerRequest"].FromString(request).devices_ids))
        return b""
