"""The WebSocket endpoint of the hub: the upgrade request's path and headers, and what is checked before the 101.

The original accepts any path, takes the node's name from a header alone, and leaves a refused connection open
with its messages still being processed. Here the name must be the one in the verified certificate and a refusal
is an HTTP answer.
"""

from collections.abc import Mapping

import msgspec

from edgehive.kube.refs import is_dns_subdomain
from edgehive.wire.held import HOLDINGS_HEADER
from edgehive.wire.refusal import Refused

DEFAULT_PROJECT = "e632aba927ea4ac2b575ec1603d56f10"
NODE_HEADER = "Node_id"
PROJECT_HEADER = "Project_id"
USE_HEADER = "Connectionuse"
USE_MESSAGES = "msg"

NODES_ORGANIZATION = "system:nodes"
NODE_USER_PREFIX = "system:node:"

MAX_PROJECT = 253


class Subject(msgspec.Struct, frozen=True):
    """Who a verified certificate names: every organization and every common name of its subject."""

    organizations: tuple[str, ...]
    common_names: tuple[str, ...]

    @property
    def node(self) -> str | None:
        """The node this certificate belongs to, if it is exactly a node's certificate."""
        if self.organizations != (NODES_ORGANIZATION,) or len(self.common_names) != 1:
            return None
        name = self.common_names[0]
        if not name.startswith(NODE_USER_PREFIX):
            return None
        node = name.removeprefix(NODE_USER_PREFIX)
        return node if is_dns_subdomain(node) else None


class Hello(msgspec.Struct, frozen=True):
    """An accepted upgrade request."""

    node: str
    project: str
    tells: bool = False
    """It is one of ours, and says first of all what it holds."""


class Room(msgspec.Struct, frozen=True):
    """How full the hub is: sessions of *other* nodes now, and the most it takes (``nodeLimit``)."""

    connected: int
    limit: int


def upgrade_path(project: str, node: str) -> str:
    """``/<project>/<node>/events``."""
    return f"/{project}/{node}/events"


def upgrade_headers(project: str, node: str, *, tells: bool = False) -> dict[str, str]:
    """The headers an edge adds to its upgrade request, spelled as the original's arrive."""
    headers = {NODE_HEADER: node, PROJECT_HEADER: project, USE_HEADER: USE_MESSAGES}
    return headers | ({HOLDINGS_HEADER: "1"} if tells else {})


def check_upgrade(
    *, path: str, headers: Mapping[str, str], subject: Subject | None, room: Room, problem: str = ""
) -> Hello:
    """Decide on an upgrade request before the 101.

    `headers` maps lower-case names to the *first* value sent (a redialling original repeats
    ``Connectionuse``); `subject` is the verified client certificate's, `problem` why that does not count now.

    Raises:
        Refused: with the HTTP status to answer.
    """
    parts = path.split("?", 1)[0].split("/")
    if len(parts) != 4 or parts[0] or parts[3] != "events":
        raise Refused(404, "no such endpoint; an edge connects to /<project>/<node>/events")
    node = headers.get(NODE_HEADER.lower(), "")
    project = headers.get(PROJECT_HEADER.lower(), "") or parts[1]
    if not is_dns_subdomain(node):
        raise Refused(400, "header Node_id is missing or not a node name")
    if headers.get(USE_HEADER.lower(), "") != USE_MESSAGES:
        raise Refused(400, "header Connectionuse must be msg")
    if len(project) > MAX_PROJECT or not project.isprintable():
        raise Refused(400, "header Project_id is not a project id")
    if parts[2] != node:
        raise Refused(400, "the path and header Node_id name different nodes")
    if subject is None:
        raise Refused(401, "a client certificate is required")
    if problem:
        raise Refused(401, problem)
    if subject.node != node:
        raise Refused(403, "the client certificate belongs to another node")
    if room.limit > 0 and room.connected >= room.limit:
        raise Refused(503, "the hub is at its node limit")
    return Hello(node, project, tells=headers.get(HOLDINGS_HEADER.lower()) == "1")
