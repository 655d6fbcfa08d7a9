"""Images by pull policy, with credentials from the pod's pull secrets."""

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from edgehive.edge.env import object_data
from edgehive.edge.pods_events import PodEvents
from edgehive.edge.pods_objects import PodObjects
from edgehive.edge.pods_spec import Container, Pod
from edgehive.edge.runtime import Runtime, RuntimeFailure
from edgehive.kit.errors import Transient
from edgehive.kit.text import safe_label

log = logging.getLogger(__name__)

_NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:[a-zA-Z0-9.-]+(?::[0-9]+)?/|\[[0-9a-fA-F:]+\](?::[0-9]+)?/)?{_NAME}(?:/{_NAME})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?"
)
"""As `distribution/reference` has it: registry, path, tag, digest."""
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v1/")


class Images:
    """Makes images present; a few pulls at a time."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        objects: PodObjects,
        events: PodEvents,
        connected: Callable[[], bool],
        parallel: int,
    ) -> None:
        self._runtime = runtime
        self._objects = objects
        self._events = events
        self._connected = connected
        self._slots = asyncio.Semaphore(parallel)

    async def ensure(self, pod: Pod, container: Container) -> str:
        """Return the reference to start `container` from.

        Policy ``Always`` uses the image that is there when the pull fails while the cloud is away as well: a node
        without its uplink must be able to restart what it ran before.

        Raises:
            RuntimeFailure: ``InvalidImageName``, ``ErrImageNeverPull`` or ``ErrImagePull``.
        """
        image, policy = container.image, container.pull_policy
        present = await self._runtime.image_status(image)
        if present is not None and policy != "Always":
            text = f'Container image "{image}" already present on machine'
            self._events.emit(pod, "Pulled", text, container=container.name)
            return present.id
        if present is None and not _REFERENCE.fullmatch(image):
            raise RuntimeFailure(
                "InvalidImageName", f'couldn\'t parse image name "{image}": invalid reference format'
            )
        if policy == "Never":
            text = f'Container image "{image}" is not present with pull policy of Never'
            raise RuntimeFailure("ErrImageNeverPull", text)
        self._events.emit(pod, "Pulling", f'Pulling image "{image}"', container=container.name)
        try:
            async with self._slots:
                reference = await self._pull(pod, image)
        except (RuntimeFailure, Transient) as exc:
            if present is not None and not self._connected():
                text = f'Cannot pull image "{image}" while the node is offline, using the one on the machine'
                self._events.emit(pod, "PulledOffline", text, container=container.name)
                return present.id
            text = f'Failed to pull image "{image}": {exc}'
            raise RuntimeFailure("ErrImagePull", text) from exc
        self._events.emit(pod, "Pulled", f'Successfully pulled image "{image}"', container=container.name)
        return reference

    async def _pull(self, pod: Pod, image: str) -> str:
        failure: RuntimeFailure | None = None
        for auth in [*await self._credentials(pod, image), None]:
            try:
                return await self._runtime.pull_image(image, auth)
            except RuntimeFailure as exc:
                failure = failure or exc
        assert failure is not None
        raise failure

    async def _credentials(self, pod: Pod, image: str) -> list[dict[str, str]]:
        found = []
        for reference in pod.spec.image_pull_secrets:
            name = reference.get("name", "")
            try:
                secret = await self._objects.get("secret", pod.metadata.namespace, name)
            except RuntimeFailure as exc:
                log.warning("pull secret %s: %s", safe_label(name), safe_label(str(exc)))
                continue
            if secret is not None:
                found += credentials(object_data("secret", secret), image)
        return found


def credentials(data: dict[str, bytes], image: str) -> list[dict[str, str]]:
    """Read a ``kubernetes.io/dockerconfigjson`` or ``dockercfg`` secret: what applies to the image's registry."""
    try:
        if raw := data.get(".dockerconfigjson"):
            entries = msgspec.json.decode(raw).get("auths") or {}
        else:
            entries = msgspec.json.decode(data.get(".dockercfg", b"{}"))
        items = list(entries.items())
    except (msgspec.MsgspecError, AttributeError):
        return []
    found = [(str(server), entry) for server, entry in items if isinstance(entry, dict)]
    # Those for a part of a registry come before those for all of it.
    found.sort(key=lambda one: one[0], reverse=True)
    return [_auth(entry) for server, entry in found if _applies(server, image)]


def registry_of(image: str) -> str:
    """``registry.example:5000/team/app:1`` gives ``registry.example:5000``; no registry means Docker Hub."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def _applies(server: str, image: str) -> bool:
    """Whether an entry is for the image's registry, or for its part of it; ``*`` stands for text without a dot in it."""
    registry = registry_of(image)
    if registry in _DOCKER_HUB:
        return server in _DOCKER_HUB
    host, _, path = server.removeprefix("https://").removeprefix("http://").partition("/")
    if path.strip("/") in ("v1", "v2"):
        path = ""
    parts, wanted = host.split("."), registry.split(".")
    same = len(parts) == len(wanted) and all(map(fnmatchcase, wanted, parts))
    return same and image.removeprefix(f"{registry}/").startswith(path)


def _auth(entry: dict[str, Any]) -> dict[str, str]:
    auth = {
        "username": str(entry.get("username", "")),
        "password": str(entry.get("password", "")),
        "identity_token": str(entry.get("identitytoken", "")),
    }
    if not auth["username"] and entry.get("auth"):
        try:
            user, _, password = base64.b64decode(str(entry["auth"])).decode().partition(":")
        except (binascii.Error, ValueError):
            return auth
        auth |= {"username": user, "password": password}
    return auth
