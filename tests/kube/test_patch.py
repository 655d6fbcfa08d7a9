import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.kube.builtin import BUILTIN
from edgehive.kube.patch import json_patch, make_merge_patch, merge_patch, strategic_merge_patch
from edgehive.kube.status import ApiStatus

SCHEMAS = {info.kind: info.schema for info in BUILTIN}
_scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab/~", max_size=3)
_json = st.recursive(
    _scalars,
    lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text("ab/~", max_size=3), c, max_size=3),
    max_leaves=10,
)


def drop_nulls(value):
    return {k: drop_nulls(v) for k, v in value.items() if v is not None} if isinstance(value, dict) else value


# RFC 6902, appendix A
@pytest.mark.parametrize(
    ("doc", "ops", "result"),
    [
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"foo": "bar", "baz": "qux"}),
        (
            {"foo": ["bar", "baz"]},
            [{"op": "add", "path": "/foo/1", "value": "qux"}],
            {"foo": ["bar", "qux", "baz"]},
        ),
        ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
        ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
        ({"baz": "qux"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo"}),
        (
            {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
            [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
        ),
        (
            {"foo": ["all", "grass", "cows", "eat"]},
            [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
            {"foo": ["all", "cows", "eat", "grass"]},
        ),
        ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
        ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["abc"]}], {"foo": ["bar", ["abc"]]}),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
    ],
)
def test_json_patch(doc, ops, result):
    before = copy.deepcopy(doc)
    assert json_patch(doc, ops) == result
    assert doc == before


@pytest.mark.parametrize(
    ("doc", "ops", "code"),
    [
        ({"baz": "qux"}, [{"op": "test", "path": "/baz", "value": "bar"}], 422),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": True}], 422),
        ({"foo": "bar"}, [{"op": "add", "path": "/baz/bat", "value": "qux"}], 422),
        ({"foo": []}, [{"op": "remove", "path": "/foo/0"}], 422),
        ({"foo": [1]}, [{"op": "replace", "path": "/foo/01", "value": 2}], 422),
        ({"foo": [1]}, [{"op": "add", "path": "/foo/3", "value": 2}], 422),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a", "path": "/a/b"}], 422),
        ({}, [{"op": "replace", "path": "/x", "value": 1}], 422),
        ({}, [{"op": "jump", "path": "/x"}], 400),
        ({}, [{"op": "add", "path": "x", "value": 1}], 400),
        ({}, [{"op": "add", "path": "/x"}], 400),
        ({}, {"op": "add"}, 400),
        ({}, ["x"], 400),
        ({}, [{"op": "add", "path": "/x", "value": 1}] * 10001, 413),
    ],
)
def test_json_patches_that_do_not_fit(doc, ops, code):
    with pytest.raises(ApiStatus) as caught:
        json_patch(doc, ops)
    assert caught.value.code == code


def test_copies_of_copies_fill_no_memory():
    ops = [{"op": "copy", "from": "/a", "path": f"/a/{i}"} for i in range(64)]
    with pytest.raises(ApiStatus) as caught:
        json_patch({"a": {"x": "y"}}, ops)
    assert caught.value.code == 413
    assert len(json_patch({"a": {"x": "y"}}, ops[:16])["a"]) == 17


def test_what_is_nested_by_moves_is_refused_once_it_is_too_deep_to_follow():
    ops = [{"op": "add", "path": "/x0", "value": {}}]
    for step in range(4_000):
        ops += [{"op": "add", "path": f"/x{step + 1}", "value": {}}]
        ops += [{"op": "move", "from": f"/x{step}", "path": f"/x{step + 1}/a"}]
    with pytest.raises(ApiStatus) as caught:
        json_patch({}, [*ops, {"op": "copy", "from": "/x4000", "path": "/y"}])
    assert caught.value.code == 400


@settings(max_examples=60, deadline=None)
@given(_json, _json)
def test_merge_patch_follows_the_algorithm_of_the_rfc(target, patch):
    def rfc7386(target, patch):
        if isinstance(patch, dict):
            target = dict(target) if isinstance(target, dict) else {}
            for name, value in patch.items():
                if value is None:
                    target.pop(name, None)
                else:
                    target[name] = rfc7386(target.get(name), value)
            return target
        return patch

    before = copy.deepcopy((target, patch))
    assert merge_patch(target, patch) == rfc7386(target, patch)
    assert (target, patch) == before


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text("ab"), _json), st.dictionaries(st.text("ab"), _json))
def test_a_made_merge_patch_leads_to_the_wanted_object(old, new):
    old, new = drop_nulls(old), drop_nulls(new)
    assert merge_patch(old, make_merge_patch(old, new)) == new
    assert make_merge_patch(new, new) == {}


def pod(*containers, **spec):
    return {"spec": {"containers": [*containers], **spec}}


def smp(doc, patch, kind="Pod"):
    before = copy.deepcopy((doc, patch))
    result = strategic_merge_patch(doc, patch, SCHEMAS[kind])
    assert (doc, patch) == before
    return result


A, B, C = ({"name": n, "image": n} for n in "abc")


def test_keyed_lists_merge_by_key():
    assert smp(pod(A, B), pod({"name": "b", "image": "new"}, C)) == pod(A, {"name": "b", "image": "new"}, C)


