"""The Container Storage Interface ``csi.v1``: the node service's messages that edged uses, as tables.

Field numbers are those of the public CSI 1.x definition; fields that edged neither sets nor reads are left out.
"""

from edgehive.aio.protobuf import Message, Method, message

_S, _B, _I, _MAP = "string", "bool", "int", "map<string, string>"

EMPTY = message("Empty")

# Rpc types of a node service's capability.
STAGE_UNSTAGE_VOLUME = 1
GET_VOLUME_STATS = 2
SINGLE_NODE_MULTI_WRITER = 5
VOLUME_MOUNT_GROUP = 6

RPC = message("NodeServiceCapability.RPC", (1, "type", _I))
CAPABILITY = message("NodeServiceCapability", (1, "rpc", RPC))
CAPABILITIES = message("NodeGetCapabilitiesResponse", (1, "capabilities", CAPABILITY, "*"))
TOPOLOGY = message("Topology", (1, "segments", _MAP))
INFO = message(
    "NodeGetInfoResponse",
    (1, "node_id", _S),
    (2, "max_volumes_per_node", _I),
    (3, "accessible_topology", TOPOLOGY),
)

MOUNT_VOLUME = message(
    "VolumeCapability.MountVolume",
    (1, "fs_type", _S),
    (2, "mount_flags", _S, "*"),
    (3, "volume_mount_group", _S),
)
ACCESS_MODE = message("VolumeCapability.AccessMode", (1, "mode", _I))
VOLUME_CAPABILITY = message("VolumeCapability", (2, "mount", MOUNT_VOLUME), (3, "access_mode", ACCESS_MODE))

STAGE = message(
    "NodeStageVolumeRequest",
    (1, "volume_id", _S),
    (2, "publish_context", _MAP),
    (3, "staging_target_path", _S),
    (4, "volume_capability", VOLUME_CAPABILITY),
    (5, "secrets", _MAP),
    (6, "volume_context", _MAP),
)
UNSTAGE = message("NodeUnstageVolumeRequest", (1, "volume_id", _S), (2, "staging_target_path", _S))
PUBLISH = message(
    "NodePublishVolumeRequest",
    (1, "volume_id", _S),
    (2, "publish_context", _MAP),
    (3, "staging_target_path", _S),
    (4, "target_path", _S),
    (5, "volume_capability", VOLUME_CAPABILITY),
    (6, "readonly", _B),
    (7, "secrets", _MAP),
    (8, "volume_context", _MAP),
)
UNPUBLISH = message("NodeUnpublishVolumeRequest", (1, "volume_id", _S), (2, "target_path", _S))
STATS = message(
    "NodeGetVolumeStatsRequest", (1, "volume_id", _S), (2, "volume_path", _S), (3, "staging_target_path", _S)
)
USAGE = message("VolumeUsage", (1, "available", _I), (2, "total", _I), (3, "used", _I), (4, "unit", _I))
CONDITION = message("VolumeCondition", (1, "abnormal", _B), (2, "message", _S))
STATS_ANSWER = message(
    "NodeGetVolumeStatsResponse", (1, "usage", USAGE, "*"), (2, "volume_condition", CONDITION)
)


def _node(name: str, request: Message, response: Message) -> Method:
    return Method(f"/csi.v1.Node/{name}", request, response)


NodeGetInfo = _node("NodeGetInfo", EMPTY, INFO)
NodeGetCapabilities = _node("NodeGetCapabilities", EMPTY, CAPABILITIES)
NodeStageVolume = _node("NodeStageVolume", STAGE, EMPTY)
NodeUnstageVolume = _node("NodeUnstageVolume", UNSTAGE, EMPTY)
NodePublishVolume = _node("NodePublishVolume", PUBLISH, EMPTY)
NodeUnpublishVolume = _node("NodeUnpublishVolume", UNPUBLISH, EMPTY)
NodeGetVolumeStats = _node("NodeGetVolumeStats", STATS, STATS_ANSWER)
