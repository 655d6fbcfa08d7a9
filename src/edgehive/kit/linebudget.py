"""How many log lines of a kind are worth reading: the first of each period, then a number."""


class LineBudget:
    """Lets `lines` lines pass in `period` seconds and counts the others."""

    def __init__(self, *, lines: int = 20, period: float = 60.0) -> None:
        self._lines = lines
        self._period = period
        self._since = float("-inf")
        self._said = 0
        self._hidden = 0

    def hidden(self, now: float) -> int:
        """Lines that did not pass in a period that is over; each is told once. Ask this before `admits`."""
        if now < self._since + self._period:
            return 0
        hidden = self._hidden
        self._since, self._said, self._hidden = now, 0, 0
        return hidden

    def admits(self) -> bool:
        """Whether one more line may be written."""
        if self._said >= self._lines:
            self._hidden += 1
            return False
        self._said += 1
        return True
