"""Names on their way into libraries."""

import ssl

import pytest

from edgehive.kit.names import plain_host


@pytest.mark.parametrize("host", ["127.0.0.1", "cloud.example", "[::1]:443", ""])
def test_an_ascii_name_is_the_same_text_and_bytes_in_every_codec(host: str) -> None:
    assert plain_host(host) == host
    assert plain_host(host).encode("idna") == plain_host(host).encode() == host.encode()


def test_another_name_is_left_to_the_codec() -> None:
    assert plain_host("bücher.example").encode("idna") == b"xn--bcher-kva.example"


def test_tls_takes_it() -> None:
    context = ssl.create_default_context()
    wrapped = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=plain_host("cloud.example"))
    assert wrapped.server_hostname == "cloud.example"
