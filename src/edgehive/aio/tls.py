"""TLS contexts that trust the same certificates in every version of Python."""

import ssl


def trusting(
    *, cafile: str | None = None, cadata: str | None = None, purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH
) -> ssl.SSLContext:
    """A default context that checks peers against a CA; the system's, if none is given.

    Since 3.13 Python refuses certificates that lack extensions of RFC 5280, such as an authority key identifier. Go,
    OpenSSL and curl take them, and so the CAs of many clusters and brokers make them.

    Raises:
        OSError: the file cannot be read, or is not a CA's (`ssl.SSLError`).
    """
    context = ssl.create_default_context(purpose, cafile=cafile, cadata=cadata)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
