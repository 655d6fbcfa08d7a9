r"""JSON as Go's ``encoding/json`` writes and reads it, where the difference shows to a client.

Written: ``<``, ``>``, ``&`` and the line separators escaped; map keys are sorted by the caller. Read: keys match in
any letter case, null counts as absent, invalid UTF-8 becomes U+FFFD. The words of a syntax error are Go's as well:
clients see them in ``membership/get/result``.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from edgehive.kit.errors import ProtocolError
from edgehive.kit.malformed import MALFORMED

MAX_PAYLOAD: Final = 256 << 10
"""Largest payload of a client, in bytes; KubeEdge has no limit."""

_DESCRIBED: Final = 16 << 10
"""Longest payload whose error is put into Go's words."""

_encoder = msgspec.json.Encoder()
_ESCAPES: Final = (
    (b"&", b"\\u0026"),
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
)


class Malformed(ProtocolError):
    """A payload is not the JSON it should be."""


def encode(value: Any) -> bytes:
    """Encode `value`; the escaped characters can only be inside of strings."""
    data = _encoder.encode(value)
    for plain, escaped in _ESCAPES:
        if plain in data:
            data = data.replace(plain, escaped)
    return data


def decode(payload: bytes) -> dict[str, Any]:
    """Decode an object and fold its keys; null counts as an empty one.

    Raises:
        Malformed: not an object, or too large or too deep to be one.
    """
    if len(payload) > MAX_PAYLOAD:
        raise Malformed(f"the message has {len(payload)} bytes; at most {MAX_PAYLOAD} are taken")
    try:
        value = msgspec.json.decode(_clean(payload))
    except MALFORMED as exc:
        deep = isinstance(exc, RecursionError)
        raise Malformed("the JSON is nested too deeply" if deep else str(exc)) from exc
    if value is None:
        return {}
    return fold(value, "the message")


def fold(value: Any, what: str) -> dict[str, Any]:
    """The members of an object with keys in lower case, without those that are null.

    Raises:
        Malformed: it is not an object.
    """
    if not isinstance(value, dict):
        raise Malformed(f"{what} is not an object")
    return {key.casefold(): item for key, item in value.items() if item is not None}


def text(members: Mapping[str, Any], key: str) -> str | None:
    """A string member; ``None`` when it is absent.

    Raises:
        Malformed: it is something else.
    """
    value = members.get(key)
    if value is not None and not isinstance(value, str):
        raise Malformed(f"{key} is not a string")
    return value


def integer(members: Mapping[str, Any], key: str) -> int:
    """A 64-bit member; 0 when it is absent.

    Raises:
        Malformed: it is something else.
    """
    value = members.get(key, 0)
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise Malformed(f"{key} is not an integer")
    return value


def boolean(members: Mapping[str, Any], key: str) -> bool | None:
    """A boolean member; ``None`` when it is absent.

    Raises:
        Malformed: it is something else.
    """
    value = members.get(key)
    if value is not None and not isinstance(value, bool):
        raise Malformed(f"{key} is not true or false")
    return value


def _clean(payload: bytes) -> bytes:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return payload.decode("utf-8", "replace").encode()
    return payload


# -- Go's words for a syntax error


class _SyntaxError(Exception):
    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


def describe_error(payload: bytes, problem: Malformed) -> str:
    """``%#v`` of the error Go would have found in `payload`, as far as it is one of syntax; else what we found.

    It is looked for in short payloads only: byte by byte, a long one would take half a second.
    """
    if len(payload) > _DESCRIBED:
        return str(problem)
    scanner = _Scanner(payload)
    try:
        scanner.run()
    except _SyntaxError as exc:
        quoted = exc.message.replace("\\", "\\\\").replace('"', '\\"')
        return f'&json.SyntaxError{{msg:"{quoted}", Offset:{exc.offset}}}'
    return str(problem)


_SPACE: Final = b" \t\r\n"
_DEPTH: Final = 10_000


