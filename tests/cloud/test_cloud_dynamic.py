"""DynamicController by itself: in whose name it asks, what it refuses, what edges see differently."""

import asyncio
import json

import msgspec
import pytest

from edgehive.aio.kubeclient import object_path
from edgehive.cloud.dynamic import DynamicController, WatchReview, complete_list
from edgehive.cloud.dynamic_filter import for_edges, for_edges_list
from edgehive.cloud.dynamic_groups import NodeGroups
from edgehive.cloud.impersonation import Impersonation
from edgehive.kit.errors import Unreachable
from edgehive.kube.api import CLUSTER, ListPage
from edgehive.kube.refs import GVR, SERVICES
from edgehive.kube.status import ApiStatus, forbidden
from edgehive.wire import application as apps
from edgehive.wire.application import Application, PatchInfo

SLICES = GVR("discovery.k8s.io", "v1", "endpointslices")


class Api:
    def __init__(self, answer=b"{}") -> None:
        self.answer = answer
        self.asked = []

    async def request(
        self, method, path, options=CLUSTER, *, query=None, body=None, content_type="application/json"
    ):
        self.asked.append((method, path, options.as_user, dict(query or {}), body, content_type))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def ask(api, *, impersonate=False, **fields) -> Application:
    answers = asyncio.Queue()
    application = Application(**({"node": "liar", "option": b"{}"} | fields)).identified()
    async with asyncio.TaskGroup() as group:
        controller = DynamicController(
            api=api,
            path=object_path,
            watches=None,
            answer=lambda node, message: answers.put_nowait((node, message)),
            stamp=lambda: ("m", 1),
            impersonation=Impersonation(impersonate),
            start=group.create_task,
        )
        controller.receive("edge-1", apps.request_message(application, stamp=lambda: ("q", 1)))
        node, outbound = await answers.get()
    assert (node, outbound.message.parent_id) == ("edge-1", "q")
    return apps.decode_application(outbound.message.content)


@pytest.mark.parametrize("impersonate", [False, True])
async def test_it_asks_as_the_node_only_where_nodes_are_authorized(impersonate):
    api = Api(b'{"kind":"Pod"}')
    done = await ask(api, impersonate=impersonate, key="/core/v1/pods/default/a", verb="get")
    assert (done.status, done.response, done.node) == (apps.APPROVED, b'{"kind":"Pod"}', "edge-1")
    user = "system:node:edge-1" if impersonate else ""
    assert api.asked == [("GET", "/api/v1/namespaces/default/pods/a", user, {}, None, "application/json")]


async def test_each_verb_is_its_request():
    api = Api(b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[{"a":1}]}')
    found = await ask(
        api, key="/core/v1/pods/x/null", verb="list", option=b'{"labelSelector":"a=b","limit":5}'
    )
    assert api.asked[-1][:4] == (
        "GET",
        "/api/v1/namespaces/x/pods",
        "",
        {"labelSelector": "a=b", "limit": "5"},
    )
    assert json.loads(found.response)["items"] == [{"kind": "Pod", "apiVersion": "v1", "a": 1}]
    info = PatchInfo("d", "application/merge-patch+json", b"{}", {"dryRun": ["All"]}, ("scale",))
    await ask(api, key="/apps/v1/deployments/x/d", verb="patch", option=info.encode())
    path = "/apis/apps/v1/namespaces/x/deployments/d/scale"
    assert api.asked[-1] == ("PATCH", path, "", {"dryRun": "All"}, b"{}", "application/merge-patch+json")
    await ask(api, key="/core/v1/nodes/null/n", verb="updatestatus", body=b"{}")
    assert api.asked[-1][:2] == ("PUT", "/api/v1/nodes/n/status")
    await ask(api, key="/core/v1/pods/x/p", verb="create", subresource="eviction", body=b"{}")
    assert api.asked[-1][:2] == ("POST", "/api/v1/namespaces/x/pods/p/eviction")
    await ask(api, key="/core/v1/pods/x/p", verb="delete", option=b'{"gracePeriodSeconds":0}')
    assert (api.asked[-1][0], api.asked[-1][4]) == ("DELETE", b'{"gracePeriodSeconds":0}')
    await ask(api, key="/apis/apps/v1", verb="get")
    assert api.asked[-1][:2] == ("GET", "/apis/apps/v1")


@pytest.mark.parametrize(
    ("key", "verb"),
    [
        ("/core/v1/pods/../a", "get"),
        ("/core/v1/pods/default/..", "get"),
        ("/a b/v1/pods/x/y", "get"),
        ("/core/../secrets/x/y", "get"),
        ("/core/v1/pods/default/null", "delete"),
        ("/core/v1/pods/default/a", "dance"),
        ("/metrics", "get"),
        ("/apis/../metrics", "get"),
    ],
)
async def test_what_names_nothing_reaches_no_server(key, verb):
    api = Api()
    refused = await ask(api, key=key, verb=verb)
    assert (refused.status, refused.error.code) == (apps.REJECTED, 400)
    assert api.asked == []


