"""Uploads: durable, bounded, in order, forgotten only when a pong proves that they were read."""

from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edgehive.kit.errors import StorageError
from edgehive.wire.edgelink import EdgeLink, LinkOptions, SendPing
from edgehive.wire.message import Message, decode_message
from edgehive.wire.outbox import Entry, Outbox
from edgehive.wire.uploads import UploadLimits, Uploads


class Disk:
    """Rows that survive whoever uses them; `full` makes it refuse."""

    def __init__(self) -> None:
        self.rows: dict[int, bytes] = {}
        self.full = False

    def _check(self) -> None:
        if self.full:
            raise StorageError("full")

    def extent(self) -> tuple[int, int, int]:
        return len(self.rows), sum(map(len, self.rows.values())), max(self.rows, default=0)

    def oldest(self, limit: int) -> list[tuple[int, int]]:
        return [(n, len(self.rows[n])) for n in sorted(self.rows)[:limit]]

    def read(self, after: int, limit: int, size: int) -> list[tuple[int, bytes]]:
        self._check()
        return [(n, self.rows[n]) for n in sorted(self.rows) if n > after][:limit]

    def add(self, rows: Sequence[tuple[int, bytes]], drop_upto: int) -> None:
        self._check()
        self.drop(drop_upto)
        self.rows |= dict(rows)

    def drop(self, upto: int) -> None:
        self._check()
        self.rows = {n: frame for n, frame in self.rows.items() if n > upto}


class NoOutbox:
    def load(self) -> list[Entry]:
        return []

    def save(self, entry: Entry, replaces: int | None) -> None: ...
    def drop(self, sequence: int) -> None: ...


def upload(number: int, size: int = 0) -> Message:
    return Message(f"m{number}", 1, "upload", "t", b'"%s"' % (b"x" * size), source="bus", group="user")


def numbers(frames: Sequence[bytes]) -> list[int]:
    return [int(decode_message(frame).id[1:]) for frame in frames if b'"upload"' in frame]


def link_with(uploads: Uploads) -> EdgeLink:
    names = iter(range(10**9))
    link = EdgeLink(
        now=0.0,
        stamp=lambda: (f"id{next(names)}", 1),
        rng=lambda: 0.5,
        outbox=Outbox(store=NoOutbox()),
        options=LinkOptions(rate=0),
    )
    link.uploads = uploads
    return link


def connect(link: EdgeLink, now: float = 0.0) -> None:
    link.handle_timer(now)
    link.receive_connected(now)
    link.events()


def test_uploads_are_forgotten_when_the_pong_comes_back() -> None:
    disk = Disk()
    link = link_with(Uploads(store=disk))
    link.send_uploads([upload(1), upload(2)])
    assert len(disk.rows) == 2, "durable when it returns"
    connect(link)
    assert numbers(link.data_to_send(0.0)) == [1, 2]
    (ping,) = link.events()
    assert ping == SendPing((2).to_bytes(8, "big"))
    link.receive_pong(1.0)
    link.receive_pong(1.0, b"other")
    link.receive_pong(1.0, (3).to_bytes(8, "big"))
    assert len(disk.rows) == 2
    link.send_uploads([upload(3)])
    assert numbers(link.data_to_send(1.0)) == [3]
    assert link.events() == [], "one such ping at a time"
    link.receive_pong(2.0, ping.payload)
    assert list(disk.rows) == [3]
    (ping,) = link.events()
    link.receive_pong(2.0, ping.payload)
    assert link.uploads is not None
    assert (disk.rows, link.uploads.delivered) == ({}, 3)


def test_a_plain_ping_asks_for_the_proof_too() -> None:
    """A peer may answer the newest of several pings alone (RFC 6455, 5.5.3)."""
    link = link_with(Uploads(store=Disk()))
    connect(link)
    link.send_uploads([upload(1)])
    link.data_to_send(0.0)
    link.events()
    link.send_uploads([upload(2)])
    link.data_to_send(0.0)
    link.handle_timer(5.0)
    (ping,) = link.events()
    assert ping == SendPing((2).to_bytes(8, "big"))
    link.receive_pong(5.0, ping.payload)
    assert link.uploads is not None
    assert len(link.uploads) == 0


def test_after_a_cut_what_is_not_proven_is_sent_again() -> None:
    link = link_with(Uploads(store=Disk()))
    connect(link)
    link.send_uploads([upload(n) for n in range(1, 4)])
    assert numbers(link.data_to_send(0.0)) == [1, 2, 3]
    stale = link.events()[0]
    assert isinstance(stale, SendPing)
    link.receive_closed("cut", 1.0)
    link.receive_pong(1.0, stale.payload)
    connect(link, 100.0)
    link.receive_pong(100.0, stale.payload)
    assert numbers(link.data_to_send(100.0)) == [1, 2, 3]


def test_no_more_than_a_window_is_unproven() -> None:
    link = link_with(Uploads(store=Disk(), limits=UploadLimits(in_flight=4)))
    connect(link)
    link.send_uploads([upload(n) for n in range(10)])
    assert numbers(link.data_to_send(0.0)) == [0, 1, 2, 3]
    assert link.data_to_send(0.0) == []
    (ping,) = link.events()
    assert isinstance(ping, SendPing)
    link.receive_pong(0.0, ping.payload)
    assert numbers(link.data_to_send(0.0)) == [4, 5, 6, 7]


