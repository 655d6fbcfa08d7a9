"""Which module a message from the cloud is for: KubeEdge's table of message groups, over the beehive."""

import logging

from edgehive.beehive.hive import Hive, NoSuchModule
from edgehive.edge.hub import CONNECT, CONNECTION_RESOURCE
from edgehive.kit.text import safe_label
from edgehive.wire import classify as cls
from edgehive.wire.message import Message

log = logging.getLogger(__name__)

SENDER = cls.EDGE_HUB
META, TWIN, BUS, TASKS = "meta", "twin", "bus", "taskmanager"

_BUS_MODULES = {cls.ROUTER_EVENTBUS: "eventbus", cls.ROUTER_SERVICEBUS: "servicebus"}


class Routes:
    """Hands each incoming message to the modules it is for; order per module is the order of arrival."""

    def __init__(self, hive: Hive[Message]) -> None:
        self._hive = hive

    async def __call__(self, message: Message) -> None:
        """Route one message."""
        receivers = 0
        if message.resource == CONNECTION_RESOURCE and message.operation == CONNECT:
            for group in (META, TWIN, BUS, TASKS):
                await self._hive.broadcast(group, message, sender=SENDER)
            return
        if message.group in (cls.RESOURCE_GROUP, cls.FUNC_GROUP):
            receivers = await self._hive.broadcast(META, message, sender=SENDER)
        elif message.group == cls.TWIN_GROUP:
            receivers = await self._hive.broadcast(TWIN, message, sender=SENDER)
        elif message.group == cls.TASK_GROUP:
            receivers = await self._hive.broadcast(TASKS, message, sender=SENDER)
        elif message.group == cls.USER_GROUP:
            receivers = await self._to_bus(message)
        if not receivers:
            log.warning(
                "no module takes %s of group %s, source %s; dropped",
                safe_label(message.resource),
                safe_label(message.group),
                safe_label(message.source),
            )

    async def _to_bus(self, message: Message) -> int:
        name = _BUS_MODULES.get(message.source)
        if name is None:
            return 0
        try:
            await self._hive.send(name, message, sender=SENDER)
        except NoSuchModule:
            return 0
        return 1
