"""The replica: folded watch events are the list, versions may come in any order, nothing is missed."""

import asyncio
import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.apiserver.context import Selection
from edgehive.apiserver.reads import Reader
from edgehive.apiserver.watches import Watcher, WatchRequest
from edgehive.edge.metaserver_store import WINDOW_EVENTS, Replica, View
from edgehive.edge.store import EdgeStore
from edgehive.kube.refs import CONFIGMAPS, NODES
from edgehive.kube.resources import ResourceInfo
from edgehive.kube.selectors import FieldSelector, LabelSelector
from edgehive.kube.status import ApiStatus
from edgehive.wire.application import ResourceKey

MAPS = ResourceInfo(CONFIGMAPS, "ConfigMap", True, list_kind="ConfigMapList")
NODE = ResourceInfo(NODES, "Node", False)


def config_map(name, version, namespace="default", uid="", labels=None):
    meta = {"name": name, "namespace": namespace, "uid": uid or f"u-{name}", "resourceVersion": str(version)}
    if labels:
        meta["labels"] = labels
    return msgspec.json.encode({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})


@pytest.fixture
def replica(tmp_path):
    with contextlib.closing(EdgeStore(tmp_path / "edge.db")) as store:
        yield Replica(store)


def key(name):
    return ResourceKey(CONFIGMAPS, "default", name)


def listed(replica, **selection):
    return Reader(View(replica, CONFIGMAPS)).list(MAPS, Selection("default", **selection))


def folded(lines, state):
    for kind, raw in lines:
        meta = msgspec.json.decode(raw)["metadata"]
        if kind in ("ADDED", "MODIFIED"):
            state[meta["name"]] = int(meta["resourceVersion"])
        elif kind == "DELETED":
            state.pop(meta["name"], None)
    return state


def names(found):
    metas = [msgspec.json.decode(raw)["metadata"] for raw in found.items]
    return {m["name"]: int(m["resourceVersion"]) for m in metas}


async def drain(replica, request):
    watcher = Watcher(View(replica, CONFIGMAPS), served=lambda _: True)
    return [line async for line in watcher.watch(MAPS, request)]


step = st.tuples(
    st.sampled_from(["put", "late", "remove", "replace"]), st.sampled_from("abc"), st.integers(-3, 6)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(step, max_size=25), st.lists(step, max_size=25), st.booleans())
def test_a_list_and_the_events_after_it_are_the_later_list(tmp_path_factory, before, after, selected):
    path = tmp_path_factory.mktemp("replica") / "edge.db"
    labels = LabelSelector.parse("odd=1") if selected else LabelSelector()
    with contextlib.closing(EdgeStore(path)) as store:
        replica = Replica(store)
        replica.window(CONFIGMAPS)
        clock = 10

        def play(steps):
            nonlocal clock
            for action, name, ahead in steps:
                clock += 1
                version = max(1, clock + ahead)  # the cloud's messages overtake one another
                raw = config_map(name, version, labels={"odd": str(version % 2)})
                if action in ("put", "late"):
                    replica.put(CONFIGMAPS, [raw], late=action == "late")
                elif action == "remove":
                    replica.remove(key(name), raw)
                else:
                    replica.replace(CONFIGMAPS, [raw], version, [key(n) for n in "abc" if n != name])

        play(before)
        first = listed(replica, labels=labels)
        play(after)
        request = WatchRequest(
            Selection("default", labels, resource_version=first.resource_version), timeout=0.0
        )
        if first.resource_version == "0":
            request = WatchRequest(Selection("default", labels), timeout=0.0)
        lines = asyncio.run(drain(replica, request))
        assert folded(lines, names(first)) == names(listed(replica, labels=labels))


async def test_a_watch_goes_on_from_the_last_event_that_was_seen(replica):
    replica.window(CONFIGMAPS)
    for version, name in ((5, "a"), (9, "b"), (8, "c"), (12, "d")):
        replica.put(CONFIGMAPS, [config_map(name, version)])
    seen = await drain(replica, WatchRequest(Selection("default", resource_version="9"), timeout=0.0))
    assert folded(seen, {}) == {"c": 8, "d": 12}
    seen = await drain(replica, WatchRequest(Selection("default", resource_version="8"), timeout=0.0))
    assert folded(seen, {}) == {"d": 12}


async def test_what_has_left_the_window_must_be_listed_again(replica):
    replica.window(CONFIGMAPS)
    for version in range(1, WINDOW_EVENTS + 20):
        replica.put(CONFIGMAPS, [config_map("a", version)])
    for version in ("3", "999999"):
        with pytest.raises(ApiStatus) as caught:
            await drain(replica, WatchRequest(Selection("default", resource_version=version), timeout=0.0))
        assert caught.value.code == 410


def test_a_message_that_comes_late_brings_nothing_back(replica):
    replica.window(CONFIGMAPS)
    replica.put(CONFIGMAPS, [config_map("a", 9)], late=True)
    replica.remove(key("a"), config_map("a", 11))
    for version in (7, 9, 11):
        replica.put(CONFIGMAPS, [config_map("a", version)], late=True)
    assert names(listed(replica)) == {}
    replica.put(CONFIGMAPS, [config_map("a", 12, uid="anew")], late=True)
    assert names(listed(replica)) == {"a": 12}


