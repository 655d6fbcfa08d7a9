"""Who asks, and how: what travels along with every request through the registry."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from edgehive.kube.fielderror import FieldError
from edgehive.kube.resources import ResourceInfo
from edgehive.kube.selectors import FieldSelector, LabelSelector


@dataclass(frozen=True, slots=True)
class User:
    """An authenticated user; `extra` as in ``TokenReview`` (names of the pod and node a token is bound to)."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, list[str]] = field(default_factory=dict)


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
LOCAL = User("system:apiserver", ("system:masters",))


@dataclass(frozen=True, slots=True)
class Clock:
    """Time and identity, so that tests can fix them."""

    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    new_id: Callable[[], str] = lambda: str(uuid.uuid4())

    def stamp(self) -> str:
        """Now, as metadata has it: RFC 3339 in whole seconds."""
        return format_time(self.now())


def format_time(when: datetime) -> str:
    """RFC 3339 in whole seconds, UTC."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: object) -> datetime | None:
    """Read an RFC 3339 time; None when it is not one."""
    if not isinstance(text, str):
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


@dataclass(slots=True)
class Call:
    """One request to the registry for one resource."""

    info: ResourceInfo
    user: User
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    manager: str = "unknown"
    dry_run: bool = False
    field_validation: str = "Warn"
    force: bool = False
    warnings: list[str] = field(default_factory=list)
    checked: list[FieldError] | None = None
    """What `fields.check_fields` found in a built-in object, so that it is not looked for twice."""

    @property
    def resource(self) -> str:
        """The plural, without the group."""
        return self.info.gvr.resource

    @property
    def group(self) -> str:
        """The API group."""
        return self.info.gvr.group


@dataclass(frozen=True, slots=True)
class Selection:
    """What a list or watch asks for."""

    namespace: str = ""
    labels: LabelSelector = field(default_factory=LabelSelector)
    fields: FieldSelector = field(default_factory=FieldSelector)
    limit: int = 0
    continue_token: str = ""
    resource_version: str = ""
    match: str = ""
    """``resourceVersionMatch``."""


def qualified(info: ResourceInfo) -> str:
    """``pods``, ``deployments.apps``: as error messages name a resource."""
    return str(info.gvr)
