"""The tunnel's WebSocket client against the `websockets` library's own server, both without a socket."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from edgehive.edge.link_ws import Closing, HandshakeRefused, Opened, Received
from edgehive.edge.stream_ws import BytesWebSocketClient
from edgehive.kit.errors import ProtocolError


def connected() -> tuple[BytesWebSocketClient, ServerProtocol]:
    client, server = BytesWebSocketClient(), ServerProtocol(max_size=None)
    server.receive_data(client.request(host="cloud:10004", path="/v1/kubeedge/connect", headers={"A": "b"}))
    (event,) = server.events_received()
    assert isinstance(event, Request)
    response = server.accept(event)
    response.headers["X-Answer"] = "yes"
    server.send_response(response)
    assert client.receive(b"".join(server.data_to_send())) == [Opened()]
    assert client.answer_headers["x-answer"] == "yes"
    return client, server


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=70_000))
def test_any_bytes_go_out_as_text(data: bytes) -> None:
    client, server = connected()
    server.receive_data(client.text(data))
    (frame,) = server.events_received()
    assert isinstance(frame, Frame)
    assert (frame.opcode, frame.data) == (Opcode.TEXT, data)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=3000), st.integers(1, 500))
def test_text_that_is_no_utf8_comes_in_whole(data: bytes, step: int) -> None:
    client, server = connected()
    half = len(data) // 2
    server.send_text(data[:half], fin=False)
    server.send_ping(b"between")
    server.send_continuation(data[half:], fin=True)
    stream = b"".join(server.data_to_send())
    events = [e for at in range(0, len(stream), step) for e in client.receive(stream[at : at + step])]
    assert [e.data for e in events if isinstance(e, Received)] == [data]


def test_a_refusal_is_told_with_its_body() -> None:
    client = BytesWebSocketClient()
    client.request(host="h", path="/", headers={})
    with pytest.raises(HandshakeRefused, match="403 not this node"):
        client.receive(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 13\r\n\r\nnot this node")


def test_a_close_is_answered() -> None:
    client, server = connected()
    server.send_close(1001, "bye")
    (event,) = client.receive(b"".join(server.data_to_send()))
    assert isinstance(event, Closing)
    assert event.reply


def test_a_message_cannot_be_huge() -> None:
    client, server = connected()
    server.send_text(bytes(3 << 20))
    with pytest.raises(ProtocolError):
        client.receive(b"".join(server.data_to_send()))
