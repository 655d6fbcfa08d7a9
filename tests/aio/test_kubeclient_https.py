"""The client and the informer against the real API server, over mutual TLS."""

import asyncio
import datetime
import json
from dataclasses import replace

import pytest

from edgehive.aio.informer import Informer
from edgehive.aio.kubeauth import Credentials
from edgehive.aio.kubeclient import KubeClient
from edgehive.aio.pki import create_ca, issue
from edgehive.apiserver.app import ApiServer, ApiServerOptions
from edgehive.kit.errors import Unreachable
from edgehive.kube.api import APPLY_PATCH, MERGE_PATCH, ListOptions, WriteOptions
from edgehive.kube.kubeconfig import KubeConfig, parse_kubeconfig
from edgehive.kube.refs import CONFIGMAPS, GVR
from edgehive.kube.status import ApiStatus
from edgehive.store.log import MemoryLog

HERE = WriteOptions(namespace="default")
WHO = GVR("authentication.k8s.io", "v1", "selfsubjectreviews")


def configmap(name: str, **data: str) -> bytes:
    obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    return json.dumps(obj).encode()


async def test_certificates_verbs_watches_and_errors(tmp_path):
    server = ApiServer(ApiServerOptions(directory=tmp_path, port=0), log_=MemoryLog())
    await server.start()
    config = parse_kubeconfig(server.kubeconfig())
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        serving = group.create_task(server.run())
        async with KubeClient(config) as client:
            informer = Informer(
                api=client, gvr=CONFIGMAPS, options=ListOptions(namespace="default"), page_size=2
            )
            changes: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
            mirroring = group.create_task(informer.run())
            for number in range(5):
                await client.create(CONFIGMAPS, configmap(f"c{number}", v="1"), HERE)
            await informer.synced()
            informer.subscribe(lambda c: changes.put_nowait((c.type, c.object.meta.name)), replay=False)
            raw = await client.patch(CONFIGMAPS, "c1", b'{"data":{"v":"2"}}', MERGE_PATCH, HERE)
            while (await changes.get())[0] != "MODIFIED":
                pass
            assert informer.get("default", "c1").raw == raw
            apply = WriteOptions(namespace="default", field_manager="me", force=True)
            await client.patch(CONFIGMAPS, "new", configmap("new", v="3"), APPLY_PATCH, apply)
            await client.delete(CONFIGMAPS, "c2", HERE)
            assert (await changes.get())[0] == "ADDED"
            assert await changes.get() == ("DELETED", "c2")
            with pytest.raises(ApiStatus) as caught:
                await client.create(CONFIGMAPS, configmap("c1"), HERE)
            assert caught.value.reason == "AlreadyExists"
            with pytest.raises(ApiStatus) as caught:
                await client.get(CONFIGMAPS, "nope", HERE)
            assert (caught.value.code, caught.value.details["name"]) == (404, "nope")
            version = json.loads(await client.raw("/version"))
            assert version["gitVersion"].startswith("v1.")
            mirroring.cancel()
        async with KubeClient(replace(config, cert_pem=b"", key_pem=b"")) as nobody:
            with pytest.raises(ApiStatus) as caught:
                await nobody.get(CONFIGMAPS, "c1", HERE)
            assert caught.value.code in (401, 403)
        async with KubeClient(replace(config, ca_pem=b"")) as distrustful:
            with pytest.raises(Unreachable):
                await distrustful.create(CONFIGMAPS, configmap("x"), HERE)
        serving.cancel()


async def test_a_client_certificate_that_was_renewed_is_taken(tmp_path, caplog):
    now = datetime.datetime.now(datetime.UTC)
    ca = create_ca("test", now)
    old, other = (issue(ca, common_name=name, organizations=(), now=now) for name in ("old", "other"))
    config = KubeConfig(server="https://127.0.0.1:9", cert_pem=old.cert_pem, key_pem=old.key_pem)
    files = tmp_path / "client.crt", tmp_path / "client.key"
    files[0].write_bytes(config.cert_pem)
    files[1].write_bytes(config.key_pem)
    config = replace(config, cert_file=str(files[0]), key_file=str(files[1]))
    credentials = Credentials(config)
    assert await credentials.authorization(0.0, 0.0) == ""
    assert credentials.client_pair is None, "what it began with"
    files[0].write_bytes(other.cert_pem)
    await credentials.authorization(61.0, 0.0)
    assert credentials.client_pair is None, "half of it"
    assert "keeping the one read before" in caplog.text
    files[1].write_bytes(other.key_pem)
    await credentials.authorization(90.0, 0.0)
    assert credentials.client_pair is None, "not looked at all the time"
    assert credentials.rejected()
    await credentials.authorization(91.0, 0.0)
    assert credentials.client_pair == (other.cert_pem, other.key_pem)
    await credentials.authorization(190.0, 0.0)
    assert credentials.client_pair == (other.cert_pem, other.key_pem)


async def test_a_connection_is_made_anew_with_a_renewed_certificate(tmp_path):
    server = ApiServer(ApiServerOptions(directory=tmp_path / "server", port=0), log_=MemoryLog())
    await server.start()
    config = parse_kubeconfig(server.kubeconfig())
    other = parse_kubeconfig(server.kubeconfig("cloudcore"))
    files = tmp_path / "client.crt", tmp_path / "client.key"
    for path, content in zip(files, (other.cert_pem, other.key_pem), strict=True):
        path.write_bytes(content)  # renewed between the reading of the configuration and the first request
    config = replace(config, cert_file=str(files[0]), key_file=str(files[1]))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        serving = group.create_task(server.run())
        async with KubeClient(config) as client:
            raw = await client.create(
                WHO, b'{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}'
            )
            assert json.loads(raw)["status"]["userInfo"]["username"] == "system:cloudcore"
        serving.cancel()