async def test_a_delete_that_knows_no_version_is_shown_with_the_last_one(replica):
    replica.window(CONFIGMAPS)
    replica.put(CONFIGMAPS, [config_map("a", 9)])
    bare = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "default"}}
    replica.remove(key("a"), msgspec.json.encode(bare))
    lines = await drain(replica, WatchRequest(Selection("default", resource_version="9"), timeout=0.0))
    (deleted,) = [msgspec.json.decode(raw)["metadata"] for kind, raw in lines if kind == "DELETED"]
    assert (deleted["name"], deleted["resourceVersion"]) == ("a", "9")


def test_what_has_left_one_selection_is_taken_from_the_list_of_another(replica):
    replica.window(CONFIGMAPS)
    replica.replace(CONFIGMAPS, [config_map("a", 9, labels={"x": "1"})], 9, [])
    replica.replace(CONFIGMAPS, [], 50, [key("a")])  # x=1 is listed again: it has x=2 since version 10
    replica.replace(CONFIGMAPS, [config_map("a", 10, labels={"x": "2"})], 60, [])
    assert names(listed(replica)) == {"a": 10}
    replica.remove(key("a"), config_map("a", 70))
    replica.replace(CONFIGMAPS, [config_map("a", 10)], 65, [])
    assert names(listed(replica)) == {}, "that list was made before"


def test_older_versions_and_other_incarnations_change_nothing(replica):
    replica.put(CONFIGMAPS, [config_map("a", 9)])
    replica.put(CONFIGMAPS, [config_map("a", 7)])
    replica.remove(key("a"), uid="another")
    assert names(listed(replica)) == {"a": 9}
    replica.remove(key("a"), config_map("a", 10), uid="u-a")
    assert names(listed(replica)) == {}


def test_a_list_does_not_bring_back_what_was_deleted_after_it_was_made(replica):
    replica.window(CONFIGMAPS)
    replica.put(CONFIGMAPS, [config_map("a", 5), config_map("b", 6)])
    replica.remove(key("a"), config_map("a", 20))
    replica.replace(CONFIGMAPS, [config_map("a", 5), config_map("b", 6)], 10, [])
    assert names(listed(replica)) == {"b": 6}
    replica.put(CONFIGMAPS, [config_map("c", 30)])
    replica.replace(CONFIGMAPS, [], 25, [key("b"), key("c")])
    assert names(listed(replica)) == {"c": 30}


def test_pages_show_one_moment(replica):
    replica.put(CONFIGMAPS, [config_map(f"m{i}", i + 1) for i in range(6)])
    first = listed(replica, limit=4)
    assert len(first.items) == 4
    assert first.remaining == 2
    replica.put(CONFIGMAPS, [config_map("m9", 50)])
    replica.remove(key("m5"))
    rest = listed(replica, limit=4, continue_token=first.continue_token)
    assert list(names(rest)) == ["m4", "m5"]


def test_it_is_kept_in_the_original_s_table_and_empty_lists_have_a_version(tmp_path):
    with contextlib.closing(EdgeStore(tmp_path / "edge.db")) as store:
        replica = Replica(store)
        replica.put(
            NODES, [b'{"kind":"Node","apiVersion":"v1","metadata":{"name":"n1","resourceVersion":"4"}}']
        )
        replica.replace(CONFIGMAPS, [], 77, [])
        replica.keep_scope("s", CONFIGMAPS, 77, 1.0)
        replica.keep_document("/version", b"{}")
        rows = store.query(
            "SELECT key, group_version_resource, namespace, name, resource_version FROM meta_v2"
        )
        assert ("/core/v1/nodes/null/n1", "/v1, Resource=nodes", "", "n1", 4) in rows
    with contextlib.closing(EdgeStore(tmp_path / "edge.db")) as store:
        replica = Replica(store)
        assert listed(replica).resource_version == "77"
        assert replica.document("/version") == b"{}"
        assert [k for k, _ in replica.scan(NODES)] == ["n1"]
        selection = Selection(fields=FieldSelector.parse("metadata.name=n1"))
        assert len(Reader(View(replica, NODES)).list(NODE, selection).items) == 1


def test_who_has_seen_what_little_was_here_is_told_the_rest(tmp_path):
    """An object may come by a message before there was ever a list, and be newer than all of the list."""
    with contextlib.closing(EdgeStore(tmp_path / "edge.db")) as store:
        replica = Replica(store)
        replica.put(CONFIGMAPS, [config_map("new", 41)])
        few = listed(replica)
        assert names(few) == {"new": 41}
    with contextlib.closing(EdgeStore(tmp_path / "edge.db")) as store:
        replica = Replica(store)  # edgecore was restarted, and has all before the client is back
        maps = [config_map("new", 41), config_map("old", 34), config_map("older", 7)]
        replica.replace(CONFIGMAPS, maps, 41, [])
        view = View(replica, CONFIGMAPS)
        view.check("", 41)
        told = {event.key for event in view.since("", 41)}
        assert told == {"default/old", "default/older"}
        assert [short for short, _ in view.scan("", after="default/new", at=41)] == [
            "default/old",
            "default/older",
        ]
