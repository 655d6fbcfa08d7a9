"""The upgrade request."""

import pytest

from edgehive.wire.endpoint import (
    DEFAULT_PROJECT,
    Hello,
    Room,
    Subject,
    check_upgrade,
    upgrade_headers,
    upgrade_path,
)
from edgehive.wire.refusal import Refused

SUBJECT = Subject(("system:nodes",), ("system:node:edge-1",))
ROOM = Room(0, 500)
HEADERS = {key.lower(): value for key, value in upgrade_headers(DEFAULT_PROJECT, "edge-1").items()}
PATH = upgrade_path(DEFAULT_PROJECT, "edge-1")


def refused(
    path: str = PATH,
    headers: dict[str, str] | None = None,
    subject: Subject | None = SUBJECT,
    room: Room = ROOM,
    **changed: str,
) -> Refused:
    with pytest.raises(Refused) as caught:
        check_upgrade(path=path, headers={**(headers or HEADERS), **changed}, subject=subject, room=room)
    return caught.value


def test_what_the_original_sends_is_accepted() -> None:
    assert PATH == "/e632aba927ea4ac2b575ec1603d56f10/edge-1/events"
    hello = check_upgrade(path=PATH, headers=HEADERS, subject=SUBJECT, room=ROOM)
    assert hello == Hello("edge-1", DEFAULT_PROJECT)


@pytest.mark.parametrize(
    "path", ["/", "", "/a/b", "/a/edge-1/events/more", "/debug/pprof", "a/edge-1/events"]
)
def test_other_paths_are_not_found(path: str) -> None:
    assert refused(path).status == 404


def test_names_must_agree() -> None:
    assert refused(node_id="edge-2").status == 400
    assert refused(upgrade_path("p", "edge-2")).status == 400
    assert refused(upgrade_path("p", "edge-2"), node_id="edge-2").status == 403
    assert refused(subject=Subject(("system:masters",), ("system:node:edge-1",))).status == 403
    assert refused(subject=None).status == 401


@pytest.mark.parametrize("name", ["", "Edge", "a/b", "-x", "x" * 300, "é"])
def test_names_must_be_names(name: str) -> None:
    assert refused(node_id=name).status == 400


def test_the_use_must_be_messages() -> None:
    assert refused(connectionuse="str").status == 400
    assert refused(connectionuse="").status == 400
    assert refused(project_id="x" * 300).status == 400
    assert refused(project_id="a\nb").status == 400


def test_a_full_hub() -> None:
    assert refused(room=Room(500, 500)).status == 503
    assert check_upgrade(path=PATH, headers=HEADERS, subject=SUBJECT, room=Room(10_000, 0))
