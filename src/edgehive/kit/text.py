"""Text from a peer, made safe to log or to show."""

_LIMIT = 120


def safe_label(value: object, limit: int = _LIMIT) -> str:
    """Return `value` as one printable line of at most `limit` characters.

    Everything a peer controls (names, paths, error texts) passes through this before it reaches a log:
    control characters are escaped, so that a peer cannot forge log lines or drive a terminal.
    """
    text = value if isinstance(value, str) else repr(value)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
