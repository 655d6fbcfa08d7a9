import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.kube.apply import ANCIENT, MAX_UPDATERS, server_side_apply, track_update
from edgehive.kube.apply_fields import compare, decode_fields, encode_fields, field_set, merge
from edgehive.kube.builtin import BUILTIN
from edgehive.kube.status import ApiStatus

SCHEMAS = {info.kind: info.schema for info in BUILTIN}
T0, T1 = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def deployment(replicas=None, image="busybox", containers=(), labels=None):
    spec = {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": image}, *containers]},
        },
    }
    if replicas is not None:
        spec["replicas"] = replicas
    meta = {"name": "x", "namespace": "n"} | ({"labels": labels} if labels else {})
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def apply(live, obj, manager="kubectl", *, force=False, now=T0, kind="Deployment", **more):
    schema = SCHEMAS[kind]
    result = server_side_apply(
        live, obj, manager=manager, force=force, schema=schema, now=now, api_version=obj["apiVersion"], **more
    )
    schema.apply_defaults(result)
    return result


def update(live, new, manager="editor", *, now=T1, kind="Deployment", **more):
    new = copy.deepcopy(new)
    track_update(live, new, manager=manager, now=now, schema=SCHEMAS[kind], api_version="apps/v1", **more)
    return new


def owners(obj):
    return {
        (e["manager"], e["operation"], e.get("subresource", "")): e["fieldsV1"]
        for e in obj["metadata"].get("managedFields", ())
    }


def test_first_apply_creates_and_owns_what_was_applied_only():
    obj = apply(None, deployment(2, labels={"l": "1"}))
    assert obj["spec"]["strategy"]["type"] == "RollingUpdate"
    assert owners(obj)[("kubectl", "Apply", "")] == {
        "f:metadata": {"f:labels": {"f:l": {}}},
        "f:spec": {
            "f:replicas": {},
            "f:selector": {},
            "f:template": {
                "f:metadata": {"f:labels": {"f:a": {}}},
                "f:spec": {"f:containers": {'k:{"name":"c"}': {".": {}, "f:image": {}, "f:name": {}}}},
            },
        },
    }


def test_applying_the_same_again_changes_nothing():
    live = apply(None, deployment(2))
    assert apply(live, deployment(2), now=T1) == live


def test_a_field_no_longer_applied_is_removed_and_a_shared_one_stays():
    live = apply(None, deployment(2, labels={"one": "1", "two": "2"}))
    live = apply(live, deployment(2, labels={"one": "1"}), manager="other")
    live = apply(live, deployment())
    assert live["spec"]["replicas"] == 2
    assert live["metadata"]["labels"] == {"one": "1"}
    live = apply(live, deployment(), manager="other")
    assert "labels" not in live["metadata"]
    assert live["spec"]["replicas"] == 1


def test_a_container_no_longer_applied_goes_with_its_defaults():
    live = apply(None, deployment(containers=[{"name": "d", "image": "z"}]))
    live = apply(live, deployment())
    assert [c["name"] for c in live["spec"]["template"]["spec"]["containers"]] == ["c"]


def test_conflict_names_field_and_manager():
    live = apply(None, deployment(2))
    new = copy.deepcopy(live)
    new["spec"]["replicas"] = 5
    live = update(live, new, manager="scaler", subresource="scale")
    assert owners(live)[("scaler", "Update", "scale")] == {"f:spec": {"f:replicas": {}}}
    with pytest.raises(ApiStatus) as caught:
        apply(live, deployment(2))
    status = caught.value
    assert (status.code, status.reason) == (409, "Conflict")
    assert status.message == (
        'Apply failed with 1 conflict: conflict with "scaler" with subresource "scale" using apps/v1: .spec.replicas'
    )
    assert status.details["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "scaler" with subresource "scale" using apps/v1',
            "field": ".spec.replicas",
        }
    ]
    forced = apply(live, deployment(2), force=True)
    assert forced["spec"]["replicas"] == 2
    assert ("scaler", "Update", "scale") not in owners(forced)
    assert apply(live, deployment(5)).get("spec")["replicas"] == 5
    assert apply(live, deployment())["spec"]["replicas"] == 5


def test_several_conflicts_are_listed_by_manager():
    live = apply(None, deployment(2, image="one"), manager="a")
    with pytest.raises(ApiStatus) as caught:
        apply(live, deployment(3, image="two"), manager="b")
    assert caught.value.message == (
        'Apply failed with 2 conflicts: conflicts with "a":\n- .spec.replicas\n'
        '- .spec.template.spec.containers[name="c"].image'
    )


def test_equal_values_are_shared_without_conflict():
    live = apply(apply(None, deployment(2), manager="a"), deployment(2), manager="b")
    fields = owners(live)
    assert fields[("a", "Apply", "")] == fields[("b", "Apply", "")]


def test_moving_from_client_side_to_server_side_apply():
    import json

    applied = deployment(2)
    body = copy.deepcopy(applied)
    body["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": json.dumps(applied)
    }
    SCHEMAS["Deployment"].apply_defaults(body)
    live = update(None, body, manager="kubectl-client-side-apply")
    after = apply(live, deployment(3), now=T1)
    assert after["spec"]["replicas"] == 3
    note = json.loads(after["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"])
    assert note["spec"]["replicas"] == 3
    with pytest.raises(ApiStatus):
        apply(live, deployment(3), manager="not-kubectl")
    scaled = copy.deepcopy(live)
    scaled["spec"]["replicas"] = 7
    with pytest.raises(ApiStatus, match=r'conflict with "scaler" using apps/v1: \.spec\.replicas$'):
        apply(update(live, scaled, manager="scaler"), deployment(3))