async def test_failures_travel_as_statuses():
    refused = await ask(Api(forbidden("no")), key="/core/v1/pods/x/null", verb="list")
    assert (refused.failure().code, refused.reason) == (403, "no")
    refused = await ask(Api(Unreachable("gone")), key="/core/v1/pods/x/a", verb="get")
    assert refused.failure().code == 503
    with pytest.raises(ApiStatus):
        complete_list(b"[]")


async def test_a_watch_needs_to_be_allowed():
    watch = Application("/core/v1/secrets/x/null", "watch", "edge-1", b"{}")
    api = Api(b'{"status":{"allowed":true}}')
    await WatchReview(api=api).require(watch)
    spec = msgspec.json.decode(api.asked[0][4])["spec"]
    assert (spec["user"], spec["groups"]) == ("system:node:edge-1", ["system:nodes"])
    assert spec["resourceAttributes"]["verb"] == "watch"
    with pytest.raises(ApiStatus, match="cannot watch"):
        await WatchReview(api=Api(b'{"status":{"allowed":false}}')).require(watch)


def test_only_the_slice_of_the_api_server_leads_to_the_edge():
    def slice_(name):
        endpoints = [{"addresses": ["10.0.0.1", "10.0.0.2"]}, {"addresses": ["10.0.0.3"]}]
        ports = [{"name": "https", "port": 6443}, {"name": "other", "port": 1}]
        return {"metadata": {"namespace": "default", "name": name}, "endpoints": endpoints, "ports": ports}

    ours, other = slice_("kubernetes"), slice_("web")
    seen = json.loads(for_edges(SLICES, json.dumps(ours).encode()))
    assert seen["endpoints"] == [{"addresses": ["127.0.0.1"]}]
    assert [port["port"] for port in seen["ports"]] == [10550, 1]
    found = json.loads(for_edges_list(SLICES, json.dumps({"items": [other, ours]}).encode()))["items"]
    assert found == [other, seen]
    empty = ours | {"endpoints": None}
    assert json.loads(for_edges(SLICES, json.dumps(empty).encode())) == empty
    assert for_edges(GVR("", "v1", "pods"), b"x") == b"x"


class Services:
    """An API that lists services, and watches nothing more."""

    def __init__(self, *items) -> None:
        self.page = ListPage([json.dumps(item).encode() for item in items], "7")

    async def list(self, gvr, options=None):
        assert gvr == SERVICES
        return self.page

    async def watch(self, gvr, options, timeout=300.0):
        await asyncio.get_running_loop().create_future()
        yield None  # pragma: no cover


def service(name, topology="range-nodegroup"):
    meta = {"name": name, "namespace": "x", "uid": name, "resourceVersion": "1"}
    return {"metadata": meta | {"annotations": {"apps.kubeedge.io/service-topology": topology}}}


GROUPS = {"a1": "a", "a2": "a", "b1": "b", "lone": "", "lone2": ""}


def seen(found):
    return sorted(e["addresses"][0] for e in found["endpoints"])


async def test_endpoints_of_a_service_within_node_groups_are_those_of_the_own_group():
    slices, endpoints = SLICES, GVR("", "v1", "endpoints")
    everywhere = [{"addresses": [n], "nodeName": n} for n in GROUPS] + [{"addresses": ["nowhere"]}]
    labels = {"kubernetes.io/service-name": "near"}
    slice_ = {"metadata": {"name": "near-x", "namespace": "x", "labels": labels}, "endpoints": everywhere}
    async with asyncio.TaskGroup() as group:
        tasks = []
        groups = NodeGroups(
            api=Services(service("near"), service("far", "other")),
            labels=lambda node: {"apps.kubeedge.io/belonging-to": GROUPS[node]} if GROUPS.get(node) else {},
            start=lambda work: tasks.append(group.create_task(work)),
        )
        await groups.prepare(slices)

        def shown(node, obj=slice_, gvr=slices):
            return json.loads(groups.shown(node, gvr, json.dumps(obj).encode()))

        assert seen(shown("a1")) == ["a1", "a2"]
        assert seen(shown("b1")) == ["b1"]
        assert seen(shown("lone")) == ["lone", "lone2"]  # without a group they are one, as in the original
        assert groups.shown_item("a2", slices, slice_)["endpoints"] == shown("a2")["endpoints"]
        far = slice_ | {"metadata": slice_["metadata"] | {"labels": {"kubernetes.io/service-name": "far"}}}
        assert shown("a1", far) == far
        assert groups.variant("a1", slices, json.dumps(far).encode()) == ""
        old = {
            "metadata": {"name": "near", "namespace": "x"},
            "subsets": [
                {"addresses": [{"ip": n, "nodeName": n} for n in ("a1", "b1")], "ports": [{"port": 1}]},
                {"notReadyAddresses": [{"ip": "b1", "nodeName": "b1"}]},
            ],
        }
        (subset,) = shown("a2", old, endpoints)["subsets"]
        assert subset == {"addresses": [{"ip": "a1", "nodeName": "a1"}], "ports": [{"port": 1}]}
        assert (
            shown("a1", {"metadata": {"name": "near"}}, GVR("", "v1", "configmaps"))["metadata"]["name"]
            == "near"
        )
        for task in tasks:
            task.cancel()
