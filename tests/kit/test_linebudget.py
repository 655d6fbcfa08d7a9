from hypothesis import given
from hypothesis import strategies as st

from edgehive.kit.linebudget import LineBudget


@given(st.lists(st.floats(0, 50), max_size=300), st.integers(1, 5))
def test_no_period_has_more_lines_and_none_is_lost_from_the_count(gaps: list[float], lines: int) -> None:
    budget, now = LineBudget(lines=lines, period=60.0), 0.0
    said: list[float] = []
    hidden = 0
    for gap in gaps:
        now += gap
        hidden += budget.hidden(now)
        if budget.admits():
            said.append(now)
    hidden += budget.hidden(now + 60.0)
    assert len(said) + hidden == len(gaps)
    # Periods begin with their first line, so that two of them may touch.
    assert all(sum(at <= other < at + 60.0 for other in said) <= 2 * lines for at in said)


def test_the_first_lines_pass_and_the_rest_is_told_with_the_next_period() -> None:
    budget = LineBudget(lines=2, period=60.0)
    passed = []
    for now in (0.0, 1.0, 2.0, 3.0):
        assert budget.hidden(now) == 0
        passed.append(budget.admits())
    assert passed == [True, True, False, False]
    assert budget.hidden(60.0) == 2
    assert budget.hidden(61.0) == 0
    assert budget.admits()
