"""What one broker may cost, and what it has done."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """Bounds; sizes in bytes, times in seconds."""

    packet: int = 1 << 20
    """Largest packet a client may send."""
    clients: int = 500
    sessions: int = 1_000
    """Sessions of connected and absent clients together; the absent one that expires next makes room."""
    subscriptions: int = 1_000
    """Of one client."""
    nodes: int = 50_000
    """Levels of all filters together."""
    filters: int = 4 << 20
    """Characters of all clients' filters together."""
    filter: int = 4_096
    will: int = 16 << 10
    """Payload and properties."""
    client_id: int = 512
    queue: int = 100
    """Messages that wait for one absent client; for a present one, from where on publishers are held up
    (`mqttSessionQueueSize`)."""
    queue_present: int = 5_000
    """Messages that wait for one present client."""
    queue_bytes: int = 4 << 20
    memory: int = 32 << 20
    """Bytes of all queues, of all packets that have not come whole, and of what sockets have not taken, each."""
    in_flight: int = 100
    """Messages with QoS 1 or 2 sent to one client and not acknowledged."""
    receive_maximum: int = 100
    """Messages with QoS 2 of one client that it has not released."""
    retained: int = 2_000
    retained_bytes: int = 8 << 20
    connect_timeout: float = 10.0
    stall_timeout: float = 60.0
    """A client that takes no data for so long is disconnected."""
    patience: float = 1.0
    """Without progress for so long, nobody is held up for a client."""
    pace: int = 500
    """Messages a second that a client has to take to be waited for: one that drips along slows nobody down further."""
    session_expiry: int = 86_400
    """An absent client's session ends after this at the latest."""


@dataclass(slots=True)
class BrokerStats:
    """Counters since the start, and the bytes that wait now."""

    received: int = 0
    """Messages from clients."""
    sent: int = 0
    """Messages to clients."""
    dropped: int = 0
    """Messages lost to a full queue."""
    expired: int = 0
    not_retained: int = 0
    """Retained messages delivered but not kept: there was no room."""
    refused: int = 0
    """Connections refused or ended for breaking the protocol or a limit."""
    waiting_bytes: int = 0