def test_ordinary_writes_own_what_they_change():
    created = deployment(1)
    SCHEMAS["Deployment"].apply_defaults(created)
    live = update(None, created, manager="creator", now=T0)
    mine = owners(live)[("creator", "Update", "")]
    assert "f:progressDeadlineSeconds" in mine["f:spec"]
    assert "f:status" not in mine
    assert "f:name" not in mine.get("f:metadata", {})
    new = copy.deepcopy(live)
    new["spec"]["replicas"] = 4
    live = update(live, new, manager="editor")
    assert owners(live)[("editor", "Update", "")] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in owners(live)[("creator", "Update", "")]["f:spec"]
    times = {e["manager"]: e["time"] for e in live["metadata"]["managedFields"]}
    assert times == {"creator": T1, "editor": T1}
    assert update(live, live, now="2030-01-01T00:00:00Z") == live


def test_status_writes_are_kept_apart_by_subresource():
    live = apply(None, deployment(1))
    new = copy.deepcopy(live)
    new["status"] = {"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]}
    live = update(live, new, manager="controller", subresource="status")
    assert owners(live)[("controller", "Update", "status")]["f:status"] == {
        "f:conditions": {
            ".": {},
            'k:{"type":"Available"}': {".": {}, "f:status": {}, "f:type": {}},
        },
        "f:replicas": {},
    } or owners(live)[("controller", "Update", "status")]["f:status"] == {
        "f:conditions": {'k:{"type":"Available"}': {".": {}, "f:status": {}, "f:type": {}}},
        "f:replicas": {},
    }


def test_clients_may_edit_or_reset_managed_fields():
    live = apply(None, deployment(1))
    for erased in ([], [{}]):
        new = copy.deepcopy(live)
        new["metadata"]["managedFields"] = erased
        assert "managedFields" not in update(live, new)["metadata"]
    new = copy.deepcopy(live)
    new["metadata"]["managedFields"] = [{"nonsense": True}]
    assert ("kubectl", "Apply", "") in owners(update(live, new))


def test_many_updaters_are_joined():
    live = deployment(1)
    for number in range(MAX_UPDATERS + 5):
        new = copy.deepcopy(live)
        new["metadata"].setdefault("annotations", {})[f"k{number}"] = "v"
        live = update(live, new, manager=f"m{number}", now=f"2026-01-01T00:00:{number:02}Z")
    names = [e["manager"] for e in live["metadata"]["managedFields"]]
    assert ANCIENT in names
    assert len(names) <= MAX_UPDATERS + 1
    assert f"m{MAX_UPDATERS + 4}" in names


@pytest.mark.parametrize(
    ("obj", "manager"),
    [
        (deployment(), ""),
        ({**deployment(), "metadata": {"name": "x", "managedFields": [{"manager": "m"}]}}, "m"),
        ({**deployment(), "metadata": "x"}, "m"),
    ],
)
def test_unusable_requests_are_refused(obj, manager):
    with pytest.raises(ApiStatus) as caught:
        apply(None, obj, manager=manager)
    assert caught.value.code == 400


_labels = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xyz"), max_size=3)
_ports = st.lists(
    st.fixed_dictionaries(
        {"containerPort": st.integers(1, 4)},
        optional={"name": st.sampled_from("pq"), "protocol": st.sampled_from(("TCP", "UDP"))},
    ),
    max_size=3,
    unique_by=lambda p: (p["containerPort"], p.get("protocol", "TCP")),
)


@st.composite
def _deployments(draw):
    obj = deployment(draw(st.none() | st.integers(0, 3)), labels=draw(_labels))
    ports = draw(_ports)
    if ports:
        obj["spec"]["template"]["spec"]["containers"][0]["ports"] = ports
    for name in draw(st.lists(st.sampled_from("def"), max_size=2, unique=True)):
        obj["spec"]["template"]["spec"]["containers"].append(
            {"name": name, "image": draw(st.sampled_from("xyz"))}
        )
    return obj


@settings(max_examples=60, deadline=None)
@given(_deployments())
def test_encoded_field_sets_can_be_read_back(obj):
    paths = field_set(SCHEMAS["Deployment"], obj)
    assert decode_fields(encode_fields(paths)) == paths


@settings(max_examples=60, deadline=None)
@given(_deployments(), _deployments())
def test_compare_tells_exactly_what_changes(old, new):
    schema = SCHEMAS["Deployment"]
    changes = compare(schema, old, new)
    before, after = field_set(schema, old, maps=True), field_set(schema, new, maps=True)
    assert changes.added == after - before
    assert changes.removed == before - after
    assert not compare(schema, old, copy.deepcopy(old))


@settings(max_examples=60, deadline=None)
@given(_deployments(), _deployments())
def test_merge_holds_everything_applied(old, new):
    schema = SCHEMAS["Deployment"]
    merged = merge(schema, old, new)
    assert merge(schema, merged, new) == merged
    changes = compare(schema, new, merged)
    assert not changes.removed
    assert not changes.modified


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), _deployments()), min_size=1, max_size=5))
def test_forced_applies_leave_the_last_ones_wishes_and_are_idempotent(steps):
    live, wishes = None, {}
    for manager, wish in steps:
        live = apply(live, wish, manager, force=True)
        wishes[manager] = wish
        assert apply(live, wish, manager, now=T1) == live
    schema = SCHEMAS["Deployment"]
    changes = compare(schema, wishes[steps[-1][0]], live)
    assert not changes.removed
    assert not changes.modified
    wanted = set().union(*(field_set(schema, w) for w in wishes.values()))
    labels = {p for p in field_set(schema, live) if p[:2] == ("f:metadata", "f:labels")}
    assert labels <= wanted
