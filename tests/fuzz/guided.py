"""A small coverage-guided fuzzer: inputs that reach new lines are kept and mutated further.

    python -m tests.fuzz.guided TARGET --seconds 600 --seed 1

It needs nothing but the interpreter. A finding is printed as the bytes that cause it.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

Target = Callable[[bytes], object]

_TOKENS = (
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\u0000", b"\\ud800", b"null", b"true", b"-1", b"1e999", b"0",
    b"9223372036854775808", b"\xff", b"\xef\xbb\xbf", b" ", b"/", b".", b"..", b"%2e", b"\x00", b"header", b"route",
    b"content", b"metadata", b"uid", b"resourceVersion", b"msg_id", b"timestamp", b"operation", b"response",
)  # fmt: skip


@dataclass
class Fuzzer:
    """One run; the same seed makes the same inputs."""

    target: Target
    allowed: tuple[type[BaseException], ...]
    corpus: list[bytes]
    seed: int = 1
    within: str = "/edgehive/"
    seen: set[tuple[str, int, int]] = field(default_factory=set)
    executions: int = 0

    def run(self, *, seconds: float = 0.0, executions: int = 0) -> bytes | None:
        """Fuzz for so long; returns an input that raises what it must not, or nothing."""
        rng = random.Random(self.seed)
        deadline = time.monotonic() + seconds
        for data in list(self.corpus):
            if not self._try(data):
                return data
        while (executions and self.executions < executions) or (seconds and time.monotonic() < deadline):
            data = self._mutate(rng, rng.choice(self.corpus))
            known = len(self.seen)
            if not self._try(data):
                return data
            if len(self.seen) > known:
                self.corpus.append(data)
        return None

    def _try(self, data: bytes) -> bool:
        self.executions += 1
        last = 0

        def trace(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            if self.within not in frame.f_code.co_filename:
                return None
            if event == "line":
                self.seen.add((frame.f_code.co_filename, last, frame.f_lineno))
                last = frame.f_lineno
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            self.target(data)
        except self.allowed:
            return True
        except Exception as exc:
            sys.settrace(before)
            print(f"{type(exc).__name__}: {exc}\n  {data!r}")
            return False
        finally:
            sys.settrace(before)
        return True

    def _mutate(self, rng: random.Random, data: bytes) -> bytes:
        for _ in range(rng.randint(1, 4)):
            at = rng.randint(0, len(data))
            match rng.randrange(6):
                case 0:
                    data = data[:at] + rng.choice(_TOKENS) + data[at:]
                case 1:
                    data = data[:at] + bytes((rng.randrange(256),)) + data[at + 1 :]
                case 2:
                    data = data[:at] + data[at + rng.randint(1, 8) :]
                case 3:
                    other = rng.choice(self.corpus)
                    data = data[:at] + other[rng.randint(0, len(other)) :]
                case 4:
                    end = min(len(data), at + rng.randint(1, 16))
                    data = data[:at] + data[at:end] * rng.randint(2, 4) + data[end:]
                case _:
                    data = data[:at] + rng.choice(_TOKENS) + data[at + rng.randint(1, 6) :]
        return data[:4096]


def targets() -> dict[str, tuple[Target, tuple[type[BaseException], ...], Sequence[bytes]]]:
    """The parsers that read what a peer sends: each with what it may raise, and examples."""
    from edgehive.kit.errors import ProtocolError, UserError
    from edgehive.wire import application, held, message, objectsync, resource, token
    from edgehive.wire.outbound import Outbound
    from tests.fuzz import device_targets, dmi_targets, metaserver_targets, mqtt_targets, twin_targets

    dmi = dmi_targets.examples()
    frame = (
        b'{"header":{"msg_id":"a","parent_msg_id":"b","timestamp":1,"resourceversion":"7"},"route":{"source":"edged",'
        b'"group":"resource","operation":"update","resource":"default/pod/p"},"content":{"kind":"Pod","apiVersion":'
        b'"v1","metadata":{"name":"p","uid":"u","resourceVersion":"7"}}}'
    )

    def message_target(data: bytes) -> None:
        found = message.decode_message(data)
        assert message.decode_message(message.encode_message(found)) == found
        out = Outbound(found)
        assert isinstance(out.uid, str)
        message.decode_content(found.content)

    sync = (
        b'{"metadata":{"name":"n.u","namespace":"d","resourceVersion":"1"},"spec":{"objectAPIVersion":"v1",'
        b'"objectKind":"Pod","objectName":"p"},"status":{"objectResourceVersion":"3"}}'
    )
    app = b'{"ID":"x","Key":"/core/v1/pods/d/null","Verb":"list","Nodename":"n","Option":"e30=","ReqBody":""}'
    jwt = b"a" * 64 + b".eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2ln"
    return {
        "message": (message_target, (ProtocolError,), [frame, b"{}", b'{"header":null,"route":null}']),
        "resource": (
            lambda data: resource.find_resource(data.decode("utf-8", "surrogateescape")),
            (),
            [b"default/pod/p", b"node/n/null/node/n", b"a/volume/b", b"membership/detail"],
        ),
        "objectsync": (lambda data: objectsync.parse_sync(data), (ProtocolError,), [sync]),
        "holdings": (
            lambda data: held.decode_holdings(data).strangers("n", ()),
            (ProtocolError,),
            [b'[["default/pod/p","u","7"],["null/node/n","v","8"]]', b'"[]"', b"[]"],
        ),
        "application": (lambda data: application.decode_application(data), (ProtocolError,), [app]),
        "token": (
            lambda data: (
                token.parse_token(data.decode("latin-1")),
                token.token_expiry(data.decode("latin-1")),
            ),
            (UserError,),
            [jwt],
        ),
        "dmi-edgecore": (dmi_targets.EdgecoreTarget(), (), dmi["edgecore"]),
        "dmi-mapper": (dmi_targets.MapperTarget(), (), dmi["mapper"]),
        "dmi-object": (dmi_targets.object_target, (ProtocolError,), dmi["object"]),
        **mqtt_targets.targets(),
        **twin_targets.targets(),
        **device_targets.targets(),
        **metaserver_targets.targets(),
    }


def main(argv: Iterable[str] | None = None) -> int:
    """Fuzz one target from the command line."""
    known = targets()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(known))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(None if argv is None else list(argv))
    target, allowed, corpus = known[arguments.target]
    fuzzer = Fuzzer(target, allowed, list(corpus), seed=arguments.seed)
    found = fuzzer.run(seconds=arguments.seconds)
    print(f"{fuzzer.executions} executions, {len(fuzzer.seen)} edges, {len(fuzzer.corpus)} inputs kept")
    return 1 if found is not None else 0


if __name__ == "__main__":
    sys.exit(main())
