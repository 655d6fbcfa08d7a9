"""KubeEdge's own resource definitions that cloudcore cannot work without, created when they are missing."""

import asyncio
import logging
from typing import Final

import msgspec

from edgehive.kit.errors import UserError
from edgehive.kube.api import KubeApi, ListOptions
from edgehive.kube.crd import kubeedge_crds
from edgehive.kube.crd_devices import DEVICE_MODELS, DEVICE_STATUSES, DEVICES, device_crds
from edgehive.kube.crd_policy import SERVICE_ACCOUNT_ACCESSES, policy_crd
from edgehive.kube.refs import CLUSTEROBJECTSYNCS, CRDS, GVR, OBJECTSYNCS
from edgehive.kube.status import ApiStatus

log = logging.getLogger(__name__)

_NEEDED: Final = (OBJECTSYNCS, CLUSTEROBJECTSYNCS)
_DEVICES: Final = (DEVICE_MODELS, DEVICES, DEVICE_STATUSES)
_SERVED_WITHIN = 30.0  # seconds a new definition may take to be served


async def ensure_crds(api: KubeApi, *, install: bool, devices: bool = False, policy: bool = False) -> None:
    """Make sure that both record kinds are served, with `devices` their three kinds, with `policy` its one.

    Raises:
        UserError: they are missing and may not be created.
        Unreachable: the API server is not there.
    """
    manifests = {crd["metadata"]["name"]: crd for crd in (*kubeedge_crds(), *device_crds(), policy_crd())}
    wanted = (*_NEEDED, *(_DEVICES if devices else ()), *((SERVICE_ACCOUNT_ACCESSES,) if policy else ()))
    for gvr in wanted:
        if await _served(api, gvr):
            continue
        hint = "`edgehive manifests | kubectl apply -f -` creates them, or let cloudcore do it"
        if gvr in _DEVICES:
            hint += ", or switch modules.deviceController off"
        if not install:
            raise UserError(f"the cluster does not serve {gvr}, and edgehive.installCrds is false", hint=hint)
        try:
            await api.create(CRDS, msgspec.json.encode(manifests[str(gvr)]))
            log.info("created the resource definition %s", gvr)
        except ApiStatus as exc:
            if exc.reason != "AlreadyExists":
                raise UserError(f"the resource definition {gvr} cannot be created: {exc}", hint=hint) from exc
        await _wait_served(api, gvr)


async def _served(api: KubeApi, gvr: GVR) -> bool:
    try:
        await api.list(gvr, ListOptions(limit=1))
    except ApiStatus as exc:
        if exc.code == 404:
            return False
        if exc.code != 403 or gvr != DEVICE_STATUSES:
            raise
        # KubeEdge's own chart forgets this right; everything else about devices works without it.
        log.warning("what devices report will not be stored: cloudcore's account needs all verbs on %s", gvr)
    return True


async def _wait_served(api: KubeApi, gvr: GVR) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + _SERVED_WITHIN
    while not await _served(api, gvr):
        if loop.time() > until:
            raise UserError(f"the cluster has the definition of {gvr} but does not serve it")
        await asyncio.sleep(0.1)
