import msgspec

from edgehive.controllers.endpoints import Service, endpoints_of, slices, subsets
from edgehive.controllers.endpoints_controller import ENDPOINTS, ENDPOINTSLICES
from edgehive.controllers.objects import Pod
from edgehive.kube.refs import PODS, SERVICES


async def test_a_service_knows_its_pods(world):
    await world.create(
        SERVICES,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "s"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
    )
    await world.deployment(replicas=2)
    await world.rolled_out(2)
    for number, found in enumerate(await world.all(PODS)):
        ip = f"10.1.0.{number + 1}"
        status = {"status": {"podIP": ip, "podIPs": [{"ip": ip}]}}
        await world.patch(PODS, found["metadata"]["name"], status, subresource="status")

    async def addresses(ready=True):
        endpoints = await world.get(ENDPOINTS, "s") or {}
        found = [a["ip"] for s in endpoints.get("subsets") or () for a in s.get("addresses") or ()]
        made = [s for s in await world.all(ENDPOINTSLICES) if s["metadata"]["name"].startswith("s-")]
        sliced = [
            a for s in made for e in s["endpoints"] or () if e["conditions"]["ready"] for a in e["addresses"]
        ]
        return sorted(found) if sorted(found) == sorted(sliced) else None

    async def both():
        return await addresses() == ["10.1.0.1", "10.1.0.2"]

    await world.until(both)
    await world.pod_ready((await world.all(PODS))[0], ready=False)

    async def one():
        return len(await addresses() or ()) == 1

    await world.until(one)
    await world.delete(SERVICES, "s")

    async def none():
        left = [s for s in await world.all(ENDPOINTSLICES) if s["metadata"]["name"].startswith("s-")]
        return await world.get(ENDPOINTS, "s") is None and left == []

    await world.until(none)


def pod(name, ip, ready=True, **meta):
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "d", "uid": f"u-{name}", **meta},
            "spec": {"nodeName": "n", "containers": [{"ports": [{"name": "web", "containerPort": 8080}]}]},
            "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": str(ready)}]},
        },
        Pod,
    )


def service(**spec):
    spec = {"selector": {"app": "x"}, "ports": [{"name": "http", "port": 80, "targetPort": "web"}], **spec}
    return msgspec.convert({"metadata": {"name": "s", "namespace": "d", "uid": "us"}, "spec": spec}, Service)


def test_ready_and_unready_addresses_and_named_ports():
    found = endpoints_of(service(), [pod("b", "10.0.0.2", ready=False), pod("a", "10.0.0.1"), pod("c", "")])
    (subset,) = subsets(found)
    assert [a["ip"] for a in subset["addresses"]] == ["10.0.0.1"]
    assert [a["ip"] for a in subset["notReadyAddresses"]] == ["10.0.0.2"]
    assert subset["ports"] == [{"port": 8080, "protocol": "TCP", "name": "http"}]
    assert subset["addresses"][0]["targetRef"] == {"kind": "Pod", "namespace": "d", "name": "a", "uid": "u-a"}


def test_a_pod_that_ends_serves_but_is_not_ready():
    found = endpoints_of(service(), [pod("a", "10.0.0.1", deletionTimestamp="2026-01-01T00:00:00Z")])
    assert subsets(found) == []
    (entry,) = slices(service(), found).values()
    assert entry["endpoints"][0]["conditions"] == {"ready": False, "serving": True, "terminating": True}


def test_large_services_are_cut_into_slices_with_stable_names():
    pods = [pod(f"p{i}", f"10.0.{i // 250}.{i % 250}") for i in range(250)]
    made = slices(service(), endpoints_of(service(), pods))
    assert sorted(len(s["endpoints"]) for s in made.values()) == [50, 100, 100]
    assert set(slices(service(), endpoints_of(service(), pods[:5]))) < set(made)
    assert len(slices(service(), [])) == 1
