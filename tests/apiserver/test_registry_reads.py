import asyncio
import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgehive.kube.status import ApiStatus
from edgehive.store.revisions import Limits


async def fill(cluster, count: int = 7) -> None:
    for i in range(count):
        await cluster.create("configmaps", {"metadata": {"name": f"c{i}", "labels": {"odd": str(i % 2)}}})


def error_of(work) -> ApiStatus:
    with pytest.raises(ApiStatus) as caught:
        work()
    return caught.value


async def test_pages_show_one_moment(cluster):
    await fill(cluster)
    page = cluster.page("configmaps", limit=3)
    assert page.remaining == 5
    await cluster.delete("configmaps", "c4")
    await cluster.create("configmaps", {"metadata": {"name": "c3b"}})
    seen = [json.loads(i)["metadata"]["name"] for i in page.items]
    first = page.resource_version
    while page.continue_token:
        page = cluster.page("configmaps", limit=3, continue_token=page.continue_token)
        assert page.resource_version == first
        seen += [json.loads(i)["metadata"]["name"] for i in page.items]
    assert seen == [*(f"c{i}" for i in range(7)), "kube-root-ca.crt"]


async def test_a_selected_page_does_not_count_the_rest(cluster):
    await fill(cluster)
    page = cluster.page("configmaps", limit=2, labels="odd=1")
    assert page.remaining is None
    assert page.continue_token
    page = cluster.page("configmaps", limit=2, labels="odd=1", continue_token=page.continue_token)
    assert [json.loads(i)["metadata"]["name"] for i in page.items] == ["c5"]
    assert not page.continue_token


async def test_an_old_continue_token_has_expired(new_cluster):
    cluster = new_cluster(limits=Limits(window_events=4))
    await cluster.storage.open()
    await cluster.create("namespaces", {"metadata": {"name": "default"}})
    await fill(cluster, 4)
    token = cluster.page("configmaps", limit=2).continue_token
    for i in range(20):
        await cluster.patch("configmaps", "c0", {"data": {"i": str(i)}})
    assert error_of(lambda: cluster.page("configmaps", continue_token=token)).code == 410
    await cluster.storage.close()


async def test_what_resource_version_means_for_a_list(cluster):
    await fill(cluster, 2)
    then = cluster.storage.revision
    await fill_more(cluster)
    assert cluster.names("configmaps", resource_version=str(then), match="Exact") == [
        "c0",
        "c1",
        "kube-root-ca.crt",
    ]
    assert "d" in cluster.names("configmaps", resource_version=str(then))
    assert "d" in cluster.names("configmaps", resource_version="0")
    exact = cluster.page("configmaps", resource_version=str(then), match="Exact")
    assert exact.resource_version == str(then)
    future = error_of(lambda: cluster.page("configmaps", resource_version="999999"))
    assert (future.code, future.details["causes"][0]["reason"]) == (504, "ResourceVersionTooLarge")


async def fill_more(cluster) -> None:
    await cluster.create("configmaps", {"metadata": {"name": "d"}})


@pytest.mark.parametrize(
    ("selection", "code"),
    [
        ({"match": "Exact"}, 422),
        ({"match": "Exact", "resource_version": "0"}, 422),
        ({"match": "Nonsense", "resource_version": "1"}, 422),
        ({"resource_version": "abc"}, 400),
        ({"continue_token": "abc"}, 400),
        ({"fields": "spec.color=red"}, 400),
        ({"limit": -1}, 400),
    ],
)
async def test_bad_selections(cluster, selection, code):
    assert error_of(lambda: cluster.page("configmaps", **selection)).code == code


