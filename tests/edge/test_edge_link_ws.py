"""The client against the `websockets` library's own server protocol, both without a socket."""

import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from edgehive.edge.link_ws import Alive, Closing, HandshakeRefused, Opened, Received, WebSocketClient
from edgehive.kit.errors import ProtocolError


def connected() -> tuple[WebSocketClient, ServerProtocol]:
    client, server = WebSocketClient(), ServerProtocol(max_size=None)
    request = client.request(host="cloud:10000", path="/p/n/events", headers={"Node_id": "n"})
    server.receive_data(request)
    (event,) = server.events_received()
    assert isinstance(event, Request)
    assert event.path == "/p/n/events"
    assert event.headers["Node_id"] == "n"
    assert "Origin" not in event.headers
    assert "Sec-WebSocket-Extensions" not in event.headers
    server.send_response(server.accept(event))
    assert client.receive(b"".join(server.data_to_send())) == [Opened()]
    return client, server


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=300), st.integers(1, 300))
def test_messages_reach_the_server_whatever_their_size(text: str, times: int) -> None:
    client, server = connected()
    data = (text * times).encode()
    server.receive_data(client.text(data))
    (frame,) = server.events_received()
    assert isinstance(frame, Frame)
    assert (frame.opcode, frame.data) == (Opcode.TEXT, data)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=300), st.lists(st.integers(0, 600), max_size=5), st.integers(1, 50))
def test_fragments_in_any_chunks_make_one_message(text: str, cuts: list[int], step: int) -> None:
    data = text.encode()  # the original cuts inside characters, too
    marks = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[start:end] for start, end in itertools.pairwise(marks)]
    client, server = connected()
    if len(parts) == 1:
        server.send_binary(parts[0])
    else:
        server.send_text(parts[0], fin=False)
        for part in parts[1:-1]:
            server.send_continuation(part, fin=False)
        server.send_ping(b"between")
        server.send_continuation(parts[-1], fin=True)
    stream = b"".join(server.data_to_send())
    events = [e for at in range(0, len(stream), step) for e in client.receive(stream[at : at + step])]
    assert [e.data for e in events if isinstance(e, Received)] == [b"".join(parts)]


def test_pings_are_answered_with_their_payload() -> None:
    client, server = connected()
    server.send_ping(b"abc")
    (alive,) = client.receive(b"".join(server.data_to_send()))
    assert isinstance(alive, Alive)
    server.receive_data(alive.reply)
    (pong,) = server.events_received()
    assert isinstance(pong, Frame)
    assert (pong.opcode, pong.data) == (Opcode.PONG, b"abc")


def test_our_ping_gets_a_pong() -> None:
    client, server = connected()
    server.receive_data(client.ping())
    assert client.receive(b"".join(server.data_to_send())) == [Alive()]


def test_a_close_is_answered() -> None:
    client, server = connected()
    server.send_close(1001, "bye")
    (closing,) = client.receive(b"".join(server.data_to_send()))
    assert isinstance(closing, Closing)
    assert closing.reason == "closed by the cloud (1001 bye)"
    server.receive_data(closing.reply)
    assert server.close_rcvd is not None
    assert server.close_rcvd.code == 1001


def test_a_refusal_carries_status_and_text() -> None:
    client = WebSocketClient()
    with pytest.raises(HandshakeRefused, match="403 not your certificate") as caught:
        client.receive(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 20\r\n\r\nnot your certificate")
    assert caught.value.status == 403


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 101 ok\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
        b"x" * 20_000,
    ],
)
def test_what_is_not_a_websocket_server_is_refused(answer: bytes) -> None:
    with pytest.raises(ProtocolError):
        WebSocketClient().receive(answer)


@pytest.mark.parametrize(
    "frame",
    [
        b"\xc1\x00",  # reserved bit
        b"\x81\x80\x00\x00\x00\x00",  # masked
        b"\x80\x00",  # continuation of nothing
        b"\x83\x00",  # unknown opcode
        b"\x8b\x00",  # unknown control opcode
        b"\x09\x00",  # fragmented ping
        b"\x89\x7e\x00\x80" + b"x" * 128,  # long ping
        b"\x01\x00\x81\x00",  # new message inside a fragmented one
    ],
)
def test_frames_against_the_rules_are_refused(frame: bytes) -> None:
    client, _ = connected()
    with pytest.raises(ProtocolError):
        client.receive(frame)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_protocol_errors(data: bytes) -> None:
    client, _ = connected()
    with contextlib.suppress(ProtocolError):
        client.receive(data)


@pytest.mark.parametrize("fragments", [1, 3])
def test_a_message_over_the_limit_is_refused(fragments: int) -> None:
    client, server = connected()
    small = WebSocketClient(max_message=1000)
    small._wire = client._wire
    server.send_text(b"x" * 400, fin=False)
    for _ in range(fragments - 1):
        server.send_continuation(b"x" * 400, fin=False)
    server.send_continuation(b"x" * 700, fin=True)
    with pytest.raises(ProtocolError, match="more than 1000 bytes"):
        small.receive(b"".join(server.data_to_send()))
