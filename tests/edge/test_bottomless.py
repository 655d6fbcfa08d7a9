"""JSON without a bottom makes msgspec raise RecursionError: whoever decodes foreign bytes answers it like other nonsense."""

from pathlib import Path

import pytest

import edgehive
from edgehive.aio.kubelines import decode_page, decode_watch_line
from edgehive.apiserver.codec import decode_json
from edgehive.apiserver.reads import parse_continue
from edgehive.edge.dmi_convert import Unconvertible, load
from edgehive.edge.metatoken import bound_uid, has_token
from edgehive.edge.store import metadata_of
from edgehive.kit.errors import ProtocolError
from edgehive.kube.meta import Meta
from edgehive.kube.reflector import decode_cached
from edgehive.kube.status import ApiStatus

DEEP = b'{"metadata":{"annotations":' + b'{"a":' * 200_000 + b"1" + b"}" * 200_000 + b"}}"
WATCH = b'{"type":"ADDED","object":' + DEEP + b"}\n"


@pytest.mark.parametrize(
    ("decode", "data", "error"),
    [
        (load, DEEP, Unconvertible),
        (decode_cached, DEEP, ProtocolError),
        (decode_watch_line, WATCH, ProtocolError),
        (decode_page, b'{"items":[' + DEEP + b"]}", ProtocolError),
        (decode_json, DEEP, ApiStatus),
        (parse_continue, "e3sie" * 50_000, ApiStatus),
    ],
)
def test_a_bottomless_text_is_refused_like_other_nonsense(decode, data, error):
    with pytest.raises(error):
        decode(data)


def test_a_bottomless_row_counts_as_unreadable():
    assert metadata_of(DEEP) == Meta()
    assert not has_token(DEEP)
    assert bound_uid(DEEP) == ""


def test_no_decoder_catches_less_than_what_decoding_may_raise():
    root = Path(edgehive.__file__).parent
    careless = [
        f"{path.relative_to(root)}:{number}"
        for path in root.rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "except" in line and "msgspec.DecodeError" in line
    ]
    assert careless == []