async def test_field_selectors(cluster, pod):
    await cluster.create("pods", pod("a", nodeName="n1"))
    await cluster.create("pods", pod("b"))
    await cluster.patch("pods/status", "b", {"status": {"phase": "Running"}})
    assert cluster.names("pods", fields="spec.nodeName=n1") == ["a"]
    assert cluster.names("pods", fields="spec.nodeName=") == ["b"]
    assert cluster.names("pods", fields="status.phase!=Running") == ["a"]
    assert cluster.names("pods", fields="metadata.name=b") == ["b"]
    assert cluster.names("pods", fields="metadata.name=b,spec.nodeName=n1") == []
    assert cluster.names("pods", namespace="", fields="metadata.name=b") == ["b"]


async def test_a_namespace_is_not_its_prefix(cluster):
    await cluster.create("namespaces", {"metadata": {"name": "default-2"}})
    await cluster.create("configmaps", {"metadata": {"name": "x"}}, namespace="default-2")
    assert cluster.names("configmaps") == ["kube-root-ca.crt"]
    assert "x" in cluster.names("configmaps", namespace="")


# -- watch


async def test_a_watch_resumes_after_a_version(cluster):
    await fill(cluster, 1)
    rv = str(cluster.storage.revision)
    await cluster.patch("configmaps", "c0", {"data": {"a": "1"}})
    await cluster.delete("configmaps", "c0")
    lines = await cluster.watched("configmaps", rv)
    assert [kind for kind, _ in lines] == ["MODIFIED", "DELETED"]
    assert lines[1][1]["metadata"]["resourceVersion"] == str(cluster.storage.revision)
    assert lines[1][1]["data"] == {"a": "1"}


async def test_a_watch_without_version_begins_with_what_there_is(cluster):
    await fill(cluster, 1)
    for rv in ("", "0"):
        lines = await cluster.watched("configmaps", rv)
        assert [(k, o["metadata"]["name"]) for k, o in lines] == [
            ("ADDED", "c0"),
            ("ADDED", "kube-root-ca.crt"),
        ]


