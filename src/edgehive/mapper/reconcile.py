"""Desired against reported, for one property; pure.

A desired value is written when it is new, and again when the device shows another one. What somebody sets through a
device method stands until the desired value changes.
"""

from edgehive.kit.backoff import Backoff
from edgehive.mapper.model import Property
from edgehive.mapper.values import Value, ValueProblem, same


class Reconciler:
    """Decides when the desired value of a property has to be written."""

    def __init__(self, prop: Property) -> None:
        self.prop = prop
        self.problem = ""
        self._wanted: Value | None = None
        self._shown: Value | None = None
        self._read = False
        self._overridden = False
        self._not_before = 0.0
        self._backoff = Backoff(1.0, 60.0)
        self._set(prop)

    def update(self, prop: Property) -> None:
        """Take a new definition; only another desired value ends an override."""
        changed = prop.desired != self.prop.desired
        self.prop = prop
        if changed:
            self._set(prop)

    def _set(self, prop: Property) -> None:
        self.problem = ""
        self._wanted = None
        self._overridden = False
        self._not_before = 0.0
        self._backoff.reset()
        if prop.desired is None:
            return
        if not prop.writable:
            self.problem = f"{prop.name} is read-only"
            return
        try:
            self._wanted = prop.parse_wanted(prop.desired)
        except ValueProblem as exc:
            self.problem = f"the desired value of {prop.name} cannot be set: {exc}"

    def observed(self, value: Value) -> None:
        """The device shows `value`."""
        self._shown = value
        self._read = True
        if self.settled:
            self._backoff.reset()
            self._not_before = 0.0

    def overridden(self) -> None:
        """Somebody has set another value on purpose."""
        self._overridden = True

    @property
    def settled(self) -> bool:
        """Whether the device shows what is desired."""
        if self._wanted is None:
            return True
        return self._shown is not None and same(self._shown, self._wanted, self.prop.type)

    def due(self, now: float) -> Value | None:
        """What to write now; nothing before the first read, so that a restart writes nothing twice."""
        if (
            self._wanted is None
            or self._overridden
            or not self._read
            or self.settled
            or now < self._not_before
        ):
            return None
        return self._wanted

    def wrote(self, now: float) -> None:
        """The desired value has been written; a device that does not take it is not hammered."""
        self._not_before = now + self._backoff.next()
