"""Applications in KubeEdge's own form."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.kit.errors import ProtocolError
from edgehive.kube.refs import GVR
from edgehive.kube.status import not_found
from edgehive.wire import application as apps
from edgehive.wire.application import Application, PatchInfo, ResourceKey
from edgehive.wire.classify import requires_ack
from edgehive.wire.kinds import kind_to_resource, resource_to_kind

LIST = Application(
    "/core/v1/pods/default/null", "list", "edge-1", b'{"labelSelector":"app=x"}', status=apps.PRE_APPLYING
).identified()


def stamp():
    return "id-1", 5


def test_an_application_is_written_as_the_original_writes_it():
    assert apps.encode_application(LIST) == (
        b'{"ID":"fdf2f6dd2f187c91f3cacf92b0b07c91d585ec0804596dde85fd01bc06655af6",'
        b'"Key":"/core/v1/pods/default/null","Verb":"list","Nodename":"edge-1",'
        b'"Option":"eyJsYWJlbFNlbGVjdG9yIjoiYXBwPXgifQ==","ReqBody":null,"Subresource":"","RespBody":null,'
        b'"Status":"PreApplying","Reason":"","Error":{"ErrStatus":{"metadata":{}}},'
        b'"Timestamp":"0001-01-01T00:00:00Z"}'
    )


@given(st.binary(max_size=50), st.binary(max_size=50), st.text(max_size=20))
def test_what_is_written_is_read_back(option, body, text):
    before = Application("/k", "create", text, option, body, text, response=body, reason=text).identified()
    assert apps.decode_application(apps.encode_application(before)) == before


def test_errors_travel_and_text_alone_is_understood():
    refused = apps.decode_application(apps.encode_application(LIST.rejected(not_found("pods", "x"))))
    assert (refused.failure().code, refused.failure().details["name"]) == (404, "x")
    text = "get current list error: the server could not find the requested resource"
    wire = msgspec.json.decode(apps.encode_application(LIST)) | {"Status": "Rejected", "Reason": text}
    assert apps.decode_application(msgspec.json.encode(wire)).failure().code == 404
    assert LIST.approved(b"{}").failure() is None


@pytest.mark.parametrize(
    "content", [b"[]", b'{"Option":"%%%"}', b'{"ID":3}', b"\xff", b'{"Error":"no"}', b'{"ReqBody":[1]}']
)
def test_what_is_no_application_is_said_so(content):
    with pytest.raises(ProtocolError):
        apps.decode_application(content)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (ResourceKey(GVR("", "v1", "pods"), "default", "nginx"), "/core/v1/pods/default/nginx"),
        (ResourceKey(GVR("apps", "v1", "deployments")), "/apps/v1/deployments/null/null"),
        (ResourceKey(GVR("", "v1", "nodes"), "", "edge-1"), "/core/v1/nodes/null/edge-1"),
        (ResourceKey(GVR("", "v1", "namespaces"), "", "a"), "/core/v1/namespaces/null/a"),
    ],
)
def test_keys_go_both_ways(key, text):
    assert str(key) == text
    assert apps.parse_key(text) == key


def test_short_keys_have_empty_parts_and_gvrs_look_like_go():
    assert apps.parse_key("/core/v1") == ResourceKey(GVR("", "v1", ""))
    assert ResourceKey(GVR("", "v1", "pods")).row_gvr == "/v1, Resource=pods"


@pytest.mark.parametrize(
    ("path", "through"),
    [
        ("/version", True),
        ("/api/", True),
        ("/api/v1", True),
        ("/apis/apps", True),
        ("/apis/apps/v1", True),
        ("/openapi/v3", True),
        ("/metrics", False),
        ("/api/v1/pods", False),
        ("/apis/apps/v1/deployments", False),
        ("", False),
    ],
)
def test_what_passes_through(path, through):
    assert apps.is_pass_through(path) is through
    assert not apps.is_pass_through(path, "create")


def test_a_patch_is_its_option():
    info = PatchInfo("a", "application/merge-patch+json", b'{"x":1}', {"fieldManager": "m"}, ("status",))
    raw = msgspec.json.decode(info.encode())
    assert raw["Data"] == "eyJ4IjoxfQ=="
    assert list(raw) == ["Name", "PatchType", "Data", "Options", "Subresources"]
    assert PatchInfo.parse(info.encode()) == info
    with pytest.raises(ProtocolError):
        PatchInfo.parse(b'{"Data":"%"}')


def test_the_messages_of_both_sides():
    request = apps.request_message(LIST, stamp=stamp)
    assert (request.source, request.group) == ("metaserver", "dynamiccontroller")
    assert (request.operation, request.resource) == ("null", "null")
    answer = apps.answer_message(request, b"{}", stamp=stamp)
    assert (answer.operation, answer.resource) == ("applicationResponse", "ignore/Application/ignore")
    assert answer.parent_id == request.id
    assert not requires_ack(answer)
    sync = apps.watch_sync_message([LIST], stamp=stamp)
    assert sync.resource == "watchapp/sync"
    assert apps.decode_applications(sync.content) == {LIST.id: LIST}
    assert apps.answer_message(sync, b"{}", stamp=stamp).resource == "watchapp/sync"
    raw = b'{"kind":"Lease","metadata":{"namespace":"a","name":"b","resourceVersion":"7"}}'
    event = apps.event_message("insert", GVR("coordination.k8s.io", "v1", "leases"), raw, stamp=stamp)
    assert (event.resource, event.resource_version) == ("a/leases/b", "7")
    assert requires_ack(event)


@pytest.mark.parametrize(
    ("resource", "kind"),
    [
        ("pods", "Pod"),
        ("configmaps", "Configmap"),
        ("networkpolicies", "Networkpolicy"),
        ("storageclasses", "Storageclass"),
        ("endpoints", "Endpoints"),
        ("leases", "Leases"),
        ("", ""),
    ],
)
def test_kinds_are_guessed_as_there(resource, kind):
    assert resource_to_kind(resource) == kind


@pytest.mark.parametrize(
    ("kind", "resource"),
    [
        ("Pod", "pods"),
        ("Ingress", "ingresses"),
        ("NetworkPolicy", "networkpolicies"),
        ("Endpoints", "endpoints"),
        ("EndpointSlice", "endpointslices"),
        ("ServiceAccountAccess", "serviceaccountaccesses"),
        ("Lease", "leases"),
        ("", ""),
    ],
)
def test_resources_are_guessed_as_there(kind, resource):
    assert kind_to_resource(kind) == resource