class _Scanner:
    """Walks over one JSON text with a stack of its own, so that depth is no danger."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def run(self) -> None:
        """Raise what is wrong first."""
        stack: list[bytes] = []
        self._value(stack)
        while stack:
            self._after_value(stack)
        self._skip()
        if self._at < len(self._data):
            self._bad("after top-level value")

    def _skip(self) -> None:
        data, end = self._data, len(self._data)
        while self._at < end and data[self._at] in _SPACE:
            self._at += 1

    def _peek(self) -> bytes:
        if self._at >= len(self._data):
            raise _SyntaxError("unexpected end of JSON input", len(self._data))
        return self._data[self._at : self._at + 1]

    def _bad(self, context: str) -> None:
        raise _SyntaxError(f"invalid character {_quoted(self._peek())} {context}", self._at + 1)

    def _value(self, stack: list[bytes]) -> None:
        """One scalar, or the opening of a container up to its first value."""
        while True:
            self._skip()
            char = self._peek()
            if char not in b"{[":
                self._scalar(char)
                return
            self._at += 1
            stack.append(char)
            if len(stack) > _DEPTH:
                raise _SyntaxError("exceeded max depth", self._at)
            self._skip()
            if self._peek() == (b"}" if char == b"{" else b"]"):
                self._at += 1
                stack.pop()
                return
            if char == b"{":
                self._key("looking for beginning of object key string")

    def _after_value(self, stack: list[bytes]) -> None:
        self._skip()
        char, inside = self._peek(), stack[-1]
        if char == b",":
            self._at += 1
            self._skip()
            if inside == b"{":
                self._key("looking for beginning of object key string")
            self._value(stack)
        elif char == (b"}" if inside == b"{" else b"]"):
            self._at += 1
            stack.pop()
        else:
            self._bad("after object key:value pair" if inside == b"{" else "after array element")

    def _key(self, context: str) -> None:
        if self._peek() != b'"':
            self._bad(context)
        self._string()
        self._skip()
        if self._peek() != b":":
            self._bad("after object key")
        self._at += 1

    def _scalar(self, char: bytes) -> None:
        if char == b'"':
            self._string()
        elif char in (b"t", b"f", b"n"):
            self._literal({b"t": b"true", b"f": b"false", b"n": b"null"}[char])
        elif char == b"-" or char.isdigit():
            self._number()
        else:
            self._bad("looking for beginning of value")

    def _literal(self, word: bytes) -> None:
        for position in range(1, len(word)):
            self._at += 1
            if self._peek() != word[position : position + 1]:
                self._bad(f"in literal {word.decode()} (expecting {_quoted(word[position : position + 1])})")
        self._at += 1

    def _string(self) -> None:
        self._at += 1
        while (char := self._peek()) != b'"':
            if char < b" ":
                self._bad("in string literal")
            self._at += 1
            if char == b"\\":
                self._escape()
        self._at += 1

    def _escape(self) -> None:
        char = self._peek()
        if char not in b'"\\/bfnrtu':
            self._bad("in string escape code")
        self._at += 1
        if char == b"u":
            for _ in range(4):
                if self._peek() not in b"0123456789abcdefABCDEF":
                    self._bad("in \\u hexadecimal character escape")
                self._at += 1

    def _number(self) -> None:
        if self._peek() == b"-":
            self._at += 1
            if not self._peek().isdigit():
                self._bad("in numeric literal")
        if self._peek() == b"0":
            self._at += 1
        else:
            self._digits()
        if self._rest() == b".":
            self._at += 1
            self._need_digits("after decimal point in numeric literal")
        if self._rest() in (b"e", b"E"):
            self._at += 1
            if self._peek() in (b"+", b"-"):
                self._at += 1
            self._need_digits("in exponent of numeric literal")

    def _need_digits(self, context: str) -> None:
        if not self._peek().isdigit():
            self._bad(context)
        self._digits()

    def _digits(self) -> None:
        while self._rest().isdigit():
            self._at += 1

    def _rest(self) -> bytes:
        return self._data[self._at : self._at + 1]


def _quoted(char: bytes) -> str:
    """A character as Go names it in an error."""
    if char == b"'":
        return "'\\''"
    if char == b'"':
        return "'\"'"
    code = char[0]
    names = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 92: "\\\\"}
    if code in names:
        return f"'{names[code]}'"
    if code < 32 or code == 127:
        return f"'\\x{code:02x}'"
    if code < 127:
        return f"'{chr(code)}'"
    # A byte of a longer character is one character of its own to Go here.
    return f"'{chr(code)}'" if chr(code).isprintable() else f"'\\u{code:04x}'"
