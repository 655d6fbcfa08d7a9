"""What the operating system says, as a person reads it."""

import os
import ssl


def reason_of(error: OSError) -> str:
    """``Connection refused`` instead of ``[Errno 111] Connect call failed ('127.0.0.1', 10000)``."""
    if isinstance(error, ssl.SSLError):
        return str(error)
    if (
        error.errno is not None and error.errno > 0
    ):  # getaddrinfo's numbers are negative, with texts of their own
        return os.strerror(error.errno)
    said = str(error.strerror or error)
    return said or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
