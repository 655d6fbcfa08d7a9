"""Claims find their volumes: the choice, and the controller on a real registry."""

import msgspec
import pytest

from edgehive.controllers.binding import Claim, Volume, choose, phase_of
from edgehive.kube.refs import CLAIMS, VOLUMES


def volume_of(name="v", size="1Gi", **spec):
    labels = spec.pop("labels", {})
    spec = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}, "local": {"path": "/x"}, **spec}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }


def claim_of(name="c", size="1Gi", **spec):
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def chosen(claim, *volumes):
    claim["metadata"] |= {"namespace": "d", "uid": "u"}
    found = choose(msgspec.convert(claim, Claim), [msgspec.convert(one, Volume) for one in volumes])
    return found.metadata.name if found is not None else None


@pytest.mark.parametrize(
    ("claim", "volumes", "name"),
    [
        (claim_of(), [volume_of("big", "9Gi"), volume_of("fits", "2Gi"), volume_of("small", "1Mi")], "fits"),
        (claim_of(accessModes=["ReadWriteMany"]), [volume_of()], None),
        (claim_of(storageClassName="fast"), [volume_of(), volume_of("w", storageClassName="fast")], "w"),
        (claim_of(storageClassName=""), [volume_of("w", storageClassName="fast")], None),
        (
            claim_of(selector={"matchLabels": {"a": "b"}}),
            [volume_of(), volume_of("w", labels={"a": "b"})],
            "w",
        ),
        (
            claim_of(selector={"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}),
            [volume_of(labels={"a": "b"})],
            None,
        ),
        (claim_of(volumeMode="Block"), [volume_of(), volume_of("w", volumeMode="Block")], "w"),
        (claim_of(volumeName="w"), [volume_of(), volume_of("w", "9Gi")], "w"),
        (claim_of(volumeName="absent"), [volume_of()], None),
        (claim_of(), [volume_of(), volume_of("w", "9Gi", claimRef={"namespace": "d", "name": "c"})], "w"),
        (claim_of(), [volume_of(claimRef={"namespace": "d", "name": "c", "uid": "other"})], None),
        (claim_of(), [volume_of(claimRef={"namespace": "e", "name": "c"})], None),
        (claim_of(), [], None),
    ],
)
def test_the_volume_of_a_claim(claim, volumes, name):
    assert chosen(claim, *volumes) == name


def test_the_phase_of_a_volume():
    def phase(reference, claim=None):
        made = msgspec.convert(volume_of(**({"claimRef": reference} if reference else {})), Volume)
        return phase_of(made, claim)

    claim = claim_of(volumeName="v")
    claim["metadata"] |= {"namespace": "d", "uid": "u"}
    claim = msgspec.convert(claim, Claim)
    named = {"namespace": "d", "name": "c"}
    assert phase(None) == "Available"
    assert phase(named) == "Available"
    assert phase(named | {"uid": "u"}, claim) == "Bound"
    assert phase(named | {"uid": "other"}, claim) == "Released"
    assert phase(named | {"uid": "u"}) == "Released"


async def test_claims_are_bound_volumes_are_released_and_nothing_is_given_twice(world):
    async def phase(gvr, name):
        found = await world.get(gvr, name, "default" if gvr == CLAIMS else None)
        return ((found or {}).get("status") or {}).get("phase")

    await world.create(CLAIMS, claim_of("first"))
    await world.until(lambda: _is(phase(CLAIMS, "first"), "Pending"))
    await world.create(VOLUMES, volume_of("v1"), None)
    await world.until(lambda: _is(phase(CLAIMS, "first"), "Bound"))
    await world.until(lambda: _is(phase(VOLUMES, "v1"), "Bound"))
    claim, volume = await world.get(CLAIMS, "first"), await world.get(VOLUMES, "v1", None)
    assert claim["spec"]["volumeName"] == "v1"
    assert claim["status"]["capacity"] == {"storage": "1Gi"}
    assert volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]
    for name in ("second", "third"):
        await world.create(CLAIMS, claim_of(name))
    await world.until(lambda: _is(phase(CLAIMS, "third"), "Pending"))
    await world.create(VOLUMES, volume_of("v2"), None)
    await world.until(lambda: _is(phase(VOLUMES, "v2"), "Bound"))

    async def bound():
        return sorted([await phase(CLAIMS, "second"), await phase(CLAIMS, "third")]) == ["Bound", "Pending"]

    await world.until(bound)
    await world.delete(CLAIMS, "first")
    await world.until(lambda: _is(phase(VOLUMES, "v1"), "Released"))
    await world.create(CLAIMS, claim_of("first"))
    await world.until(lambda: _is(phase(CLAIMS, "first"), "Pending"))
    await world.patch(VOLUMES, "v1", {"spec": {"claimRef": None}}, None)

    async def again():
        claims = [await phase(CLAIMS, name) for name in ("first", "second", "third")]
        return sorted(claims) == ["Bound", "Bound", "Pending"]

    await world.until(again)
    owner = (await world.get(VOLUMES, "v2", None))["spec"]["claimRef"]["name"]
    await world.delete(VOLUMES, "v2", None)
    held = await world.get(VOLUMES, "v2", None)
    assert held["metadata"]["deletionTimestamp"]
    assert held["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]
    await world.patch(VOLUMES, "v2", {"metadata": {"finalizers": None}}, None)
    await world.until(lambda: _is(phase(CLAIMS, owner), "Lost"))


async def _is(asked, wanted):
    return await asked == wanted
