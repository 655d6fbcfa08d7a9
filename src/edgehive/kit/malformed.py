"""What decoding bytes of a peer may raise; every decoder of such bytes catches all of it."""

from typing import Final

import msgspec

MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises on hostile input; RecursionError for a million opening brackets."""