def test_directive_delete_takes_an_item_out():
    assert smp(pod(A, B), pod({"name": "a", "$patch": "delete"})) == pod(B)


def test_directive_replace_of_a_list():
    assert smp(pod(A, B), pod({"$patch": "replace"}, C)) == pod(C)


def test_directive_replace_and_delete_of_a_map():
    doc = {"metadata": {"labels": {"x": "1", "y": "2"}}}
    assert smp(doc, {"metadata": {"labels": {"$patch": "replace", "z": "3"}}}) == {
        "metadata": {"labels": {"z": "3"}}
    }
    assert smp(doc, {"metadata": {"labels": {"$patch": "delete"}}}) == {"metadata": {"labels": {}}}


def test_lists_without_merge_strategy_are_replaced():
    doc = pod({"name": "a", "command": ["x", "y"]}, tolerations=[{"key": "k"}])
    assert smp(doc, pod({"name": "a", "command": ["z"]}))["spec"]["containers"] == [
        {"name": "a", "command": ["z"]}
    ]
    assert smp(doc, {"spec": {"tolerations": [{"key": "n"}]}})["spec"]["tolerations"] == [{"key": "n"}]


def test_set_element_order_sorts_and_keeps_what_it_does_not_name():
    order = [{"name": "c"}, {"name": "a"}]
    patch = {"spec": {"$setElementOrder/containers": order, "containers": [C]}}
    assert [c["name"] for c in smp(pod(A, B), patch)["spec"]["containers"]] == ["b", "c", "a"]
    only_order = {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}
    assert smp(pod(A, B), only_order) == pod(B, A)


def test_primitive_lists_with_merge_strategy():
    doc = {"metadata": {"finalizers": ["a", "b", "c"]}}
    patch = {
        "metadata": {
            "$deleteFromPrimitiveList/finalizers": ["b"],
            "$setElementOrder/finalizers": ["d", "a"],
            "finalizers": ["d"],
        }
    }
    assert smp(doc, patch) == {"metadata": {"finalizers": ["c", "d", "a"]}}


def test_retain_keys_of_volumes_and_strategy():
    doc = {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}
    patch = {
        "spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}
    }
    assert smp(doc, patch) == {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}}
    deployment = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    recreate = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert smp(deployment, recreate, "Deployment") == {"spec": {"strategy": {"type": "Recreate"}}}


def test_a_status_patch_as_node_agents_send_it():
    old = {"status": {"conditions": [{"type": "Ready", "status": "False"}], "podIPs": [{"ip": "10.0.0.1"}]}}
    patch = {
        "metadata": {"uid": "u"},
        "status": {
            "$setElementOrder/conditions": [{"type": "Initialized"}, {"type": "Ready"}],
            "$setElementOrder/podIPs": [{"ip": "10.0.0.2"}],
            "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
            "podIPs": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.1", "$patch": "delete"}],
        },
    }
    assert smp(old, patch) == {
        "metadata": {"uid": "u"},
        "status": {
            "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
            "podIPs": [{"ip": "10.0.0.2"}],
        },
    }


def test_null_deletes_and_is_never_kept():
    assert smp({"metadata": {"labels": {"x": "1"}}}, {"metadata": {"labels": {"x": None, "y": None}}}) == {
        "metadata": {"labels": {}}
    }
    assert smp({}, {"metadata": {"labels": {"x": None}}}) == {"metadata": {"labels": {}}}


@pytest.mark.parametrize(
    "patch",
    [
        pod({"image": "no key"}),
        pod({"name": "a", "$patch": "explode"}),
        {"$patch": "explode"},
        {"spec": {"$setElementOrder/containers": "a"}},
        {"spec": {"strategy": 1, "$retainKeys": ["other"]}},
        pod("x"),
    ],
)
def test_malformed_strategic_patches_are_refused(patch):
    with pytest.raises(ApiStatus) as caught:
        smp(pod(A), patch)
    assert caught.value.code == 400


_containers = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("abcdef")}, optional={"image": st.sampled_from("xyz")}),
    max_size=5,
    unique_by=lambda c: c["name"],
)


@settings(max_examples=60, deadline=None)
@given(_containers, _containers)
def test_merging_keyed_lists_twice_changes_nothing_more(old, new):
    once = smp(pod(*old), pod(*copy.deepcopy(new)))
    assert smp(once, pod(*copy.deepcopy(new))) == once
    assert {c["name"] for c in once["spec"]["containers"]} == {c["name"] for c in old + new}


@settings(max_examples=60, deadline=None)
@given(_containers, _containers)
def test_a_patch_as_kubectl_computes_it_gives_the_wanted_list(old, new):
    names = {c["name"] for c in new}
    gone = [{"name": c["name"], "$patch": "delete"} for c in old if c["name"] not in names]
    replaced = [{**c, "$patch": "merge"} for c in copy.deepcopy(new)]
    had = {c["name"]: c for c in old}
    for c in replaced:
        if "image" in had.get(c["name"], {}) and "image" not in c:
            c["image"] = None
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": c["name"]} for c in new],
            "containers": gone + replaced,
        }
    }
    assert smp(pod(*old), patch)["spec"]["containers"] == new
