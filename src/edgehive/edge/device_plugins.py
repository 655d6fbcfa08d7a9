"""Device plugins: they register, say which devices they have, and are asked when a container is to be given some.

The decisions are `edge.device_ledger`'s; here are the calls and the checkpoint, written before a container starts.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgehive.aio import plugin_messages as api
from edgehive.aio.grpc import GrpcClient, GrpcError
from edgehive.aio.grpc_server import INVALID_ARGUMENT, GrpcServer
from edgehive.aio.protobuf import decode, encode
from edgehive.edge.device_ledger import DeviceLedger, Given, is_extended, read_checkpoint
from edgehive.edge.plugin_call import call
from edgehive.edge.plugins import CHECKPOINT
from edgehive.edge.pods_spec import Container, Pod
from edgehive.edge.runtime import Device, Mount, PodRejected, RuntimeFailure
from edgehive.kit.errors import EdgehiveError, ProtocolError, StorageError, Unreachable
from edgehive.kit.text import safe_label

log = logging.getLogger(__name__)

_VERSION = "v1beta1"
_TIMEOUT = 30.0
_MAX_PLUGINS = 64


@dataclass(slots=True)
class Equipment:
    """What a container gets for its devices."""

    env: list[tuple[str, str]] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    cdi: list[str] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Plugin:
    resource: str
    client: GrpcClient
    pre_start: bool
    prefers: bool


class DevicePlugins:
    """The device plugins of a node; `serve` takes registrations."""

    def __init__(
        self,
        directory: Path,
        *,
        changed: Callable[[], None],
        clock: Callable[[], float],
        start: Callable[[Coroutine[Any, Any, None], str], None],
    ) -> None:
        """Read the checkpoint; `start` runs the watch of a plugin for as long as the node runs."""
        self._directory = directory
        self._changed = changed
        self._clock = clock
        self._start = start
        self._plugins: dict[str, _Plugin] = {}
        self._lock = asyncio.Lock()
        self._ledger = self._read()

    def resources(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return (capacity, allocatable) of all resources."""
        return self._ledger.resources(self._clock())

    def pods(self) -> set[str]:
        """The uids of pods that have devices."""
        return self._ledger.pods()

    # --- plugins ----------------------------------------------------------------------------------------

    async def serve(self, sock: socket.socket) -> None:
        """Take registrations at the bound `sock` until cancelled."""
        path = self._directory / "kubelet.sock"
        methods = {api.Register.path: self._register}
        await GrpcServer(path, methods, name="device plugins", max_message=1 << 20, sock=sock).run()

    async def _register(self, raw: bytes) -> bytes:
        request = decode(api.REGISTER, raw)
        resource, endpoint = str(request.get("resource_name", "")), str(request.get("endpoint", ""))
        if request.get("version") != _VERSION:
            raise GrpcError(INVALID_ARGUMENT, f"the API version must be {_VERSION}")
        if not endpoint or "/" in endpoint or endpoint.startswith("."):
            raise GrpcError(INVALID_ARGUMENT, "the endpoint must be the name of a socket beside kubelet.sock")
        options = request.get("options", {})
        self._add(resource, str(self._directory / endpoint), options)
        return b""

    async def register_at(self, resource: str, endpoint: str) -> None:
        """Take a plugin that was found in ``plugins_registry``.

        Raises:
            EdgehiveError: It does not answer, or its resource cannot be one.
        """
        client = GrpcClient(endpoint.removeprefix("unix://"))
        try:
            options = await call(client, api.GetDevicePluginOptions, _TIMEOUT)
        finally:
            await client.close()
        self._add(resource, endpoint.removeprefix("unix://"), options)

    def _add(self, resource: str, path: str, options: dict[str, Any]) -> None:
        if not is_extended(resource):
            raise GrpcError(
                INVALID_ARGUMENT, f"{safe_label(resource)} is not the name of an extended resource"
            )
        if resource not in self._plugins and len(self._plugins) >= _MAX_PLUGINS:
            raise GrpcError(INVALID_ARGUMENT, "there are too many device plugins")
        plugin = _Plugin(
            resource,
            GrpcClient(path),
            bool(options.get("pre_start_required")),
            bool(options.get("get_preferred_allocation_available")),
        )
        older = self._plugins.get(resource)
        self._plugins[resource] = plugin  # the newest registration counts
        if older is not None:
            self._start(older.client.close(), f"device-plugin {resource} before")
        log.info("device plugin of %s registered", resource)
        self._start(self._follow(plugin), f"device-plugin {resource}")

    async def _follow(self, plugin: _Plugin) -> None:
        """Take the devices of a plugin until it is gone; it registers again when it is back."""
        try:
            async for raw in plugin.client.stream(api.ListAndWatch.path, b""):
                if self._plugins.get(plugin.resource) is not plugin:
                    break
                devices = decode(api.DEVICES, raw).get("devices", ())
                self._receive(
                    plugin.resource, {d.get("id", ""): d.get("health") == "Healthy" for d in devices}
                )
        except EdgehiveError as exc:
            log.warning("device plugin of %s: %s", plugin.resource, safe_label(str(exc), 200))
        finally:
            await plugin.client.close()
            if self._plugins.get(plugin.resource) is plugin:
                del self._plugins[plugin.resource]
                self._ledger.receive_loss(plugin.resource, self._clock())
                log.warning("device plugin of %s has gone", plugin.resource)
                self._changed()

    def _receive(self, resource: str, devices: dict[str, bool]) -> None:
        fresh = not self._ledger.knows(resource)
        self._ledger.receive_devices(resource, devices)
        log.info("%s: %d devices, %d healthy", resource, len(devices), sum(devices.values()))
        if fresh:
            try:
                self._save()
            except StorageError as exc:
                log.warning("%s", exc)
        self._changed()

    # --- pods -------------------------------------------------------------------------------------------

    async def admit(self, pod: Pod) -> None:
        """Give every container of `pod` the devices it asks for, unless it has them already.

        Raises:
            PodRejected: There are not enough, or the plugin refused.
            RuntimeFailure: The plugin has not come back yet after a restart.
            StorageError: What was given cannot be kept.
        """
        containers = (*pod.spec.init_containers, *pod.spec.containers)
        async with self._lock:  # two pods must not be given the same device
            for one in containers:
                for resource, number in list(self._ledger.wanted(one)):
                    if not self._ledger.has(pod.uid, one.name, resource):
                        await self._give(pod, one, resource, number)

    async def _give(self, pod: Pod, container: Container, resource: str, number: int) -> None:
        plugin = self._plugins.get(resource)
        if plugin is None or not self._ledger.present(resource):
            text = f"the device plugin of {resource} has not registered yet"
            raise RuntimeFailure("DevicePluginNotReady", text)
        free, reusable = self._ledger.free(pod, container, resource)
        if len(free) < number:
            self._take_back(pod.uid)
            text = f"requested number of devices unavailable for {resource}. Requested: {number}, Available: {len(free)}"
            raise _rejected(text)
        try:
            ids = await self._choose(plugin, free, reusable[:number], number)
            answer = await plugin.client.call(
                api.Allocate.path,
                encode(api.ALLOCATE, {"container_requests": [{"devices_ids": list(ids)}]}),
                timeout=_TIMEOUT,
            )
            (one,) = decode(api.ALLOCATE_ANSWER, answer)["container_responses"]
        except Unreachable as exc:
            raise RuntimeFailure("DevicePluginNotReady", f"the device plugin of {resource}: {exc}") from exc
        except (GrpcError, ProtocolError, KeyError, ValueError) as exc:
            self._take_back(pod.uid)
            raise _rejected(f"rpc error of the device plugin of {resource}: {exc}") from exc
        self._ledger.give(Given(pod.uid, container.name, resource, tuple(ids), encode(api.ALLOCATED, one)))
        self._save()

    async def _choose(
        self, plugin: _Plugin, free: Sequence[str], reusable: Sequence[str], number: int
    ) -> Sequence[str]:
        first = [*reusable, *(one for one in free if one not in reusable)][:number]
        if not plugin.prefers or len(free) == number:
            return first
        question = {
            "available_device_ids": list(free),
            "must_include_device_ids": list(reusable),
            "allocation_size": number,
        }
        answer = await call(
            plugin.client, api.GetPreferredAllocation, _TIMEOUT, container_requests=[question]
        )
        for one in answer.get("container_responses", ()):
            ids = one.get("device_ids", ())
            if len(set(ids)) == number and set(ids) <= set(free) and set(reusable) <= set(ids):
                return list(ids)
        return first

    def _take_back(self, uid: str) -> None:
        if self._ledger.release(uid):
            self._save()

    def release(self, uid: str) -> None:
        """Take back the devices of a pod of which nothing runs any more.

        Raises:
            StorageError: It cannot be noted.
        """
        if self._ledger.release(uid):
            self._save()
            self._changed()  # somebody may wait for one

    async def equip(self, pod: Pod, container: Container) -> Equipment:
        """Return what a container that is about to start gets for its devices.

        Raises:
            RuntimeFailure: A device is not there (yet), or its plugin does not let the container start.
        """
        result = Equipment()
        for one in self._ledger.given(pod.uid, container.name):
            await self._prepare(one)
            answer = decode(api.ALLOCATED, one.answer)
            result.env += sorted(answer.get("envs", {}).items())
            result.annotations |= answer.get("annotations", {})
            result.cdi += [str(cdi.get("name", "")) for cdi in answer.get("cdi_devices", ())]
            for mount in answer.get("mounts", ()):
                where = str(mount.get("host_path", "")), str(mount.get("container_path", ""))
                result.mounts.append(Mount(*where, bool(mount.get("read_only"))))
            for device in answer.get("devices", ()):
                where = str(device.get("host_path", "")), str(device.get("container_path", ""))
                result.devices.append(Device(*where, str(device.get("permissions") or "mrw")))
        for path in (*(m.host_path for m in result.mounts), *(d.host_path for d in result.devices)):
            if not Path(path).exists():
                raise RuntimeFailure("CreateContainerConfigError", f"the device file {path} is not there")
        return result

    async def _prepare(self, given: Given) -> None:
        """Have the plugin prepare devices where it wants to; without the plugin, what it said before must do."""
        plugin = self._plugins.get(given.resource)
        if plugin is None or not plugin.pre_start:
            return
        try:
            await call(plugin.client, api.PreStartContainer, _TIMEOUT, devices_ids=list(given.devices))
        except EdgehiveError as exc:
            text = f"device plugin PreStartContainer rpc failed for {given.resource}: {exc}"
            raise RuntimeFailure("CreateContainerError", safe_label(text, 500)) from exc

    # --- the checkpoint ---------------------------------------------------------------------------------

    def _read(self) -> DeviceLedger:
        path = self._directory / CHECKPOINT
        try:
            found = read_checkpoint(path.read_bytes())
        except FileNotFoundError:
            return DeviceLedger()
        except OSError as exc:
            log.error("%s cannot be read, devices may be given twice: %s", path, exc)  # noqa: TRY400 - said in full
            return DeviceLedger()
        if found is None:
            log.error("%s is broken, devices may be given twice", path)
            return DeviceLedger()
        return found

    def _save(self) -> None:
        path = self._directory / CHECKPOINT
        temporary = path.with_name(f".{CHECKPOINT}")
        try:
            temporary.write_bytes(self._ledger.encode())
            temporary.chmod(0o600)
            temporary.rename(path)
        except OSError as exc:
            raise StorageError(f"{path} cannot be written: {exc.strerror or exc}") from exc


def _rejected(text: str) -> PodRejected:
    return PodRejected(
        "UnexpectedAdmissionError", f"Allocate failed due to {safe_label(text, 500)}, which is unexpected"
    )
