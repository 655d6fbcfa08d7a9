"""What ``kubectl get`` shows of the built-in kinds: cells are functions of `kube.cells`, or JSONPaths."""

from collections.abc import Mapping

from edgehive.kube.resources import Column

_AGE = Column("Age", cell="age", description="Time since the object was created.")
_NAME = Column("Name", format="name", path=".metadata.name", description="Name of the object.")


def _wide(name: str, cell: str = "", path: str = "", type_: str = "string") -> Column:
    return Column(name, type=type_, priority=1, cell=cell, path=path)


COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "Pod": (
        _NAME,
        Column("Ready", cell="pod_ready"),
        Column("Status", cell="pod_status"),
        Column("Restarts", cell="pod_restarts"),
        _AGE,
        _wide("IP", "pod_ip"),
        _wide("Node", "pod_node"),
        _wide("Nominated Node", "pod_nominated"),
        _wide("Readiness Gates", "pod_gates"),
    ),
    "PodTemplate": (
        _NAME,
        Column("Containers", cell="template_containers"),
        Column("Images", cell="template_images"),
        Column("Pod Labels", cell="template_labels"),
    ),
    "Node": (
        _NAME,
        Column("Status", cell="node_status"),
        Column("Roles", cell="node_roles"),
        _AGE,
        Column("Version", path=".status.nodeInfo.kubeletVersion"),
        _wide("Internal-IP", "node_internal_ip"),
        _wide("External-IP", "node_external_ip"),
        _wide("OS-Image", "node_os_image"),
        _wide("Kernel-Version", "node_kernel"),
        _wide("Container-Runtime", "node_runtime"),
    ),
    "Namespace": (_NAME, Column("Status", path=".status.phase"), _AGE),
    "ConfigMap": (_NAME, Column("Data", cell="configmap_size"), _AGE),
    "Secret": (_NAME, Column("Type", path=".type"), Column("Data", type="integer", cell="data_size"), _AGE),
    "ServiceAccount": (_NAME, Column("Secrets", type="integer", cell="secret_count"), _AGE),
    "Service": (
        _NAME,
        Column("Type", path=".spec.type"),
        Column("Cluster-IP", cell="service_cluster_ip"),
        Column("External-IP", cell="service_external_ip"),
        Column("Port(s)", cell="service_ports"),
        _AGE,
        _wide("Selector", "service_selector"),
    ),
    "Endpoints": (_NAME, Column("Endpoints", cell="endpoints"), _AGE),
    "EndpointSlice": (
        _NAME,
        Column("AddressType", path=".addressType"),
        Column("Ports", cell="slice_ports"),
        Column("Endpoints", cell="slice_endpoints"),
        _AGE,
    ),
    "Event": (
        Column("Last Seen", cell="event_last_seen"),
        Column("Type", path=".type"),
        Column("Reason", path=".reason"),
        Column("Object", cell="event_object"),
        _wide("Subobject", "event_subobject"),
        _wide("Source", "event_source"),
        Column("Message", cell="event_message"),
        _wide("First Seen", "event_first_seen"),
        _wide("Count", "event_count"),
        Column("Name", priority=1, format="name", path=".metadata.name"),
    ),
    "Lease": (_NAME, Column("Holder", path=".spec.holderIdentity"), _AGE),
    "Deployment": (
        _NAME,
        Column("Ready", cell="ready_of_wanted"),
        Column("Up-to-date", cell="updated_replicas"),
        Column("Available", cell="available_replicas"),
        _AGE,
        _wide("Containers", "template_containers"),
        _wide("Images", "template_images"),
        _wide("Selector", "label_selector"),
    ),
    "ReplicaSet": (
        _NAME,
        Column("Desired", type="integer", cell="wanted_replicas"),
        Column("Current", type="integer", cell="current_replicas"),
        Column("Ready", type="integer", cell="ready_replicas"),
        _AGE,
        _wide("Containers", "template_containers"),
        _wide("Images", "template_images"),
        _wide("Selector", "label_selector"),
    ),
    "DaemonSet": (
        _NAME,
        Column("Desired", type="integer", cell="daemon_desired"),
        Column("Current", type="integer", cell="daemon_current"),
        Column("Ready", type="integer", cell="daemon_ready"),
        Column("Up-to-date", type="integer", cell="daemon_updated"),
        Column("Available", type="integer", cell="daemon_available"),
        Column("Node Selector", cell="daemon_node_selector"),
        _AGE,
        _wide("Containers", "template_containers"),
        _wide("Images", "template_images"),
        _wide("Selector", "label_selector"),
    ),
    "CustomResourceDefinition": (
        _NAME,
        Column("Created At", type="date", path=".metadata.creationTimestamp"),
    ),
    "PriorityClass": (
        _NAME,
        Column("Value", type="integer", cell="priority_value"),
        Column("Global-Default", type="boolean", cell="priority_default"),
        _AGE,
        Column("PreemptionPolicy", path=".preemptionPolicy"),
    ),
    "StorageClass": (
        Column("Name", format="name", cell="storageclass_name"),
        Column("Provisioner", path=".provisioner"),
        Column("ReclaimPolicy", path=".reclaimPolicy"),
        Column("VolumeBindingMode", path=".volumeBindingMode"),
        Column("AllowVolumeExpansion", cell="storageclass_expansion"),
        _AGE,
    ),
    "PersistentVolume": (
        _NAME,
        Column("Capacity", cell="volume_capacity"),
        Column("Access Modes", cell="volume_modes"),
        Column("Reclaim Policy", path=".spec.persistentVolumeReclaimPolicy"),
        Column("Status", cell="phase_or_terminating"),
        Column("Claim", cell="volume_claim"),
        Column("StorageClass", path=".spec.storageClassName"),
        Column("VolumeAttributesClass", cell="volume_attributes_class"),
        Column("Reason", path=".status.reason"),
        _AGE,
        _wide("VolumeMode", path=".spec.volumeMode"),
    ),
    "PersistentVolumeClaim": (
        _NAME,
        Column("Status", cell="phase_or_terminating"),
        Column("Volume", path=".spec.volumeName"),
        Column("Capacity", cell="claim_capacity"),
        Column("Access Modes", cell="claim_modes"),
        Column("StorageClass", path=".spec.storageClassName"),
        Column("VolumeAttributesClass", cell="volume_attributes_class"),
        _AGE,
        _wide("VolumeMode", path=".spec.volumeMode"),
    ),
}
"""By kind, in the order they are printed."""
