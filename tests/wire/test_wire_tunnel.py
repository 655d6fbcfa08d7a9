"""The tunnel's frames as KubeEdge writes them, and the state of its connections."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.kit.errors import ProtocolError
from edgehive.wire.tunnel import (
    BACKLOG,
    WINDOW,
    Channel,
    ConnectRequest,
    Frame,
    Kind,
    decode_frame,
    parse_connect,
    parse_window,
)

RECORDED = (
    '{"MessID":1,"url":{"Scheme":"http","Opaque":"","User":null,"Host":"127.0.0.1:10350",'
    '"Path":"/containerLogs/default/nginx/c","RawPath":"","OmitHost":false,"ForceQuery":false,'
    '"RawQuery":"follow=true\\u0026tailLines=10","Fragment":"","RawFragment":""},'
    '"header":{"User-Agent":["Go-http-client/1.1"]}}'
)


@pytest.mark.parametrize(
    ("wire", "frame"),
    [
        ("010368656c6c6f0a", Frame(1, Kind.DATA, b"hello\n")),
        ("ac0203ff00", Frame(300, Kind.DATA, b"\xff\x00")),
        ("ac0204", Frame(300, Kind.REMOVE)),
    ],
)
def test_frames_have_the_bytes_of_the_original(wire: str, frame: Frame) -> None:
    assert frame.encode().hex() == wire
    assert decode_frame(bytes.fromhex(wire)) == frame


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 300), st.binary(max_size=100))
def test_every_frame_survives_the_way(number: int, kind: int, data: bytes) -> None:
    assert decode_frame(Frame(number, kind, data).encode()) == Frame(number, kind, data)


@given(st.binary(max_size=40))
def test_garbage_is_a_frame_or_a_protocol_error(data: bytes) -> None:
    try:
        frame = decode_frame(data)
    except ProtocolError:
        return
    assert data.endswith(frame.data)


def test_the_original_s_connect_is_understood_and_ours_says_the_same() -> None:
    request = parse_connect(Frame(1, Kind.LOGS, RECORDED.encode()))
    assert (request.path, request.query) == ("/containerLogs/default/nginx/c", "follow=true&tailLines=10")
    assert request.headers == {"User-Agent": ["Go-http-client/1.1"]}
    assert request.frame().data.decode() == RECORDED.replace("\\u0026", "&")


def test_an_exec_names_its_method() -> None:
    sent = ConnectRequest(
        7, Kind.EXEC, "/exec/default/p/c", "command=a%20b", "POST", {"Upgrade": ["SPDY/3.1"]}
    )
    assert parse_connect(sent.frame()) == sent


@pytest.mark.parametrize(
    "body",
    ["", "[]", '{"url":3}', '{"url":{"Path":"x"}}', '{"url":{"Path":"/x","RawQuery":"a b\\r\\n"}}',
     '{"url":{"Path":"/x"},"method":"GET / "}'],
)  # fmt: skip
def test_a_connect_cannot_smuggle_a_second_request(body: str) -> None:
    with pytest.raises(ProtocolError):
        parse_connect(Frame(1, Kind.EXEC, body.encode()))


@given(st.lists(st.integers(1, 40_000), max_size=60), st.randoms())
def test_between_ours_no_more_than_a_window_is_on_the_way_and_nothing_stalls(
    sizes: list[int], random: "st.randoms"
) -> None:
    sender, reader = Channel(1, peer_window=WINDOW), Channel(1, peer_window=WINDOW)
    outstanding = received = 0
    waiting = sum(sizes)
    while waiting:
        size = min(sender.allowance, waiting)
        if size == 0 or random.random() < 0.3:
            data, grant = reader.take()
            received += len(data)
            outstanding -= len(data)
            if grant is not None:
                sender.credit(grant.data)
            assert data or sender.allowance, "neither end can go on"
            continue
        for frame in sender.send(bytes(size)):
            assert reader.receive(frame.data)
        waiting -= size
        outstanding += size
        assert outstanding <= WINDOW
    received += len(reader.take()[0])
    assert received == sum(sizes)


def test_a_reader_that_sleeps_costs_a_backlog_and_no_more() -> None:
    channel = Channel(1, peer_window=0)
    assert channel.receive(bytes(BACKLOG))
    assert not channel.receive(b"x")


def test_an_end_is_said_once_and_not_to_who_said_it() -> None:
    ours = Channel(1, peer_window=0)
    assert ours.close() == Frame(1, Kind.REMOVE)
    assert ours.close() is None
    theirs = Channel(2, peer_window=0)
    theirs.receive(b"last words")
    theirs.end()
    assert theirs.take()[0] == b"last words"
    assert theirs.take()[0] == b""
    assert theirs.close() is None


@pytest.mark.parametrize(
    ("text", "window"), [(None, 0), ("x", 0), ("-1", 0), ("262144", 262144), ("9" * 30, 0)]
)
def test_a_window_is_a_number(text: str | None, window: int) -> None:
    assert parse_window(text) == window
