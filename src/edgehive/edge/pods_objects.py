"""ConfigMaps, secrets and tokens for pods: local first, with "not there" and "not known now" kept apart."""

from collections.abc import Mapping
from typing import Any

import msgspec

from edgehive.edge.env import Key, references
from edgehive.edge.metaclient import MetaClient, Ok, Reply
from edgehive.edge.pods_spec import Container, JsonObject, Pod, parse_time
from edgehive.edge.runtime import RuntimeFailure
from edgehive.edge.volumes_content import object_references
from edgehive.kit.malformed import MALFORMED

_TOKEN_LIFETIME = 3607  # the lifetime the API server puts into the default token volume


def objects_of(pod: Pod) -> set[Key]:
    """What `pod` refers to, in volumes and in environments."""
    wanted = {key for volume in pod.spec.volumes for key in object_references(volume)}
    for one in pod.spec.all_containers:
        wanted |= {key for key, _ in references(one)}
    return wanted


class PodObjects:
    """Reads what pods refer to."""

    def __init__(self, meta: MetaClient) -> None:
        self._meta = meta

    async def get(self, kind: str, namespace: str, name: str) -> JsonObject | None:
        """Return a ``configmap`` or ``secret``, or None when the cluster has none of that name.

        Raises:
            RuntimeFailure: It is not known here and the cloud could not be asked.
        """
        ask = self._meta.configmap if kind == "configmap" else self._meta.secret
        return _object(await ask(namespace, name), f'{kind} "{name}"')

    async def of_environment(self, pod: Pod, container: Container) -> dict[Key, JsonObject]:
        """Return what the variables of a container come from, as far as it exists.

        Raises:
            RuntimeFailure: Something is not known here and the cloud could not be asked.
        """
        found: dict[Key, JsonObject] = {}
        for key, _optional in references(container):
            try:
                one = await self.get(key[0], pod.metadata.namespace, key[1])
            except RuntimeFailure as exc:
                raise RuntimeFailure("CreateContainerConfigError", exc.message) from exc
            if one is not None:
                found[key] = one
        return found

    async def claim(self, namespace: str, name: str) -> JsonObject:
        """Return a PersistentVolumeClaim.

        Raises:
            RuntimeFailure: There is none, or it is not known here and the cloud could not be asked.
        """
        what = f'persistentvolumeclaim "{name}"'
        found = _object(await self._meta.persistent_volume_claim(namespace, name), what)
        if found is None:
            raise RuntimeFailure("FailedMount", f"{what} not found")
        return found

    async def volume(self, name: str) -> JsonObject:
        """Return a PersistentVolume.

        Raises:
            RuntimeFailure: There is none, or it is not known here and the cloud could not be asked.
        """
        what = f'persistentvolume "{name}"'
        found = _object(await self._meta.persistent_volume(name), what)
        if found is None:
            raise RuntimeFailure("FailedMount", f"{what} not found")
        return found

    async def attachment(self, name: str) -> JsonObject | None:
        """Return a VolumeAttachment as the cluster has it now, or as it was last known while the cloud is away.

        Raises:
            RuntimeFailure: It is not known here and the cloud could not be asked.
        """
        return _object(await self._meta.volume_attachment(name), f'volumeattachment "{name}"')

    async def csi_driver(self, name: str) -> JsonObject | None:
        """Return a CSIDriver; raises as `attachment`."""
        return _object(await self._meta.csi_driver(name), f'csidriver "{name}"')

    async def runtime_handler(self, name: str) -> str:
        """Return the handler of a RuntimeClass.

        An original cloud does not know the question, and a cloud that was never there has no answer: then the
        class is taken to be called like its handler.

        Raises:
            RuntimeFailure: The cluster has no such class.
        """
        reply = await self._meta.runtime_class(name)
        if isinstance(reply, Ok):
            found = _object(reply, f'runtimeclass "{name}"') or {}
            return str(found.get("handler", ""))
        if reply.status.code == 404:
            raise RuntimeFailure("FailedCreatePodSandBox", f'RuntimeClass "{name}" not found')
        return name

    async def token(self, pod: Pod, audience: str, expiration: int | None, now: float) -> tuple[str, float]:
        """Return a service-account token bound to `pod`, and the time when 80 % of its life has passed.

        Raises:
            RuntimeFailure: There is no token here and the cloud could not be asked, or refused.
        """
        lifetime = expiration or _TOKEN_LIFETIME
        status = await self.token_status(pod, audience, expiration)
        expires = parse_time(status.get("expirationTimestamp")) or now + lifetime
        return str(status["token"]), max(expires - lifetime * 0.2, now + 30)

    async def token_status(self, pod: Pod, audience: str, expiration: int | None) -> JsonObject:
        """Return the ``status`` of a TokenRequest bound to `pod`, with its token; raises as `token`."""
        bound = {"kind": "Pod", "apiVersion": "v1", "name": pod.metadata.name, "uid": pod.uid}
        request: Mapping[str, Any] = {
            "metadata": {},
            "spec": {
                "audiences": [audience] if audience else None,
                "expirationSeconds": expiration or _TOKEN_LIFETIME,
                "boundObjectRef": bound,
            },
            "status": {"token": "", "expirationTimestamp": None},
        }
        account = pod.service_account
        found = _object(
            await self._meta.token(pod.metadata.namespace, account, request, pod.uid),
            f'token of service account "{account}"',
        )
        status = (found or {}).get("status") or {}
        token = status.get("token")
        if not isinstance(token, str) or not token:
            raise RuntimeFailure("FailedMount", f'no token for service account "{account}"')
        found_status: JsonObject = status
        return found_status


def _object(reply: Reply, what: str) -> JsonObject | None:
    if isinstance(reply, Ok):
        try:
            found = msgspec.json.decode(reply.object)
        except MALFORMED as exc:
            raise RuntimeFailure("FailedMount", f"{what} is not JSON") from exc
        if not isinstance(found, dict):
            raise RuntimeFailure("FailedMount", f"{what} is not an object")
        return found
    if reply.status.code == 404:
        return None
    raise RuntimeFailure("FailedMount", f"{what}: {reply.status.message}")
