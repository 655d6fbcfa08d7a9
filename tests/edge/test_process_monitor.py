"""The monitor of processes: the form of logs, clients that attach, its own death and end."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.edge.process_monitor import HEAD, MOST_LINE, RESIZE, STDERR, STDIN, STDOUT, CriLines, stamp_of
from edgehive.edge.process_pipes import Channel
from edgehive.edge.runtime import RuntimeFailure, State
from tests.edge.test_process_runtime import Bench

LINE = re.compile(rb"T (stdout|stderr) ([FP]) (.*)\n", re.DOTALL)


@given(
    st.lists(
        st.one_of(st.binary(max_size=30), st.sampled_from([b"\n", b"a\nb", b"x" * (MOST_LINE + 5)])),
        max_size=12,
    )
)
def test_whatever_is_written_can_be_put_together_again(pieces: list[bytes]) -> None:
    lines = CriLines("stdout")
    out = b"".join([*(lines.feed(piece, b"T") for piece in pieces), lines.end(b"T")])
    got = b""
    for line in out.split(b"\n")[:-1]:
        match = LINE.fullmatch(line + b"\n")
        assert match is not None, line
        assert len(match[3]) <= MOST_LINE
        got += match[3] + (b"\n" if match[2] == b"F" else b"")
    whole = b"".join(pieces)
    assert got == whole + (b"\n" if whole and not whole.endswith(b"\n") else b"")


def test_a_line_waits_for_its_end_and_a_long_one_comes_in_parts() -> None:
    lines = CriLines("stderr")
    assert lines.feed(b"ab", b"T") == b""
    assert lines.feed(b"c\nd", b"U") == b"U stderr F abc\n"
    assert lines.end(b"V") == b"V stderr F d\n"
    assert lines.end(b"V") == b""
    long = b"y" * (MOST_LINE * 2)
    assert lines.feed(long + b"\n", b"T").count(b" P ") == 1, "a last part of full length is the end"


def test_times_are_in_utc_with_nanoseconds() -> None:
    assert stamp_of(1_700_000_000_000_000_012) == b"2023-11-14T22:13:20.000000012Z"


class Attached(Bench):
    """A runtime, and the clients that were attached to it."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.channels: list[Channel] = []

    async def attach(self, container: str, flags: str) -> Channel:
        self.channels.append(await self.runtime.attach(container, flags))
        return self.channels[-1]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Attached]:
    made = Attached(tmp_path)
    yield made
    for _, writer in made.channels:
        writer.close()
    for sandbox in await made.runtime.list_sandboxes():
        await made.runtime.remove_sandbox(sandbox.id)
    await made.runtime.close()


def monitor_pid(bench: Bench) -> int:
    return int((bench.base / "state" / "monitor.lock").read_text())


async def frame(channel: Channel) -> tuple[int, bytes]:
    async with asyncio.timeout(10):
        kind, length = HEAD.unpack(await channel[0].readexactly(HEAD.size))
        return kind, await channel[0].readexactly(length)


def put(channel: Channel, kind: int, data: bytes) -> None:
    channel[1].write(HEAD.pack(kind, len(data)) + data)


