"""Random ids."""

import uuid

from edgehive.aio.ids import RandomIds


def test_they_are_uuids_of_version_4_and_never_the_same() -> None:
    new_id = RandomIds()
    made = [new_id() for _ in range(3000)]
    assert len(set(made)) == len(made)
    for text in made:
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)


def test_two_makers_share_nothing() -> None:
    one, other = RandomIds(), RandomIds()
    assert not {one() for _ in range(600)} & {other() for _ in range(600)}
