import asyncio
from datetime import timedelta

import pytest

from edgehive.kube.status import ApiStatus


async def refused(code: int, work) -> ApiStatus:
    with pytest.raises(ApiStatus) as caught:
        await work
    assert caught.value.code == code
    return caught.value


def service(name: str, **spec) -> dict:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


async def test_services_created_together_get_different_addresses_and_ports(cluster):
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(cluster.create("services", service(f"s{i}", type="NodePort")))
            for i in range(20)
        ]
    specs = [task.result()["spec"] for task in tasks]
    assert len({s["clusterIP"] for s in specs} | {"10.96.0.1"}) == 21
    assert len({s["ports"][0]["nodePort"] for s in specs}) == 20
    assert all(s["clusterIPs"] == [s["clusterIP"]] and s["ipFamilies"] == ["IPv4"] for s in specs)


async def test_an_address_is_given_once_and_kept(cluster):
    made = await cluster.create("services", service("a"))
    address = made["spec"]["clusterIP"]
    await refused(422, cluster.create("services", service("b", clusterIP=address)))
    kept = await cluster.update("services", {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 81}]}})
    assert kept["spec"]["clusterIP"] == address
    await cluster.delete("services", "a")
    again = await cluster.create("services", service("b", clusterIP=address))
    assert again["spec"]["clusterIP"] == address


async def test_headless_and_external_services_get_no_address(cluster):
    headless = await cluster.create("services", service("h", clusterIP="None"))
    assert headless["spec"]["clusterIPs"] == ["None"]
    external = await cluster.create("services", service("e", type="ExternalName", externalName="example.com"))
    assert "clusterIP" not in external["spec"]


async def test_a_pod_gets_its_account_and_token(cluster, pod):
    made = await cluster.create("pods", pod())
    spec = made["spec"]
    assert spec["serviceAccountName"] == "default"
    mount = spec["containers"][0]["volumeMounts"][0]
    assert (mount["mountPath"], mount["readOnly"]) == ("/var/run/secrets/kubernetes.io/serviceaccount", True)
    volume = next(v for v in spec["volumes"] if v["name"] == mount["name"])
    sources = volume["projected"]["sources"]
    assert sources[0]["serviceAccountToken"]["expirationSeconds"] == 3607
    assert sources[1]["configMap"]["name"] == "kube-root-ca.crt"
    assert made["status"]["phase"] == "Pending"
    owned = [str(e["fieldsV1"]) for e in made["metadata"]["managedFields"]]
    assert not any("kube-api-access" in text or "tolerations" in text for text in owned)


async def test_the_token_can_be_declined(cluster, pod):
    made = await cluster.create("pods", pod(automountServiceAccountToken=False))
    assert "volumes" not in made["spec"]
    account = {"metadata": {"name": "quiet"}, "automountServiceAccountToken": False}
    await cluster.create("serviceaccounts", account)
    made = await cluster.create("pods", pod("q", serviceAccountName="quiet"))
    assert "volumes" not in made["spec"]
    made = await cluster.create(
        "pods", pod("r", serviceAccountName="quiet", automountServiceAccountToken=True)
    )
    assert made["spec"]["volumes"]


async def test_a_place_that_is_taken_is_left_alone(cluster, pod):
    body = pod(volumes=[{"name": "own", "emptyDir": {}}])
    own = {"name": "own", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    body["spec"]["containers"][0]["volumeMounts"] = [own]
    made = await cluster.create("pods", body)
    assert [v["name"] for v in made["spec"]["volumes"]] == ["own"]


async def test_an_unknown_account_or_priority_is_refused(cluster, pod):
    error = await refused(403, cluster.create("pods", pod(serviceAccountName="nobody")))
    assert error.message == (
        'pods "p" is forbidden: error looking up service account default/nobody: serviceaccount "nobody" not found'
    )
    error = await refused(403, cluster.create("pods", pod(priorityClassName="nothing")))
    assert "no PriorityClass with name nothing was found" in error.message


async def test_priorities(cluster, pod):
    made = await cluster.create("pods", pod("a"))
    assert (made["spec"]["priority"], made["spec"]["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    made = await cluster.create("pods", pod("b", priorityClassName="system-node-critical"))
    assert made["spec"]["priority"] == 2000001000
    await cluster.create("priorityclasses", {"metadata": {"name": "high"}, "value": 7})
    made = await cluster.create("pods", pod("c", priorityClassName="high"))
    assert made["spec"]["priority"] == 7


async def test_tolerations_of_a_lost_node(cluster, pod):
    made = await cluster.create("pods", pod("a"))
    assert [t["tolerationSeconds"] for t in made["spec"]["tolerations"]] == [300, 300]
    everything = [{"operator": "Exists"}]
    made = await cluster.create("pods", pod("b", tolerations=everything))
    assert made["spec"]["tolerations"] == everything


async def test_a_running_pod_cannot_be_rebuilt(cluster, pod):
    await cluster.create("pods", pod())
    await refused(422, cluster.patch("pods", "p", {"spec": {"nodeName": "n2"}}))
    await refused(422, cluster.patch("pods", "p", {"spec": {"restartPolicy": "Never"}}))
    image = [{"op": "replace", "path": "/spec/containers/0/image", "value": "busybox:2"}]
    changed = await cluster.patch("pods", "p", image, "json")
    assert changed["spec"]["containers"][0]["image"] == "busybox:2"


async def test_claims_and_volumes_are_protected_and_a_claim_gets_the_newest_default_class(cluster):
    def claim(name, **spec):
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec}
        return {"metadata": {"name": name}, "spec": spec}

    bare = await cluster.create("persistentvolumeclaims", claim("bare"))
    assert "storageClassName" not in bare["spec"]
    assert bare["metadata"]["finalizers"] == ["kubernetes.io/pvc-protection"]
    for name, default in (("a", "true"), ("c", "true"), ("b", "true"), ("other", "false")):
        notes = {"storageclass.kubernetes.io/is-default-class": default}
        body = {"metadata": {"name": name, "annotations": notes}, "provisioner": "example.org/x"}
        await cluster.create("storageclasses", body)
        cluster.time += timedelta(seconds=60 if name == "a" else 0)
    found = await cluster.create("persistentvolumeclaims", claim("default"))
    assert found["spec"]["storageClassName"] == "b"  # c is as new
    for name in ("", "other"):
        found = await cluster.create("persistentvolumeclaims", claim(f"c{name}", storageClassName=name))
        assert found["spec"]["storageClassName"] == name
    spec = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}
    volume = await cluster.create("persistentvolumes", {"metadata": {"name": "v"}, "spec": spec})
    assert volume["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]
