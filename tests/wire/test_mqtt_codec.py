"""MQTT packets to bytes and back, for both versions; what is malformed is refused and nothing else is raised."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.wire import mqtt_packets as mp
from edgehive.wire.mqtt_codec import PacketReader, decode_packet, encode_packet
from edgehive.wire.mqtt_packets import V5, V311, MqttError, Packet, Properties
from edgehive.wire.mqtt_properties import varint

LIMIT = 1 << 20

texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
topics = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0+#"), min_size=1, max_size=20
)
ids = st.integers(1, 0xFFFF)
payloads = st.binary(max_size=300)
users: st.SearchStrategy[Properties] = st.lists(
    st.tuples(st.just(mp.USER_PROPERTY), st.tuples(texts, texts)), max_size=3
).map(tuple)


def optional(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Properties]:
    """Any of these properties, each at most once, then user properties."""
    parts = [st.just(()) | st.tuples(st.tuples(st.just(key), values)) for key, values in choices]
    return st.tuples(*parts, users).map(lambda found: tuple(p for part in found for p in part))


message_properties = optional(
    (mp.PAYLOAD_FORMAT, st.integers(0, 1)),
    (mp.MESSAGE_EXPIRY, st.integers(0, 2**32 - 1)),
    (mp.CONTENT_TYPE, texts),
    (mp.RESPONSE_TOPIC, topics),
    (mp.CORRELATION_DATA, payloads),
)
reasoned = optional((mp.REASON_STRING, texts))


@st.composite
def packets(draw: st.DrawFn, version: int) -> Packet:
    five = version == V5

    def properties(of: st.SearchStrategy[Properties]) -> Properties:
        return draw(of) if five else ()

    match draw(st.integers(0, 12)):
        case 0:
            qos = draw(st.integers(0, 2))
            return mp.Publish(
                draw(topics),
                draw(payloads),
                qos,
                draw(st.booleans()),
                draw(st.booleans()) if qos else False,
                draw(ids) if qos else 0,
                properties(message_properties),
            )
        case 1:
            will = mp.Will(
                draw(topics),
                draw(payloads),
                draw(st.integers(0, 2)),
                draw(st.booleans()),
                properties(message_properties),
            )
            username = draw(st.none() | texts)
            return mp.Connect(
                draw(texts),
                draw(st.booleans()),
                draw(st.integers(0, 0xFFFF)),
                version,
                draw(st.none() | st.just(will)),
                username,
                draw(st.none() | payloads) if username is not None or five else None,
                properties(
                    optional((mp.SESSION_EXPIRY, st.integers(0, 2**32 - 1)), (mp.RECEIVE_MAXIMUM, ids))
                ),
            )
        case 2:
            return mp.Connack(draw(st.booleans()), draw(st.integers(0, 255)), properties(reasoned))
        case 3:
            kind = draw(st.sampled_from([mp.PUBACK, mp.PUBREC, mp.PUBREL, mp.PUBCOMP]))
            return mp.Ack(kind, draw(ids), draw(st.integers(0, 255)) if five else 0, properties(reasoned))
        case 4:
            one = st.builds(
                mp.Subscription,
                topics,
                st.integers(0, 2),
                st.booleans() if five else st.just(False),
                st.booleans() if five else st.just(False),
                st.integers(0, 2) if five else st.just(0),
            )
            return mp.Subscribe(
                draw(ids),
                tuple(draw(st.lists(one, min_size=1, max_size=4))),
                properties(optional((mp.SUBSCRIPTION_ID, st.integers(1, mp.MAX_REMAINING)))),
            )
        case 5:
            return mp.Suback(
                draw(ids), tuple(draw(st.lists(st.integers(0, 255), max_size=4))), properties(reasoned)
            )
        case 6:
            return mp.Unsubscribe(
                draw(ids), tuple(draw(st.lists(topics, min_size=1, max_size=4))), properties(users)
            )
        case 7:
            codes = tuple(draw(st.lists(st.integers(0, 255), max_size=4))) if five else ()
            return mp.Unsuback(draw(ids), codes, properties(reasoned))
        case 8:
            return mp.Pingreq()
        case 9:
            return mp.Pingresp()
        case 10 if five:
            return mp.Auth(draw(st.integers(0, 255)), draw(reasoned))
        case _:
            return mp.Disconnect(draw(st.integers(0, 255)) if five else 0, properties(reasoned))


def decode_all(data: bytes, version: int, *cuts: int) -> list[Packet]:
    reader, found, at = PacketReader(LIMIT), [], 0
    for cut in [*sorted(cuts), len(data)]:
        found += [decode_packet(first, body, version) for first, body in reader.feed(data[at:cut])]
        at = cut
    assert reader.buffered == 0
    return found


@pytest.mark.parametrize("version", [V311, V5])
@given(data=st.data())
def test_what_is_encoded_is_decoded_however_the_stream_is_cut(version: int, data: st.DataObject) -> None:
    sent = data.draw(st.lists(packets(version), min_size=1, max_size=5))
    stream = b"".join(encode_packet(packet, version) for packet in sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    assert decode_all(stream, version, *cuts) == sent


@given(st.binary(max_size=200), st.sampled_from([V311, V5]))
def test_arbitrary_bytes_are_packets_or_refused(data: bytes, version: int) -> None:
    try:
        for first, body in PacketReader(LIMIT).feed(data):
            packet = decode_packet(first, body, version)
            encode_packet(packet, version)
    except MqttError as exc:
        reason = exc.reason
    else:
        return
    assert reason >= 0x80


@given(st.data(), st.sampled_from([V311, V5]))
def test_a_packet_with_one_byte_changed_is_a_packet_or_refused(data: st.DataObject, version: int) -> None:
    frame = bytearray(encode_packet(data.draw(packets(version)), version))
    frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        for first, body in PacketReader(LIMIT).feed(bytes(frame)):
            decode_packet(first, body, version)
    except MqttError:
        pass


@pytest.mark.parametrize(
    ("value", "wire"),
    [(0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (16_383, b"\xff\x7f"), (16_384, b"\x80\x80\x01")]
    + [(2_097_151, b"\xff\xff\x7f"), (2_097_152, b"\x80\x80\x80\x01"), (268_435_455, b"\xff\xff\xff\x7f")],
)
def test_lengths_are_those_of_the_standard(value: int, wire: bytes) -> None:
    assert varint(value) == wire


def test_the_bytes_of_the_standard() -> None:
    """Figures of MQTT 3.1.1 (3.1.2.12, 3.3) and the smallest packets."""
    connect = mp.Connect("a", clean=True, keepalive=10, username="u", password=b"p")
    assert encode_packet(connect, V311) == bytes.fromhex(
        "10 13 0004 4d515454 04 c2 000a 0001 61 0001 75 0001 70"
    )
    publish = mp.Publish("a/b", b"", 1, packet_id=10)
    assert encode_packet(publish, V311) == bytes.fromhex("32 07 0003 612f62 000a")
    assert encode_packet(mp.Pingreq(), V311) == b"\xc0\x00"
    assert encode_packet(mp.Ack(mp.PUBREL, 1), V311) == b"\x62\x02\x00\x01"
    assert encode_packet(mp.Ack(mp.PUBACK, 1), V5) == b"\x40\x02\x00\x01"
    assert encode_packet(mp.Disconnect(), V5) == b"\xe0\x00"


@pytest.mark.parametrize(
    "wire",
    [
        "36 05 0001 61 0001",  # QoS 3
        "38 03 0001 61",  # a duplicate with QoS 0
        "30 03 0001 2b",  # a wildcard in a topic
        "30 03 0001 00",  # U+0000
        "30 04 0002 c080",  # overlong UTF-8
        "30 05 0003 eda080",  # a surrogate
        "30 02 0000",  # no topic
        "32 05 0001 61 0000",  # packet id 0
        "30 01 00",  # half a length
        "82 02 0001",  # SUBSCRIBE without a filter
        "80 06 0001 0001 61 00",  # wrong fixed bits
        "82 06 0001 0001 61 03",  # QoS 3 wanted
        "82 06 0001 0001 61 04",  # an option of 5.0 in 3.1.1
        "a2 02 0001",  # UNSUBSCRIBE without a filter
        "c0 01 00",  # PINGREQ with a body
        "00 00",  # type 0
        "f0 00",  # AUTH in 3.1.1
        "10 0d 0004 4d515454 04 03 0000 0001 61",  # reserved flag
        "10 0d 0004 4d515454 04 08 0000 0001 61",  # will QoS without a will
        "10 0d 0004 4d515455 04 02 0000 0001 61",  # another protocol
        "10 0d 0004 4d515454 06 02 0000 0001 61",  # another version
        "10 10 0004 4d515454 04 42 0000 0001 61 0001 70",  # a password without a user
        "10 0e 0004 4d515454 04 02 0000 0001 61 00",  # too long
        "10 12 0004 4d515454 04 1e 0000 0001 61 0001 61 0000",  # will QoS 3
        "10 12 0004 4d515454 04 06 0000 0001 61 0001 2b 0000",  # a wildcard in the will's topic
        "20 02 02 00",  # CONNACK with reserved bits
        "40 02 0000",  # PUBACK with packet id 0
        "32 03 0001 61",  # QoS 1 without a packet id
        "10 0e 0004 4d515454 04 02 0000 0002 6100",  # U+0000 in the client id
    ],
)
def test_what_breaks_the_standard_is_refused(wire: str) -> None:
    with pytest.raises(MqttError):
        decode_all(bytes.fromhex(wire), V311)


@pytest.mark.parametrize(
    "properties",
    [
        "03 2a0000",
        "02 7f00",
        "03 230000",
        "04 01000100",
        "02 0102",
        "02 2401",
        "05 02000000",
        "03 21000a",
        "80 80 80 80 01",
    ],
)
def test_properties_that_do_not_belong_or_repeat_are_refused(properties: str) -> None:
    body = bytes.fromhex("0001 61" + properties)
    with pytest.raises(MqttError):
        decode_all(b"\x30" + varint(len(body)) + body, V5)


@pytest.mark.parametrize("head", [b"\x30\xff\xff\xff\x7f", b"\x30\x80\x80\x80\x80", b"\x30\x81\x80\x40"])
def test_a_packet_over_the_limit_is_refused_by_its_length_alone(head: bytes) -> None:
    reader = PacketReader(LIMIT)
    for byte in head[:-1]:
        reader.feed(bytes((byte,)))
    with pytest.raises(MqttError):
        reader.feed(head[-1:])
    assert reader.buffered <= 5


def test_a_message_of_5_0_has_a_topic_or_an_alias() -> None:
    with pytest.raises(MqttError):
        decode_all(b"\x30\x03\0\0\0", V5)
    assert decode_all(b"\x30\x06\0\0\3\x23\0\1", V5) == [mp.Publish("", properties=((mp.TOPIC_ALIAS, 1),))]


@pytest.mark.parametrize(
    "packet",
    [
        mp.Publish("x" * 70_000),
        mp.Publish("\ud800"),
        mp.Connect("c", username="u", password=b"x" * 70_000),
    ],
)
def test_what_the_wire_cannot_carry_is_refused_before_it_is_sent(packet: Packet) -> None:
    with pytest.raises(MqttError):
        encode_packet(packet, V311)
    with pytest.raises(MqttError):
        varint(mp.MAX_REMAINING + 1)


def test_a_large_packet_in_small_pieces_is_put_together() -> None:
    payload = bytes(range(256)) * 2000
    frame = encode_packet(mp.Publish("t", payload), V311)
    reader = PacketReader(LIMIT)
    found: list[tuple[int, bytes]] = []
    for at in range(0, len(frame), 1000):
        found += reader.feed(frame[at : at + 1000])
    ((first, body),) = found
    packet = decode_packet(first, body, V311)
    assert isinstance(packet, mp.Publish)
    assert packet.payload == payload
