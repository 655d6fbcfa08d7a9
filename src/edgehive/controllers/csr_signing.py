"""Signs what was approved: the signer ``kubernetes.io/kubelet-serving`` of the embedded control plane."""

import base64
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from edgehive.controllers.context import Context
from edgehive.controllers.runtime import Workers
from edgehive.kit.errors import EdgehiveError
from edgehive.kit.malformed import MALFORMED
from edgehive.kit.text import safe_label
from edgehive.kube.api import MERGE_PATCH, WriteOptions
from edgehive.kube.reflector import Change
from edgehive.kube.refs import CSRS

log = logging.getLogger(__name__)

SIGNER: Final = "kubernetes.io/kubelet-serving"

Sign = Callable[[bytes], Awaitable[bytes]]
"""Makes a certificate (PEM) of a request (PEM); raises `EdgehiveError` when it cannot be signed."""


class CsrSigning:
    """Puts certificates into approved requests; a request that cannot be signed is marked ``Failed``."""

    name = "csr-signing"

    def __init__(self, context: Context, sign: Sign) -> None:
        self._context = context
        self._sign = sign
        self._requests = context.informers.full(CSRS)
        self._workers: Workers[str] = Workers(
            name=self.name, reconcile=self._reconcile, counters=context.counters, count=1
        )
        self._requests.subscribe(self._changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._requests.synced()
        await self._workers.run()

    def _changed(self, change: Change) -> None:
        if change.type != "DELETED":
            self._workers.add(change.object.meta.name)

    async def _reconcile(self, name: str) -> None:
        found = self._requests.get("", name)
        if found is None:
            return
        try:
            csr = msgspec.json.decode(found.raw, type=_Csr)
        except MALFORMED:
            return
        decided = {condition.get("type") for condition in csr.status.conditions or ()}
        if csr.spec.signer_name != SIGNER or csr.status.certificate:
            return
        if "Approved" not in decided or decided & {"Denied", "Failed"}:
            return
        try:
            certificate = await self._sign(base64.b64decode(csr.spec.request))
            status: dict[str, Any] = {"certificate": base64.b64encode(certificate).decode()}
        except (EdgehiveError, ValueError) as exc:
            log.warning("the certificate request %s is not signed: %s", name, safe_label(str(exc), 200))
            failed = {
                "type": "Failed",
                "status": "True",
                "reason": "SigningFailed",
                "message": str(exc)[:200],
            }
            status = {"conditions": [*(csr.status.conditions or ()), failed]}
        body = msgspec.json.encode({"status": status})
        await self._context.api.patch(CSRS, name, body, MERGE_PATCH, WriteOptions(subresource="status"))


class _Spec(msgspec.Struct, rename="camel"):
    request: str = ""
    signer_name: str = ""


class _Status(msgspec.Struct):
    certificate: str = ""
    conditions: list[dict[str, Any]] | None = None


class _Csr(msgspec.Struct):
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)
