"""Resource strings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.kit.errors import ProtocolError
from edgehive.wire import resource as res
from edgehive.wire.resource import Resource


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("default/pod/nginx", Resource("default", "pod", "nginx")),
        ("null/node/edge-1", Resource(None, "node", "edge-1")),
        ("default/podstatus", Resource("default", "podstatus")),
        ("kube-node-lease/lease/e", Resource("kube-node-lease", "lease", "e")),
    ],
)
def test_object_resources(text: str, expected: Resource) -> None:
    assert res.parse_resource(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize("text", ["", "node", "a//b", "/a/b", "a/b/", "a/b/c/d", "x" * 5000 + "/a/b"])
def test_other_forms_are_not_objects(text: str) -> None:
    assert res.find_resource(text) is None
    with pytest.raises(ProtocolError):
        res.parse_resource(text)


@pytest.mark.parametrize(
    ("inside", "wire"),
    [
        ("node/e1/default/pod/nginx", "default/pod/nginx"),
        ("node/e1/membership", "membership"),
        ("node/e1/null", "null"),
        ("node/e1", "node/e1"),
        ("nodes/e1/x", "x"),  # the original looks at the first four letters only
        ("operations.kubeedge.io/v1alpha2/nodeupgradejob/j/node/e1",) * 2,
    ],
)
def test_the_node_is_cut_off_as_the_original_does(inside: str, wire: str) -> None:
    assert res.trim_node(inside) == wire


def test_the_target_is_the_part_after_the_first_node() -> None:
    assert res.target_node("node/e1/default/pod/x") == "e1"
    assert res.target_node("operations.kubeedge.io/v1alpha2/nodeupgradejob/j/node/e2") == "e2"
    assert res.target_node("node//node/e3") == "e3"
    assert res.target_node("default/pod/x") is None
    assert res.target_node("node") is None


def test_volumes() -> None:
    assert res.is_volume("default/volume/pvc-1")
    assert not res.is_volume("default/pod/volume")
    assert not res.is_volume("-x/volume/y")


@given(st.text(max_size=60))
def test_prefix_and_trim_are_inverse_and_nothing_crashes(text: str) -> None:
    assert res.trim_node(res.add_node("edge-1", text)) == text
    assert res.target_node(res.add_node("edge-1", text)) == "edge-1"
    found = res.find_resource(text)
    if found is not None:
        assert str(found) == text or text.startswith("null/")
    res.is_volume(text)