async def test_a_streaming_list_ends_with_a_marked_bookmark(cluster):
    await fill(cluster, 1)
    lines = await cluster.watched("configmaps", "", match="NotOlderThan", bookmarks=True, initial=True)
    assert [k for k, _ in lines] == ["ADDED", "ADDED", "BOOKMARK"]
    meta = lines[-1][1]["metadata"]
    assert meta["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert meta["resourceVersion"] == str(cluster.storage.revision)


async def test_the_end_of_a_watch_is_a_bookmark(cluster):
    rv = str(cluster.storage.revision)
    await cluster.create("secrets", {"metadata": {"name": "s"}})
    lines = await cluster.watched("configmaps", rv, bookmarks=True)
    assert [(k, o["metadata"]["resourceVersion"]) for k, o in lines] == [
        ("BOOKMARK", str(cluster.storage.revision))
    ]
    assert await cluster.watched("configmaps", rv) == []


@pytest.mark.parametrize(
    "options",
    [
        {"initial": True, "bookmarks": True},
        {"initial": True, "match": "NotOlderThan"},
        {"match": "NotOlderThan", "rv": "5"},
        {"rv": "x"},
        {"fields": "spec.x=1"},
    ],
)
async def test_bad_watches_are_refused_before_they_begin(cluster, options):
    with pytest.raises(ApiStatus) as caught:
        await cluster.watched("configmaps", options.pop("rv", ""), **options)
    assert caught.value.code in {400, 422}


async def test_versions_too_old_and_unknown_are_410(new_cluster):
    cluster = new_cluster(limits=Limits(window_events=4))
    await cluster.storage.open()
    await cluster.create("namespaces", {"metadata": {"name": "default"}})
    await fill(cluster, 1)
    for i in range(20):
        await cluster.patch("configmaps", "c0", {"data": {"i": str(i)}})
    for rv in ("2", "99999"):
        with pytest.raises(ApiStatus) as caught:
            await cluster.watched("configmaps", rv)
        assert (caught.value.code, caught.value.reason) == (410, "Expired")
    await cluster.storage.close()


async def test_a_watcher_that_falls_behind_gets_410_not_a_gap(new_cluster):
    cluster = new_cluster(limits=Limits(window_events=4))
    await cluster.storage.open()
    await cluster.create("namespaces", {"metadata": {"name": "default"}})
    await fill(cluster, 1)
    stream = cluster.watch("configmaps", str(cluster.storage.revision), timeout=5)
    await cluster.patch("configmaps", "c0", {"data": {"i": "first"}})
    assert (await anext(stream))[1]["data"] == {"i": "first"}
    for i in range(20):
        await cluster.patch("configmaps", "c0", {"data": {"i": str(i)}})
    with pytest.raises(ApiStatus) as caught:
        async for _ in stream:
            pass
    assert caught.value.code == 410
    await cluster.storage.close()


async def test_a_waiting_watch_is_woken(cluster):
    stream = cluster.watch("configmaps", str(cluster.storage.revision), timeout=5)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(anext(stream))
        await asyncio.sleep(0)
        await cluster.create("configmaps", {"metadata": {"name": "c"}})
        kind, obj = await waiting
    assert (kind, obj["metadata"]["name"]) == ("ADDED", "c")
    await stream.aclose()
    assert cluster.registry.watcher.active == 0


async def test_leaving_a_selection_looks_like_a_deletion(cluster, pod):
    rv = str(cluster.storage.revision)
    await cluster.create("pods", pod(labels={"app": "a"}))
    await cluster.patch("pods", "p", {"metadata": {"labels": {"app": "b"}}})
    await cluster.patch("pods", "p", {"metadata": {"labels": {"x": "y"}}})
    await cluster.patch("pods", "p", {"metadata": {"labels": {"app": "a"}}})
    lines = await cluster.watched("pods", rv, labels="app=a")
    assert [k for k, _ in lines] == ["ADDED", "DELETED", "ADDED"]
    assert lines[1][1]["metadata"]["labels"]["app"] == "a"
    assert int(lines[1][1]["metadata"]["resourceVersion"]) > int(lines[0][1]["metadata"]["resourceVersion"])


operations = st.lists(
    st.tuples(
        st.sampled_from(["create", "label", "data", "delete"]),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["x", "y"]),
    ),
    max_size=25,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=operations, start=st.integers(0, 25), selector=st.sampled_from(["", "l=x", "l!=x"]))
def test_a_list_and_the_watch_behind_it_fold_to_the_next_list(new_cluster, operations, start, selector):
    async def run() -> None:
        cluster = new_cluster()
        await cluster.storage.open()
        await cluster.create("namespaces", {"metadata": {"name": "default"}})

        async def step(kind: str, name: str, value: str) -> None:
            with suppress(ApiStatus):  # 404 and 409: the model is told by what the server did
                if kind == "create":
                    await cluster.create("configmaps", {"metadata": {"name": name, "labels": {"l": value}}})
                elif kind == "label":
                    await cluster.patch("configmaps", name, {"metadata": {"labels": {"l": value}}})
                elif kind == "data":
                    await cluster.patch("configmaps", name, {"data": {"d": str(cluster.storage.revision)}})
                else:
                    await cluster.delete("configmaps", name)

        for operation in operations[:start]:
            await step(*operation)
        page = cluster.page("configmaps", labels=selector)
        state = {json.loads(i)["metadata"]["name"]: json.loads(i) for i in page.items}
        for operation in operations[start:]:
            await step(*operation)
        last = int(page.resource_version)
        for kind, obj in await cluster.watched("configmaps", page.resource_version, labels=selector):
            name = obj["metadata"]["name"]
            assert int(obj["metadata"]["resourceVersion"]) > last
            last = int(obj["metadata"]["resourceVersion"])
            assert (name in state) == (kind != "ADDED")
            if kind == "DELETED":
                del state[name]
            else:
                state[name] = obj
        now = cluster.page("configmaps", labels=selector)
        assert state == {json.loads(i)["metadata"]["name"]: json.loads(i) for i in now.items}
        await cluster.storage.close()

    asyncio.run(run())
