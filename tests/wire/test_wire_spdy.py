"""SPDY/3.1 between two ends, in any pieces, and against garbage."""

import contextlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.kit.errors import ProtocolError
from edgehive.wire.spdy import DICTIONARY, Accepted, Data, Opened, SpdyConnection


def test_the_dictionary_is_spdy_3_s() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


@given(
    st.lists(st.dictionaries(st.sampled_from(["streamtype", "port", "requestid"]), st.text(max_size=20))),
    st.integers(1, 50),
)
def test_streams_open_whatever_the_pieces(blocks: list[dict[str, str]], step: int) -> None:
    client, server = SpdyConnection(), SpdyConnection()
    wire = b"".join(client.open(2 * n + 1, headers) for n, headers in enumerate(blocks))
    events = [e for at in range(0, len(wire), step) for e in server.receive(wire[at : at + step])]
    assert events == [Opened(2 * n + 1, headers) for n, headers in enumerate(blocks)]
    replies = b"".join(server.accept(event.stream) for event in events if isinstance(event, Opened))
    assert list(client.receive(replies)) == [Accepted(2 * n + 1) for n in range(len(blocks))]


@given(st.binary(max_size=50_000), st.booleans())
def test_data_arrives_whole(data: bytes, fin: bool) -> None:
    events = list(SpdyConnection().receive(SpdyConnection.data(5, data, fin=fin)))
    assert b"".join(e.data for e in events if isinstance(e, Data)) == data
    assert [e.fin for e in events if isinstance(e, Data)][-1] is fin


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        list(SpdyConnection().receive(data))


def test_a_frame_cannot_be_huge() -> None:
    with pytest.raises(ProtocolError):
        list(SpdyConnection().receive(b"\0\0\0\1\0\xff\xff\xff"))
