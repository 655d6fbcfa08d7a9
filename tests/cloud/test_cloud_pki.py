"""Keys and token: shared through Secrets, kept when they will do, made anew when they will not."""

import asyncio
import base64
import datetime
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509

from edgehive.aio import pki
from edgehive.cloud.pki import CloudPki, TokenKeeper
from edgehive.cloud.secrets import SecretStore
from edgehive.kit.errors import UserError
from edgehive.kube.refs import NAMESPACES, SECRETS
from edgehive.kube.status import ApiStatus
from edgehive.wire.token import check_authorization, check_ca, parse_token, token_expiry

YEAR = 365 * 86400


def keys(api: Any, hub: Any, now: float = 0.0) -> CloudPki:
    return CloudPki(secrets=SecretStore(api=api), hub=hub, wall=lambda: now or time.time())


def hub_config(lab: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(lab.make_config().modules.cloud_hub, **changes)


def names(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return list(found.get_values_for_type(x509.DNSName)), [
        str(a) for a in found.get_values_for_type(x509.IPAddress)
    ]


async def test_keys_are_made_once_with_kubeedges_profiles(lab: Any, api: Any) -> None:
    first = await keys(api, hub_config(lab)).load()
    again = await keys(api, hub_config(lab)).load()
    assert (again.ca.cert_der, again.server.cert_der) == (first.ca.cert_der, first.server.cert_der)
    assert api.find(NAMESPACES, "", "kubeedge") is not None
    assert first.ca.certificate.serial_number == 1024
    assert pki.subject_of(first.ca.certificate) == ("KubeEdge", ())
    assert pki.subject_of(first.server.certificate) == ("KubeEdge", ("KubeEdge",))
    data = api.find(SECRETS, "kubeedge", "casecret")["data"]
    assert base64.b64decode(data["cadata"]) == first.ca.cert_der
    assert base64.b64decode(data["cakeydata"]) == first.ca.key_der


async def test_instances_that_start_together_agree_on_one_ca(lab: Any, api: Any) -> None:
    async with asyncio.TaskGroup() as group:
        starts = [group.create_task(keys(api, hub_config(lab)).load()) for _ in range(5)]
    assert len({s.result().ca.cert_der for s in starts}) == 1
    assert len({s.result().server.cert_der for s in starts}) == 1


async def test_a_certificate_that_lacks_an_address_is_issued_anew_and_keeps_the_others(
    lab: Any, api: Any
) -> None:
    await keys(api, hub_config(lab, advertise_address=("10.0.0.1",))).load()
    moved = await keys(
        api, hub_config(lab, advertise_address=("10.0.0.2", "::1"), dns_names=("cloud",))
    ).load()
    assert names(moved.server.certificate) == (["cloud"], ["10.0.0.1", "10.0.0.2", "::1"])
    back = await keys(api, hub_config(lab, advertise_address=("10.0.0.1",))).load()
    assert back.server.cert_der == moved.server.cert_der


async def test_a_certificate_about_to_expire_is_issued_anew(lab: Any, api: Any) -> None:
    first = await keys(api, hub_config(lab)).load()
    later = await keys(api, hub_config(lab), now=time.time() + 99.9 * YEAR).load()
    assert later.server.cert_der != first.server.cert_der


async def test_local_files_win_and_are_put_into_the_secret(lab: Any, api: Any, tmp_path: Path) -> None:
    own = pki.create_ca("Mine", datetime.datetime.now(datetime.UTC))
    (tmp_path / "ca.crt").write_bytes(own.cert_pem)
    (tmp_path / "ca.key").write_bytes(own.key_pem)
    await keys(api, hub_config(lab, tls_ca_file="", tls_ca_key_file="")).load()
    loaded = await keys(api, hub_config(lab)).load()
    assert loaded.ca.cert_der == own.cert_der
    assert base64.b64decode(api.find(SECRETS, "kubeedge", "casecret")["data"]["cadata"]) == own.cert_der
    loaded.server.certificate.verify_directly_issued_by(own.certificate)


async def test_one_file_of_two_or_a_broken_secret_is_refused(lab: Any, api: Any, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(b"x")
    with pytest.raises(UserError, match="tlsCAFile and tlsCAKeyFile belong together"):
        await keys(api, hub_config(lab)).load()
    (tmp_path / "ca.crt").unlink()
    api.put(SECRETS, {"metadata": {"name": "casecret", "namespace": "kubeedge"}, "data": {"cadata": "AAAA"}})
    with pytest.raises(UserError, match="kubeedge/casecret is unusable"):
        await keys(api, hub_config(lab)).load()


async def test_the_token_fits_the_ca_and_its_refresh_survives_failures(lab: Any, api: Any) -> None:
    made = await keys(api, hub_config(lab)).load()
    failures = iter([ApiStatus(500, "InternalError", "no"), ApiStatus(503, "ServiceUnavailable", "no")])
    api.fail = lambda verb, gvr, name: next(failures, None) if name == "tokensecret" else None
    keeper = TokenKeeper(
        secrets=SecretStore(api=api), ca=made.ca, refresh_hours=12, wall=lambda: 1_000_000.0, rng=lambda: 0.0
    )
    task = asyncio.get_running_loop().create_task(keeper.run())
    await api.until(lambda: api.find(SECRETS, "kubeedge", "tokensecret") is not None, timeout=10)
    task.cancel()
    await asyncio.wait([task])
    text = base64.b64decode(api.find(SECRETS, "kubeedge", "tokensecret")["data"]["tokendata"]).decode()
    token = parse_token(text)
    check_ca(token, made.ca.cert_der)
    check_authorization(f"Bearer {token.jwt}", ca_key_der=made.ca.key_der, now=1_000_000.0)
    assert token_expiry(text) == 1_000_000 + 86400