async def until_written(channel: Channel, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        seen += (await frame(channel))[1]
    return seen


async def test_both_outputs_are_logged_with_their_names_and_times(bench: Attached) -> None:
    await bench.ended(await bench.start("echo out; echo err >&2; printf rest"))
    lines = (bench.base / "logs/c/0.log").read_text().splitlines()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
    assert sorted(re.sub(stamp, "T", line) for line in lines) == [
        "T stderr F err",
        "T stdout F out",
        "T stdout F rest",
    ]


async def test_a_client_hears_what_is_said_from_now_on_and_is_heard(bench: Attached) -> None:
    container = await bench.start(
        'while read -r x; do echo "got $x"; echo "no $x" >&2; done; echo end', stdin=True
    )
    first, second = [await bench.attach(container, flags) for flags in ("ioe", "e")]
    put(first, STDIN, b"one\n")
    assert {await frame(first), await frame(first)} == {(STDOUT, b"got one\n"), (STDERR, b"no one\n")}
    assert await frame(second) == (STDERR, b"no one\n"), "it wants no more"
    put(second, STDIN, b"not asked for\n")
    put(first, STDIN, b"")
    put(first, STDIN, b"two\n")
    assert b"got two" in await until_written(first, b"no two\n"), "input goes on after one client's end"
    first[1].close()
    third = await bench.attach(container, "io")
    put(third, STDIN, b"three\n")
    assert await frame(third) == (STDOUT, b"got three\n")
    await bench.runtime.stop_container(container, 0)
    assert await third[0].read() == b"", "the end of the command is the end"
    assert "not asked for" not in bench.log


async def test_input_for_one_client_ends_with_it(bench: Attached) -> None:
    container = await bench.start("cat; echo end of input", stdin=True, stdin_once=True)
    client = await bench.attach(container, "io")
    big = os.urandom(300_000).hex().encode() + b"\n"
    put(client, STDIN, big)
    await client[1].drain()
    client[1].close()
    assert (await bench.ended(container)).exit_code == 0
    log = (bench.base / "logs/c/0.log").read_text()
    text = "".join(line.split(" ", 3)[3] for line in log.splitlines())
    assert text == big.decode().rstrip() + "end of input", "all that was given was taken first"


async def test_a_terminal_has_a_size_and_echoes(bench: Attached) -> None:
    container = await bench.start('while read -r x; do eval "$x"; done', stdin=True, tty=True)
    client = await bench.attach(container, "io")
    put(client, RESIZE, b"33 77")
    put(client, STDIN, b"stty size; tty; echo $TERM\n")
    seen = await until_written(client, b"xterm\r\n")
    assert b"33 77\r\n" in seen
    assert b"/dev/pts/" in seen
    put(client, STDIN, b"exit 5\n")
    assert (await bench.ended(container)).exit_code == 5
    assert "xterm" in bench.log


async def test_a_client_that_does_not_read_is_let_go_and_holds_nobody_up(bench: Attached) -> None:
    container = await bench.start(
        "read x; head -c 30000000 /dev/zero | tr '\\0' z; echo; echo done", stdin=True
    )
    lazy = await bench.attach(container, "io")
    put(lazy, STDIN, b"go\n")
    assert (await bench.ended(container)).exit_code == 0, "nothing waits for it"
    assert bench.log.endswith("done\n")


async def test_a_killed_monitor_is_started_again_and_loses_nothing(bench: Attached) -> None:
    script = "n=0; while [ $n -lt 400 ]; do n=$((n+1)); echo line $n; [ $((n % 100)) = 0 ] && sleep 0.3; done"
    async with asyncio.TaskGroup() as group:
        events = group.create_task(_follow(bench))
        container = await bench.start(script)
        await bench.until(lambda: "line 100\n" in bench.log)
        first = monitor_pid(bench)
        os.kill(first, signal.SIGKILL)
        assert (await bench.ended(container)).exit_code == 0, "the command did not notice"
        events.cancel()
    assert monitor_pid(bench) != first
    assert [line for line in bench.log.splitlines() if line] == [f"line {n}" for n in range(1, 401)]


async def _follow(bench: Attached) -> None:
    async for _ in bench.runtime.events():
        pass


async def test_the_next_edgecore_finds_the_monitor_and_attaches(bench: Attached) -> None:
    container = await bench.start('read -r x; echo "got $x"; sleep 100', stdin=True)
    first = monitor_pid(bench)
    await bench.runtime.close()
    bench.boot()
    client = await bench.attach(container, "io")
    put(client, STDIN, b"hello\n")
    assert await frame(client) == (STDOUT, b"got hello\n")
    assert monitor_pid(bench) == first


async def test_it_ends_when_there_is_nothing_left_to_do(bench: Attached) -> None:
    container = await bench.start("true")
    info = await bench.ended(container)
    await bench.runtime.remove_sandbox(info.sandbox_id)
    pid = monitor_pid(bench)
    async with asyncio.timeout(20):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.1)
    assert not (bench.base / "state/monitor.sock").exists()
    assert (await bench.ended(await bench.start("echo again"))).exit_code == 0, "another one is started"
    assert bench.log.endswith("again\n")


async def test_nonsense_is_refused(bench: Attached) -> None:
    container = await bench.start("sleep 100")
    assert (await bench.runtime.container_status(container)).state is State.RUNNING
    for fields in (("dance", "x"), ("add",), ("add", "../../x", "/nowhere/l", "")):
        with pytest.raises(RuntimeFailure):
            await bench.runtime._monitor.ask(*fields)
    with pytest.raises(RuntimeFailure, match="no such container"):
        await bench.runtime._monitor.ask("reopen", "other")
    client = await bench.attach(container, "io")
    client[1].write(b"\xff" * 64)
    assert await client[0].read() == b"", "a frame without an end"
    assert await bench.runtime.reopen_log(container)


async def test_who_types_when_the_command_has_ended_hears_its_last_words_all_the_same(
    bench: Attached,
) -> None:
    container = await bench.start("read x; head -c 60000 /dev/zero | tr '\\0' z; echo; echo last", stdin=True)
    client = await bench.attach(container, "io")
    put(client, STDIN, b"go\n")
    assert (await bench.ended(container)).exit_code == 0
    for _ in range(3):
        put(client, STDIN, b"too late\n")
        await client[1].drain()
        await asyncio.sleep(0)
    assert (await until_written(client, b"last\n")).count(b"z") == 60_000
    assert await client[0].read() == b"", "that was all"
    client[1].write(b"\xff" * 64)
    await client[1].drain()
    client[1].close()
    assert (await bench.ended(await bench.start("echo again"))).exit_code == 0, (
        "nonsense after the end is dropped"
    )
