"""The device parts of edgecore, assembled: device twin, the interface for mappers, MQTT. Imported only where one is on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgehive.aio.supervise import Service
from edgehive.beehive.hive import Hive, Module
from edgehive.edge.config import EdgeCoreConfig
from edgehive.edge.hub import EdgeHub
from edgehive.edge.hub_routes import BUS, TWIN
from edgehive.edge.store import EdgeStore
from edgehive.kit.errors import UserError
from edgehive.wire.message import Message, Stamp

if TYPE_CHECKING:
    from edgehive.edge.devicetwin import DeviceTwin

MAX_SOCKET_PATH = 100
"""Longest path of a unix socket that works everywhere, in bytes (Linux: 107)."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the device modules are given by edgecore."""

    config: EdgeCoreConfig
    node: str
    store: EdgeStore
    hub: EdgeHub
    hive: Hive[Message]
    stamp: Stamp
    rng: Callable[[], float]
    gauges: dict[str, Callable[[], float]]
    """Where the modules put what ``/metrics`` shows of them."""


def device_services(parts: Parts) -> list[Service]:
    """The services of the device modules that the configuration asks for.

    Raises:
        UserError: the configuration does not work.
        StorageError: the database does not.
    """
    modules = parts.config.modules
    services: list[Service] = []
    twin = None
    if modules.device_twin.enable:
        twin, services = _device_twin(parts)
    if modules.event_bus.enable:
        services += _event_bus(parts, twin)
    return services


def _device_twin(parts: Parts) -> "tuple[DeviceTwin, list[Service]]":
    from edgehive.edge.devicetwin import DeviceTwin
    from edgehive.edge.dmi_door import SOCKET_NAME, DmiDoor
    from edgehive.edge.dmi_rows import StoredMappers

    directory = Path(parts.config.modules.device_twin.dmi_sock_path)
    if len(bytes(directory / SOCKET_NAME)) > MAX_SOCKET_PATH:
        raise UserError(
            f"modules.deviceTwin.dmiSockPath: {directory}/{SOCKET_NAME} is too long for a socket",
            hint=f"use a directory whose path has at most {MAX_SOCKET_PATH - len(SOCKET_NAME) - 1} bytes",
        )
    twin = DeviceTwin(node=parts.node, store=parts.store, cloud=parts.hub, stamp=parts.stamp)
    door = DmiDoor(directory=directory, twin=twin, rows=StoredMappers(parts.store), rng=parts.rng)
    parts.hive.add(Module("twin", twin.receive, frozenset({TWIN})))
    parts.gauges.update(twin.gauges())
    parts.gauges.update(door.gauges())
    return twin, [Service("devicetwin", twin.run), Service("dmi", door.run)]


def _event_bus(parts: Parts, twin: "DeviceTwin | None") -> list[Service]:
    """MQTT; without a twin it works alone."""
    from edgehive.edge.eventbus import EventBus
    from edgehive.edge.eventbus_config import settings_of
    from edgehive.edge.eventbus_store import TopicTable, UploadTable
    from edgehive.wire.uploads import Uploads

    uploads = Uploads(store=UploadTable(parts.store))
    parts.hub.keep_uploads(uploads)
    bus = EventBus(
        settings=settings_of(parts.config.modules.event_bus),
        node=parts.node,
        topics=TopicTable(parts.store),
        upload=parts.hub.send_uploads,
        to_twin=twin.mqtt if twin is not None else None,
        stamp=parts.stamp,
        rng=parts.rng,
    )
    if twin is not None:
        twin.publish_to(bus.publish)
    parts.hive.add(Module("eventbus", bus.receive, frozenset({BUS})))
    parts.gauges.update(bus.gauges())
    parts.gauges.update(
        {
            "edgehive_uploads_waiting": lambda: float(len(uploads)),
            "edgehive_uploads_waiting_bytes": lambda: float(uploads.size),
            "edgehive_uploads_delivered_total": lambda: float(uploads.delivered),
            "edgehive_uploads_dropped_total": lambda: float(uploads.dropped),
        }
    )
    return bus.services()
