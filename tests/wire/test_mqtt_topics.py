"""Topic filters: the standard's own examples, and the tree against the plain definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.wire.mqtt_topics import MAX_LEVELS, TopicTree, is_filter, is_topic, matches

YES = [
    ("sport/tennis/player1/#", "sport/tennis/player1"),
    ("sport/tennis/player1/#", "sport/tennis/player1/ranking"),
    ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon"),
    ("sport/#", "sport"),
    ("#", "a/b"),
    ("sport/tennis/+", "sport/tennis/player1"),
    ("sport/+", "sport/"),
    ("+", "finance"),
    ("+/+", "/finance"),
    ("/+", "/finance"),
    ("$SYS/#", "$SYS/a"),
    ("$SYS/monitor/+", "$SYS/monitor/Clients"),
    ("$hw/events/device/+/+/twin/+", "$hw/events/device/default/d1/twin/update"),
    ("+/user/#", "app/user/a/b"),
]
NO = [
    ("sport/tennis/+", "sport/tennis/player1/ranking"),
    ("sport/+", "sport"),
    ("+", "/finance"),
    ("#", "$SYS/a"),
    ("+/monitor/Clients", "$SYS/monitor/Clients"),
    ("+/user/#", "$hw/user/a"),
    ("$hw/events/device/+/+/twin/+", "$hw/events/device/default/d1/twin/update/result"),
    ("a/b", "a/b/"),
    ("a", "A"),
]


@pytest.mark.parametrize(("name", "topic", "met"), [(*p, True) for p in YES] + [(*p, False) for p in NO])
def test_matching_is_that_of_the_standard(name: str, topic: str, met: bool) -> None:
    tree: TopicTree[str, int] = TopicTree()
    tree.put(name, "k", 1)
    assert matches(name, topic) is met
    assert tree.match(topic) == ([("k", 1)] if met else [])


@pytest.mark.parametrize("name", ["a", "/", "a//b", "#", "+", "a/+/b", "+/#", "$share", " "])
def test_filters(name: str) -> None:
    assert is_filter(name)


@pytest.mark.parametrize(
    "name", ["", "a#", "#/a", "a/#/b", "a+", "+a/b", "a/b+", "##", "\0", "\ud800", "x" * 65_536]
)
def test_no_filters(name: str) -> None:
    assert not is_filter(name)


def test_topics_have_no_wildcards_and_an_end() -> None:
    assert is_topic("a/b")
    assert is_topic("/" * (MAX_LEVELS - 1))
    assert not any(map(is_topic, ["", "+", "a/#", "a\0", "/" * MAX_LEVELS]))


levels = st.sampled_from(["", "a", "b", "$x", "+"])
filters = st.builds(
    lambda parts, rest: "/".join([*parts, *rest]),
    st.lists(levels, min_size=1, max_size=4),
    st.sampled_from([[], ["#"]]),
)
topics = st.lists(st.sampled_from(["", "a", "b", "$x"]), min_size=1, max_size=5).map("/".join).filter(bool)


@given(
    st.lists(st.tuples(st.booleans(), filters.filter(bool), st.integers(0, 2))), st.lists(topics, max_size=5)
)
def test_the_tree_is_the_definition(changes: list[tuple[bool, str, int]], asked: list[str]) -> None:
    tree: TopicTree[int, str] = TopicTree()
    plain: dict[tuple[str, int], str] = {}
    for add, name, key in changes:
        if add:
            tree.put(name, key, name)
            plain[name, key] = name
        else:
            assert tree.remove(name, key) == (plain.pop((name, key), None) is not None)
    for topic in asked:
        wanted = sorted((key, name) for name, key in plain if matches(name, topic))
        assert sorted(tree.match(topic)) == wanted
    for name, key in list(plain):
        tree.remove(name, key)
    assert tree.nodes == 0
