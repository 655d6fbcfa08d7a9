"""The few facts edgecore needs from its own certificate, read without an X.509 library.

A running edgecore does not import `cryptography` (10 MB); this reads a certificate that TLS has checked or
will check, so it only has to find fields, not to judge them. DER: ITU-T X.690; layout: RFC 5280 4.1.
"""

import base64
import binascii
import datetime
from dataclasses import dataclass

from edgehive.kit.errors import EdgehiveError

_SEQUENCE, _SET, _OID = 0x30, 0x31, 0x06
_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18
_COMMON_NAME = bytes.fromhex("550403")
_ORGANIZATION = bytes.fromhex("55040a")


class CertificateUnreadable(EdgehiveError):
    """The file does not hold an X.509 certificate."""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """Subject and validity; times are seconds since the epoch."""

    common_name: str
    organization: str
    not_before: float
    not_after: float


def read_certificate(data: bytes) -> CertificateFacts:
    """Read the first certificate of `data` (PEM or DER).

    Raises:
        CertificateUnreadable: there is none.
    """
    try:
        certificate = _value(_der(data), _SEQUENCE)
        fields = _items(_value(certificate, _SEQUENCE))
        if fields[0][0] == _VERSION:
            fields = fields[1:]
        # serialNumber, signature, issuer, validity, subject
        not_before, not_after = (_time(tag, value) for tag, value in _items(fields[3][1]))
        names = dict(_names(fields[4][1]))
    except (ValueError, IndexError, binascii.Error, UnicodeDecodeError) as exc:
        raise CertificateUnreadable("not a certificate (PEM or DER)") from exc
    return CertificateFacts(names.get(_COMMON_NAME, ""), names.get(_ORGANIZATION, ""), not_before, not_after)


def pem_to_der(data: bytes) -> bytes:
    """The DER of the first PEM block in `data`."""
    begin = data.index(b"-----BEGIN CERTIFICATE-----") + 27
    return base64.b64decode(data[begin : data.index(b"-----END", begin)])


def der_to_pem(der: bytes, label: str = "CERTIFICATE") -> bytes:
    """Wrap `der` as one PEM block."""
    body = base64.b64encode(der).decode()
    lines = "\n".join(body[n : n + 64] for n in range(0, len(body), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n".encode()


def _der(data: bytes) -> bytes:
    return pem_to_der(data) if b"-----BEGIN" in data else data


def _item(data: bytes, at: int) -> tuple[int, bytes, int]:
    tag, length, at = data[at], data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4:
            raise ValueError("unreasonable length")
        length, at = int.from_bytes(data[at : at + size], "big"), at + size
    if at + length > len(data):
        raise ValueError("truncated")
    return tag, data[at : at + length], at + length


def _items(data: bytes) -> list[tuple[int, bytes]]:
    at, items = 0, []
    while at < len(data):
        tag, value, at = _item(data, at)
        items.append((tag, value))
    return items


def _value(data: bytes, tag: int) -> bytes:
    found, value, _ = _item(data, 0)
    if found != tag:
        raise ValueError(f"expected tag {tag:#x}, found {found:#x}")
    return value


def _names(data: bytes) -> list[tuple[bytes, str]]:
    names = []
    for tag, members in _items(data):
        if tag != _SET:
            raise ValueError("not a name")
        for _, pair in _items(members):
            (kind, oid), (_, text) = _items(pair)
            if kind == _OID:
                names.append((oid, text.decode()))
    return names


def _time(tag: int, value: bytes) -> float:
    text = value.decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if int(text[:2]) < 50 else "19") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("not a time")
    if len(text) != 15 or not text.isascii() or not text[:14].isdigit() or text[14] != "Z":
        raise ValueError("not a time of a certificate")
    # Not strptime: it loads a calendar and the locale's names.
    iso = f"{text[:4]}-{text[4:6]}-{text[6:8]}T{text[8:10]}:{text[10:12]}:{text[12:14]}+00:00"
    return datetime.datetime.fromisoformat(iso).timestamp()
