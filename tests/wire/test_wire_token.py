"""Join tokens."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.kit.errors import UserError
from edgehive.wire.refusal import Refused
from edgehive.wire.token import (
    _b64,
    ca_hash,
    check_authorization,
    check_ca,
    make_token,
    parse_token,
    token_expiry,
)

CA, KEY = b"certificate", b"private key"
TOKEN = make_token(ca_der=CA, ca_key_der=KEY, expires=1000)


def refuse(header: str | None, now: float = 0.0, key: bytes = KEY) -> str:
    with pytest.raises(Refused) as caught:
        check_authorization(header, ca_key_der=key, now=now)
    assert caught.value.status == 401
    return caught.value.text


def test_a_token_has_four_fields_and_round_trips() -> None:
    assert len(TOKEN.split(".")) == 4
    token = parse_token(f"  {TOKEN}\n")
    check_ca(token, CA)
    check_authorization(f"Bearer {token.jwt}", ca_key_der=KEY, now=999.0)
    assert token_expiry(TOKEN) == 1000.0


def test_the_layout_is_that_of_the_original() -> None:
    """The example is a token that KubeEdge made; only its key is not known here."""
    theirs = (
        "7b266fbf87274cfab6bf1249a57c6607fdfd02766fe0c35e0ecca59079737d91.eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
        "eyJleHAiOjE3OTU1Nzc1NzB9.9hQa7tfaAxDUh6TW4_AtdkXLLoCg5apGZ5YywvgLRSw"
    )
    assert token_expiry(theirs) == 1795577570
    ours = make_token(ca_der=CA, ca_key_der=KEY, expires=1795577570)
    assert ours.split(".")[1:3] == theirs.split(".")[1:3]


def test_the_scheme_word_is_not_looked_at() -> None:
    check_authorization(f"whatever {parse_token(TOKEN).jwt}", ca_key_der=KEY, now=1.0)


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_the_other_hmac_algorithms_are_taken(algorithm: str) -> None:
    signed = _b64(b'{"alg":"%s"}' % algorithm.encode()) + b"." + _b64(b'{"exp":5}')
    digest = hmac.new(KEY, signed, getattr(hashlib, f"sha{algorithm[2:]}")).digest()
    check_authorization(f"Bearer {signed.decode()}.{_b64(digest).decode()}", ca_key_der=KEY, now=1.0)


def test_refusals_have_the_texts_of_the_original() -> None:
    jwt = parse_token(TOKEN).jwt
    assert refuse(None) == refuse("") == "token validation failure, token is empty"
    assert refuse(jwt) == "token validation failure, token cannot be split"
    assert refuse("a b c") == "token validation failure, token cannot be split"
    assert "expired" in refuse(f"Bearer {jwt}", now=1000.0)
    assert "signature" in refuse(f"Bearer {jwt}", key=b"other")
    unsigned = _b64(b'{"alg":"none"}').decode()
    assert "signing method" in refuse(f"Bearer {unsigned}.{jwt.split('.')[1]}.")
    assert "segments" in refuse("Bearer x")
    assert "malformed" in refuse(f"Bearer .{jwt.split('.', 1)[1]}")


@pytest.mark.parametrize("text", ["", "a.b.c", "a.b.c.d", "x" * 64 + ".a.b.", "y" * 5000])
def test_what_is_not_a_token(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_token(text)
    assert caught.value.hint


def test_another_ca_is_noticed() -> None:
    with pytest.raises(UserError, match="CA certificate"):
        check_ca(parse_token(TOKEN), b"somebody else")
    assert len(ca_hash(CA)) == 64


@given(st.text(max_size=80))
def test_any_header_is_refused_cleanly(header: str) -> None:
    refuse(header)
    token_expiry(header)


@given(st.integers(0, len(TOKEN) - 67), st.characters())
def test_a_changed_token_is_refused(at: int, char: str) -> None:
    jwt = parse_token(TOKEN).jwt
    changed = jwt[:at] + char + jwt[at + 1 :]
    if changed != jwt and not char.isspace():
        refuse(f"Bearer {changed}")
