import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.kube.refs import EVENTS, NODES, PODS
from edgehive.kube.selectors import (
    FieldSelector,
    LabelSelector,
    Requirement,
    is_label_value,
    is_qualified_name,
)
from edgehive.kube.status import ApiStatus

LABELS = {"app": "web", "tier": "front", "n": "5", "example.com/x": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        (" app = web , tier=front ", True),
        ("app!=web", False),
        ("absent!=x", True),
        ("app in (web,db)", True),
        ("app notin (web)", False),
        ("absent notin (web)", True),
        ("absent in (web)", False),
        ("app", True),
        ("!app", False),
        ("!absent", True),
        ("n>4", True),
        ("n<5", False),
        ("app>4", False),
        ("example.com/x=", True),
        ("example.com/x", True),
        ("app in (web),tier in (back,front)", True),
        ("app in ()", False),
    ],
)
def test_label_selector_text(text, matches):
    assert LabelSelector.parse(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    "text",
    [
        "a=b=c",
        "a in b",
        "a in (b",
        "=x",
        "a b",
        ",",
        "a,",
        "!",
        "a>x",
        "-a=b",
        "a=b c",
        "a in (b c)",
        "a&b=c",
        "x/y/z",
    ],
)
def test_bad_label_selectors_are_refused_with_400(text):
    with pytest.raises(ApiStatus) as caught:
        LabelSelector.parse(text)
    assert caught.value.code == 400


def test_selector_objects():
    web = {
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "tier", "operator": "In", "values": ["front"]}],
    }
    assert LabelSelector.from_object(web).matches(LABELS)
    assert not LabelSelector.from_object(web).matches({"app": "web"})
    assert LabelSelector.from_object({}).everything
    assert not LabelSelector.from_object(None).matches(LABELS)
    assert not LabelSelector.from_labels({}).matches(LABELS)
    assert str(LabelSelector.from_object(web)) == "app=web,tier=front"
    for bad in (
        {"key": "a", "operator": "Like"},
        {"key": "a", "operator": "In"},
        {"key": "a", "operator": "Exists", "values": ["x"]},
    ):
        with pytest.raises(ApiStatus):
            LabelSelector.from_object({"matchExpressions": [bad]})


_names = st.from_regex(r"[a-z]([a-z0-9.-]{0,5}[a-z0-9])?", fullmatch=True).filter(
    lambda n: n not in ("in", "notin")
)
_requirements = st.builds(
    Requirement,
    key=_names,
    op=st.sampled_from(("in", "notin")),
    values=st.frozensets(_names, min_size=1, max_size=3),
) | st.builds(Requirement, key=_names, op=st.sampled_from(("exists", "!")))


@settings(max_examples=60, deadline=None)
@given(st.lists(_requirements, max_size=4))
def test_text_form_means_the_same(requirements):
    selector = LabelSelector(tuple(requirements))
    assert LabelSelector.parse(str(selector)) == selector


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=20))
def test_any_text_is_parsed_or_refused(text):
    for parse in (LabelSelector.parse, FieldSelector.parse):
        try:
            code = 0 if parse(text) is not None else -1
        except ApiStatus as error:
            code = error.code
        assert code in (0, 400)


def test_field_selectors():
    pod = {
        "metadata": {"name": "a", "namespace": "n"},
        "spec": {"nodeName": "edge-1"},
        "status": {"phase": "Running"},
    }
    assert FieldSelector.parse("spec.nodeName=edge-1,status.phase!=Failed").matches(pod, PODS)
    assert not FieldSelector.parse("spec.nodeName!=edge-1").matches(pod, PODS)
    assert FieldSelector.parse("spec.hostNetwork=false").matches(pod, PODS)
    assert FieldSelector.parse("spec.unschedulable=false").matches({"spec": {}}, NODES)
    assert FieldSelector.parse("spec.unschedulable=true").matches({"spec": {"unschedulable": True}}, NODES)
    assert FieldSelector.parse("source=kubelet").matches({"source": {"component": "kubelet"}}, EVENTS)
    assert FieldSelector.parse(r"reason=a\,b\=c").terms == (("reason", True, "a,b=c"),)
    assert FieldSelector.parse("metadata.name=x").exact("metadata.name") == "x"
    FieldSelector.parse("involvedObject.name=x").require_supported(EVENTS)
    with pytest.raises(ApiStatus, match=r"field label not supported: spec\.foo"):
        FieldSelector.parse("spec.foo=x").require_supported(PODS)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_names, st.booleans(), st.text(max_size=6)), max_size=3))
def test_field_selector_text_form_means_the_same(terms):
    selector = FieldSelector(tuple(terms))
    assert FieldSelector.parse(str(selector)) == selector


def test_names():
    assert is_qualified_name("example.com/app")
    assert not is_qualified_name("/app")
    assert not is_qualified_name("a" * 64)
    assert is_label_value("")
    assert not is_label_value("-x")
