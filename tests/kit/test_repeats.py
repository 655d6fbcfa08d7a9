from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from edgehive.kit.repeats import OTHERS, Repeat, Repeats

events = st.lists(
    st.tuples(st.floats(0, 40), st.sampled_from(["a", "b"]), st.sampled_from([*"12345", OTHERS])),
    max_size=200,
)


@given(events, st.integers(1, 4))
def test_every_occurrence_is_written_or_counted_once_and_no_minute_has_many_lines(
    gaps: list[tuple[float, str, str]], most: int
) -> None:
    repeats, now = Repeats(period=60.0, most=most), 0.0
    lines: list[float] = []
    counted: Counter[str] = Counter()
    for gap, kind, source in gaps:
        now += gap
        for repeat in repeats.due(now):
            lines.append(now)
            counted[repeat.kind] += repeat.count
        if repeats.admits(kind, source, now):
            lines.append(now)
            counted[kind] += 1
    for repeat in repeats.due(now + 60.0):
        counted[repeat.kind] += repeat.count
    assert counted == Counter(kind for _, kind, _ in gaps)
    assert repeats.due(now + 120.0) == []
    # A place that is free again may be taken at once, so that two minutes may touch.
    assert all(sum(at <= other < at + 60.0 for other in lines) <= 2 * (most + 2) for at in lines)


def test_a_flood_is_one_line_and_then_a_number_each_minute() -> None:
    repeats = Repeats()
    said: list[str] = []
    for now in range(150):
        said += [f"{now}: {repeat}" for repeat in repeats.due(now)]
        if repeats.admits("refused", "10.0.0.1", now):
            said.append(f"{now}: the first")
    assert said == [
        "0: the first",
        "60: refused from 10.0.0.1: 59 more in the last minute",
        "120: refused from 10.0.0.1: 60 more in the last minute",
    ]
    assert repeats.due(180) == [Repeat("refused", "10.0.0.1", 30)]
    assert repeats.due(240) == []
    assert repeats.admits("refused", "10.0.0.1", 240), "a minute without it: it is news again"


def test_sources_without_number_share_one_line_a_minute() -> None:
    repeats = Repeats(most=3)
    assert [repeats.admits("refused", f"10.0.{n // 256}.{n % 256}", 1.0) for n in range(5000)].count(
        True
    ) == 3
    assert repeats.due(61.0) == [Repeat("refused", OTHERS, 4997)]
    assert repeats.admits("refused", "10.9.9.9", 61.0), "the places are free again"


def test_a_clock_that_is_set_back_ends_the_minute() -> None:
    repeats = Repeats()
    assert repeats.admits("refused", "", 1000.0)
    assert not repeats.admits("refused", "", 1001.0)
    assert repeats.due(10.0) == [Repeat("refused", "", 1)]
    assert str(Repeat("refused", "", 1)) == "refused: 1 more in the last minute"
