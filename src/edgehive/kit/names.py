"""Host names without Python's IDNA codec: `ssl`, `socket` and wsproto load it for every text, 0.3 MB for ASCII as it is."""


class _Ascii(str):
    """A name that is ASCII, in whatever codec it is asked for."""

    __slots__ = ()

    def encode(self, encoding: str = "ascii", errors: str = "strict") -> bytes:
        return super().encode("ascii")


def plain_host(host: str) -> str:
    """`host`, which libraries may turn into bytes at no cost where it is ASCII."""
    return _Ascii(host) if host.isascii() else host