def test_a_full_store_drops_the_oldest_by_number_and_by_size() -> None:
    disk = Disk()
    uploads = Uploads(store=disk, limits=UploadLimits(messages=5, size=10_000))
    for number in range(8):
        uploads.put([upload(number)])
    assert numbers(list(disk.rows.values())) == [3, 4, 5, 6, 7]
    uploads.put([upload(n) for n in range(8, 28)])
    assert numbers(list(disk.rows.values())) == [23, 24, 25, 26, 27]
    uploads.put([upload(28, size=9_500)])
    assert numbers(list(disk.rows.values())) in ([27, 28], [26, 27, 28])
    uploads.put([upload(29, size=20_000)])
    assert uploads.size <= 10_000
    assert uploads.dropped + len(uploads) == uploads.accepted == 30
    assert (len(uploads), uploads.size) == disk.extent()[:2]


def test_a_disk_that_refuses_accepts_nothing_and_is_asked_again_later() -> None:
    disk = Disk()
    link = link_with(Uploads(store=disk))
    disk.full = True
    with pytest.raises(StorageError):
        link.send_uploads([upload(1)])
    disk.full = False
    link.send_uploads([upload(2)])
    connect(link)
    disk.full = True
    assert numbers(link.data_to_send(0.0)) == []
    assert (link.deadline() or 0.0) > 0.0, "no spinning"
    disk.full = False
    assert numbers(link.data_to_send(10.0)) == [2]
    (ping,) = link.events()
    assert isinstance(ping, SendPing)
    disk.full = True
    link.receive_pong(10.0, ping.payload)
    assert link.uploads is not None
    assert (len(link.uploads), len(disk.rows)) == (0, 1), "it cannot be forgotten now"
    disk.full = False
    link.send_uploads([upload(3)])
    assert numbers(list(disk.rows.values())) == [3]


def test_what_is_dropped_while_it_is_on_its_way_is_not_counted_twice() -> None:
    disk = Disk()
    link = link_with(Uploads(store=disk, limits=UploadLimits(messages=4, in_flight=2)))
    link.send_uploads([])
    connect(link)
    link.send_uploads([upload(n) for n in range(4)])
    assert numbers(link.data_to_send(0.0)) == [0, 1]
    (ping,) = link.events()
    assert isinstance(ping, SendPing)
    link.send_uploads([upload(n) for n in range(4, 7)])
    assert link.uploads is not None
    assert (len(link.uploads), link.uploads.dropped) == (4, 3)
    link.receive_pong(0.0, ping.payload)
    assert numbers(link.data_to_send(0.0)) == [3, 4]
    assert (len(link.uploads), link.uploads.size) == disk.extent()[:2]


def test_rows_that_somebody_else_took_away_are_not_waited_for() -> None:
    disk = Disk()
    link = link_with(Uploads(store=disk))
    link.send_uploads([upload(1)])
    disk.rows.clear()
    connect(link)
    assert numbers(link.data_to_send(0.0)) == []
    link.send_uploads([upload(2)])
    assert numbers(link.data_to_send(0.0)) == [2]


class Journey(RuleBasedStateMachine):
    """Anything may be cut or killed at any time: nothing is lost, nothing overtakes, the cloud reads in order."""

    @initialize()
    def begin(self) -> None:
        self.disk = Disk()
        self.now = 0.0
        self.put = 0
        self.read: list[int] = []
        self.wire: list[tuple[str, bytes]] = []
        self.start()

    def start(self) -> None:
        self.wire.clear()
        self.uploads = Uploads(store=self.disk, limits=UploadLimits(in_flight=5))
        self.link = link_with(self.uploads)

    @rule(count=st.integers(1, 6))
    def produce(self, count: int) -> None:
        self.link.send_uploads([upload(self.put + n) for n in range(count)])
        self.put += count

    @rule()
    def go_up(self) -> None:
        if not self.link.up:
            self.now += 100.0
            connect(self.link, self.now)

    @rule(limit=st.integers(1, 8))
    def send(self, limit: int) -> None:
        self.wire += [("frame", frame) for frame in self.link.data_to_send(self.now, limit)]
        self.events()

    def events(self) -> None:
        self.wire += [("ping", e.payload) for e in self.link.events() if isinstance(e, SendPing)]

    @rule(count=st.integers(1, 10))
    def cloud_reads(self, count: int) -> None:
        for _ in range(min(count, len(self.wire))):
            kind, data = self.wire.pop(0)
            if kind == "frame":
                self.read += numbers([data])
            else:
                self.link.receive_pong(self.now, data)
                self.events()

    @rule()
    def cut(self) -> None:
        self.wire.clear()
        self.link.receive_closed("cut", self.now)
        self.link.events()

    @rule()
    def kill(self) -> None:
        self.start()

    @invariant()
    def it_is_in_order(self) -> None:
        if hasattr(self, "read"):
            first = list(dict.fromkeys(self.read))
            assert first == list(range(len(first)))

    def teardown(self) -> None:
        if not hasattr(self, "read"):
            return
        for _ in range(1_000):
            self.go_up()
            self.send(8)
            self.cloud_reads(10)
            if not self.disk.rows:
                break
        assert set(self.read) == set(range(self.put))
        assert (len(self.uploads), self.uploads.size) == (0, 0)


TestJourney = Journey.TestCase
TestJourney.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
