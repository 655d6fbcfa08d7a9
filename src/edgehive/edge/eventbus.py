"""EventBus: MQTT at the edge, KubeEdge's topics and modes.

Applications and devices publish; what is for the device twin goes there, everything else we subscribe to is uploaded
to the cloud. The twin and the cloud publish. The broker is the embedded one, an external one, or both at once.

An upload is durable before its message is acknowledged (`wire.uploads`). A publication to an external broker that is
away waits in memory, at most 1,000 messages or 4 MiB, the oldest dropped and counted; edgecore never waits for it.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from edgehive.aio.mqtt_broker import MqttServer
from edgehive.aio.supervise import Service
from edgehive.beehive.hive import Delivery
from edgehive.edge.eventbus_config import EventBusSettings, External, Internal
from edgehive.kit.errors import ProtocolError, StorageError, Transient
from edgehive.kit.text import safe_label
from edgehive.wire.message import UPLOAD, Message, Stamp, content_data, decode_content
from edgehive.wire.mqtt_broker import Broker
from edgehive.wire.mqtt_limits import BrokerLimits
from edgehive.wire.mqtt_topics import is_filter, is_topic

if TYPE_CHECKING:
    from edgehive.aio.mqtt_client import MqttClient

log = logging.getLogger(__name__)

TOPICS = (
    "$hw/events/upload/#",
    "$hw/events/device/+/+/state/update",
    "$hw/events/device/+/+/twin/+",
    "$hw/events/node/+/membership/get",
    "SYS/dis/upload_records",
    "+/user/#",
)
"""What edgecore subscribes to, besides the topics of rules."""

_TWIN_TOPICS = ("$hw/events/device/", "$hw/events/node/")
_BUS_SOURCE = "bus"
_USER_GROUP = "user"
_MAX_RULE_TOPICS = 1_000
_GATHER = 0.02
"""Uploads that come within so many seconds are stored together: each commit makes the whole process wait for the disk."""
_GATHER_MESSAGES = 2_000
_GATHER_BYTES = 1 << 20
_AGAIN = 5.0  # seconds until a disk that refused is asked again
_QOS = 1  # towards an external broker, as there

_AUTH_INFO = "auth_info"


class Topics(Protocol):
    """The stored topics of rules."""

    def load(self) -> list[str]: ...
    def add(self, topic: str) -> None: ...
    def remove(self, topic: str) -> None: ...


class _Came(Protocol):
    """A message from either broker."""

    @property
    def topic(self) -> str: ...
    @property
    def payload(self) -> bytes: ...


class EventBus:
    """The module. `upload` keeps messages for the cloud or raises `StorageError`; `to_twin` must not block."""

    def __init__(
        self,
        *,
        settings: EventBusSettings,
        node: str,
        topics: Topics,
        upload: Callable[[Sequence[Message]], None],
        to_twin: Callable[[str, bytes], None] | None,
        stamp: Stamp,
        rng: Callable[[], float],
    ) -> None:
        self._node = node
        self._topics = topics
        self._upload = upload
        self._to_twin = to_twin
        self._stamp = stamp
        self._rule_topics = dict.fromkeys(topics.load())
        self._storage_problem = ""
        self._gathered: list[Message] = []
        self._gathered_bytes = 0
        self._kept: list[Message] = []
        """What of it an external broker has brought."""
        self._stored_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self.not_stored = 0
        """Uploads that the disk refused: their senders got no acknowledgement, or too many of an external broker waited."""
        self.port = settings.internal.port if settings.internal is not None else 0
        """Where the embedded broker listens."""
        self._internal = settings.internal
        self._server = self._make_server(settings.internal) if settings.internal is not None else None
        self._subscriber: MqttClient | None = None
        self._publisher: MqttClient | None = None
        if settings.external is not None:
            external = settings.external
            self._subscriber = self._make_client(external, external.subscriber or _client_id("sub", rng), rng)
            self._publisher = self._make_client(external, external.publisher or _client_id("pub", rng), rng)
        self._resubscribe()

    def services(self) -> list[Service]:
        """What has to run."""
        services: list[Service] = []
        if self._server is not None:
            services.append(Service("mqtt-broker", self._run_broker))
        if self._subscriber is not None and self._publisher is not None:
            services.append(Service("mqtt-subscriber", self._run_subscriber))
            services.append(Service("mqtt-publisher", self._publisher.run))
        return services

    # to the brokers

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish on every broker there is; never waits."""
        if not is_topic(topic):
            log.warning("mqtt: nobody can publish to %s; dropped", safe_label(topic))
            return
        if self._publisher is not None:
            self._publisher.publish(topic, payload, qos=_QOS)
        if self._server is not None and self._internal is not None:
            self._server.publish(topic, payload, qos=self._internal.qos, retain=self._internal.retain)

    # from the brokers

    def _take_external(self, messages: Iterable[_Came]) -> bool | None:
        """Hand over what an external broker has brought; what the disk refuses stays here and is owed.

        That broker has nobody to send it again: our session at it is clean. It holds back the rest meanwhile.
        """
        return self._take(messages, self._kept) or None

    def _take(self, messages: Iterable[_Came], kept: list[Message] | None = None) -> bool | None:
        """Hand messages over. False: what is to be uploaded could not be stored; ``None``: it will be, soon."""
        uploads = len(self._gathered)
        for message in messages:
            if message.topic.startswith(_TWIN_TOPICS):
                if self._to_twin is not None:
                    self._to_twin(message.topic, message.payload)
            else:
                upload = self._upload_message(message.topic, message.payload)
                self._gathered.append(upload)
                self._gathered_bytes += len(message.payload)
                if kept is not None:
                    kept.append(upload)
        if len(self._gathered) == uploads:
            return True
        loop = asyncio.get_running_loop()
        wait = self._stored_at + _GATHER - loop.time()
        full = len(self._gathered) >= _GATHER_MESSAGES or self._gathered_bytes >= _GATHER_BYTES
        if wait <= 0 or full:
            return self._store()
        if self._timer is None:
            self._timer = loop.call_later(wait, self._store)
        return None

    def _store(self) -> bool:
        """Keep what has gathered, in one transaction, and let its senders know."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
        kept = self._kept.copy()
        self._kept.clear()
        try:
            self._upload(gathered)
        except StorageError as exc:
            self._keep(kept)
            self.not_stored += len(gathered) - len(self._kept)
            if self._storage_problem != str(exc):
                self._storage_problem = str(exc)
                log.warning("mqtt: uploads cannot be kept: %s", exc)
            stored = False
        else:
            self._storage_problem = ""
            stored = True
        self._stored_at = asyncio.get_running_loop().time()
        if self._server is not None:
            self._server.done(stored)
        if self._subscriber is not None and stored:
            self._subscriber.done(True)
        return stored

    def _keep(self, uploads: list[Message]) -> None:
        """Try again later with what nobody else has any more, the oldest of it first; there is an end to that, too."""
        for upload in uploads[:_GATHER_MESSAGES]:
            if self._gathered_bytes + len(upload.content) > _GATHER_BYTES:
                break
            self._gathered.append(upload)
            self._gathered_bytes += len(upload.content)
        self._kept += self._gathered
        if self._kept:
            self._timer = asyncio.get_running_loop().call_later(_AGAIN, self._store)

    def _upload_message(self, topic: str, payload: bytes) -> Message:
        message_id, timestamp = self._stamp()
        # As there: the payload as a JSON string; what is not UTF-8 becomes U+FFFD.
        content = json.dumps(payload.decode("utf-8", "replace"), ensure_ascii=False).encode()
        return Message(
            id=message_id,
            timestamp=timestamp,
            operation=UPLOAD,
            resource=topic,
            content=content,
            source=_BUS_SOURCE,
            group=_USER_GROUP,
        )

    # from the cloud

    async def receive(self, delivery: Delivery[Message]) -> None:
        """One message of the cloud's router. What cannot be done is logged: nobody waits for an answer."""
        message = delivery.message
        try:
            match message.operation:
                case "subscribe":
                    self._subscribe(message.resource)
                case "unsubscribe":
                    self._unsubscribe(message.resource)
                case "publish":
                    self.publish(message.resource, content_data(message.content))
                case "message":
                    self._publish_inner(message)
                case "get_result" if message.resource == _AUTH_INFO:
                    self.publish(f"$hw/events/node/{self._node}/authInfo/get/result", message.content)
                case _:
                    log.debug("mqtt: nothing to do for %s", safe_label(message.operation))
        except (ProtocolError, StorageError, RecursionError) as exc:
            log.warning(
                "mqtt: %s %s of the cloud failed: %s",
                safe_label(message.operation),
                safe_label(message.resource),
                safe_label(str(exc)),
            )

    def _publish_inner(self, message: Message) -> None:
        body = decode_content(message.content)
        inner = body.get("message") if isinstance(body, dict) else None
        topic = inner.get("topic") if isinstance(inner, dict) else None
        if not isinstance(topic, str):
            raise ProtocolError("it has no message with a topic")
        # Go sorts the keys of a map.
        text = json.dumps(inner, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        self.publish(topic, text.encode("utf-8", "replace"))

    def _subscribe(self, topic: str) -> None:
        if not is_filter(topic):
            raise ProtocolError("that is no topic")
        if topic in self._rule_topics:
            return
        if len(self._rule_topics) >= _MAX_RULE_TOPICS:
            raise ProtocolError(f"there are {_MAX_RULE_TOPICS} topics already")
        self._rule_topics[topic] = None
        self._resubscribe()
        self._topics.add(topic)

    def _unsubscribe(self, topic: str) -> None:
        self._rule_topics.pop(topic, None)
        self._resubscribe()
        self._topics.remove(topic)

    def _resubscribe(self) -> None:
        filters = tuple(dict.fromkeys((*TOPICS, *self._rule_topics)))
        if self._server is not None:
            self._server.broker.own_filters(filters)
        if self._subscriber is not None:
            self._subscriber.subscribe_to(filters, _QOS)

    # parts

    def _make_server(self, internal: Internal) -> MqttServer:
        if internal.public:
            log.warning(
                "modules.eventBus.mqttServerInternal: %s lets anybody in who can reach it", internal.host
            )
        limits = BrokerLimits(queue=internal.queue)
        broker = Broker(now=asyncio.get_running_loop().time(), new_id=lambda: self._stamp()[0], limits=limits)
        return MqttServer(broker=broker, handler=self._take)

    def _make_client(self, external: External, client_id: str, rng: Callable[[], float]) -> "MqttClient":
        from edgehive.aio.mqtt_client import MqttClient  # not where the embedded broker is the only one
        from edgehive.wire.mqtt_client import ClientOptions, MqttLink

        options = ClientOptions(client_id, username=external.username, password=external.password)
        return MqttClient(
            link=MqttLink(options=options, now=asyncio.get_running_loop().time(), rng=rng),
            host=external.host,
            port=external.port,
            handler=self._take_external,
            tls=external.tls.context if external.tls is not None else None,
        )

    async def _run_broker(self) -> None:
        server, internal = self._server, self._internal
        assert server is not None
        assert internal is not None
        try:
            self.port = await server.listen(internal.host, internal.port)
        except OSError as exc:
            raise Transient(
                f"the MQTT broker cannot listen on {internal.host}:{internal.port}"
                f" (modules.eventBus.mqttServerInternal): {exc.strerror or exc}"
            ) from exc
        log.info("the MQTT broker listens on %s:%d", internal.host, self.port)
        try:
            await server.run()
        finally:
            self._store()

    async def _run_subscriber(self) -> None:
        assert self._subscriber is not None
        try:
            await self._subscriber.run()
        finally:
            self._store()

    def gauges(self) -> Mapping[str, Callable[[], float]]:
        """What ``/metrics`` shows."""
        found: dict[str, Callable[[], float]] = {
            "edgehive_uploads_not_stored_total": lambda: float(self.not_stored),
        }
        server, subscriber, publisher = self._server, self._subscriber, self._publisher
        if server is not None:
            broker = server.broker
            stats = broker.stats
            found |= {
                "edgehive_mqtt_clients": lambda: float(broker.connections),
                "edgehive_mqtt_sessions": lambda: float(broker.sessions),
                "edgehive_mqtt_retained_messages": lambda: float(broker.retained),
                "edgehive_mqtt_waiting_bytes": lambda: float(stats.waiting_bytes),
                "edgehive_mqtt_received_total": lambda: float(stats.received),
                "edgehive_mqtt_sent_total": lambda: float(stats.sent),
                "edgehive_mqtt_dropped_total": lambda: float(stats.dropped),
                "edgehive_mqtt_expired_total": lambda: float(stats.expired),
                "edgehive_mqtt_not_retained_total": lambda: float(stats.not_retained),
                "edgehive_mqtt_refused_total": lambda: float(stats.refused),
                "edgehive_mqtt_throttled_total": lambda: float(server.throttled),
                "edgehive_mqtt_held_up_total": lambda: float(server.held_up),
            }
        if subscriber is not None and publisher is not None:
            found |= {
                "edgehive_mqtt_external_connected": lambda: float(subscriber.link.up and publisher.link.up),
                "edgehive_mqtt_external_waiting": lambda: float(publisher.link.waiting),
                "edgehive_mqtt_external_dropped_total": lambda: float(publisher.link.dropped),
                "edgehive_mqtt_external_published_total": lambda: float(publisher.link.published),
            }
        return found


def _client_id(role: str, rng: Callable[[], float]) -> str:
    """KubeEdge takes the time, and edges that start in the same second throw each other out; 23 bytes at most."""
    return f"hub-client-{role}-{int(rng() * (1 << 32)):08x}"
