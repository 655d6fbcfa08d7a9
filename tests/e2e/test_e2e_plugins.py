"""What plugs into a node, as the cluster sees it: a device that the scheduler counts, a volume of a CSI driver."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.installation import Installation, eventually
from tests.support.manifests import pod
from tests.support.plugin_peer import ROOT, CsiDriverPeer, DevicePluginPeer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

GPU = "example.org/gpu"
NODE_ID = "csi.volume.kubernetes.io/nodeid"
DRIVER = "fake.csi.example.org"


def root_of(up: Installation) -> Path:
    """The root directory of the node."""
    (socket,) = eventually(
        lambda: list(up.root.glob("**/device-plugins/kubelet.sock")), what="the node's socket"
    )
    return Path(socket).parent.parent


def with_gpu(name: str) -> dict[str, Any]:
    return pod(name, container={"resources": {"limits": {GPU: "1"}}})


def test_the_scheduler_counts_devices_and_a_pod_gets_one(up: Installation):
    plugin = DevicePluginPeer(root_of(up), GPU, "gpu0")
    plugin.run()
    try:
        eventually(
            lambda: up.get("node", "edge-1")["status"]["allocatable"].get(GPU) == "1",
            what="the node has a device",
        )
        assert up.get("node", "edge-1")["status"]["capacity"][GPU] == "1"
        up.apply(with_gpu("one"))
        up.running("app=one", 1)
        assert plugin.allocated == [["gpu0"]]
        assert "GPUS=gpu0" in up.kubectl("exec", "one", "--", "env")
        up.apply(with_gpu("two"))
        eventually(
            lambda: f"Insufficient {GPU}" in up.kubectl("describe", "pod", "two"),
            what="the scheduler's reason",
        )
        up.kubectl("delete", "pod", "one")
        up.running("app=two", 1)
        assert plugin.allocated == [["gpu0"], ["gpu0"]]
        up.kubectl("delete", "pod", "two")
        plugin.end()
        eventually(
            lambda: up.get("node", "edge-1")["status"]["allocatable"][GPU] == "0", what="the device is gone"
        )
    finally:
        plugin.end()


@pytest.mark.skipif(not ROOT, reason="volumes are mounted for processes as root only")
def test_a_claim_on_a_csi_volume_is_shown_to_a_pod_and_given_back(up: Installation, short_dir: Path):
    driver = CsiDriverPeer(root_of(up), short_dir / "store")
    driver.topology = {"topology.example.org/rack": "r1"}
    driver.run()
    volume = {"driver": DRIVER, "volumeHandle": "disk-1"}
    size = {"storage": "1Gi"}
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    try:
        up.apply(
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "CSIDriver",
                "metadata": {"name": DRIVER},
                "spec": {"attachRequired": False},
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": "pv1"},
                "spec": {**spec, "capacity": size, "csi": volume},
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": "data"},
                "spec": {**spec, "resources": {"requests": size}},
            },
            pod(
                "user",
                volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
                container={"volumeMounts": [{"name": "v", "mountPath": "/edgehive-test/e2e"}]},
            ),
        )
        up.running("app=user", 1)
        assert up.get("pvc", "data")["status"]["phase"] == up.get("pv", "pv1")["status"]["phase"] == "Bound"
        (published,) = driver.published
        assert Path(published, "name").read_text() == "disk-1"
        node = up.get("node", "edge-1")["metadata"]
        assert node["annotations"][NODE_ID] == f'{{"{DRIVER}":"the-node"}}'
        assert node["labels"]["topology.example.org/rack"] == "r1"
        (entry,) = up.get("csinode", "edge-1")["spec"]["drivers"]
        assert entry == {
            "name": DRIVER,
            "nodeID": "the-node",
            "topologyKeys": ["topology.example.org/rack"],
            "allocatable": {"count": 8},
        }
        up.kubectl("delete", "pod", "user")
        eventually(lambda: not driver.staged and not driver.published, what="the driver has its volume back")
        assert driver.violations == []
        driver.end()
        eventually(lambda: not up.get("csinode", "edge-1")["spec"]["drivers"], what="the driver is gone")
        assert NODE_ID not in up.get("node", "edge-1")["metadata"]["annotations"]
    finally:
        driver.end()
        up.kubectl("delete", "pvc/data", "pv/pv1", f"csidriver/{DRIVER}", "--wait=false", check=False)
