"""Joining and renewing, with the real child process against a real HTTPS port."""

import asyncio
import datetime
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgehive.aio import pki
from edgehive.edge.config import EdgeHub
from edgehive.edge.csr import run_job
from edgehive.edge.enroll import Enroller, EnrollLater
from edgehive.edge.enroll_der import CertificateUnreadable, der_to_pem, pem_to_der, read_certificate
from edgehive.edge.enroll_job import Job, Outcome, finish_install
from edgehive.kit.errors import UserError

NODE = "edge-1"


def enroller(config: EdgeHub, *, now: Callable[[], float] = time.time, **more: Any) -> Enroller:
    return Enroller(node=NODE, config=config, now=now, rng=lambda: 0.5, **more)


async def in_thread(job: Job) -> Outcome:
    """The child's work without the cost of a process."""
    return await asyncio.to_thread(run_job, job)


async def test_join_in_a_child_process_leaves_private_files(https_cloud: Any) -> None:
    config = https_cloud.config().modules.edge_hub
    identity, used = await enroller(config).ensure(https_cloud.token())
    assert used
    assert identity.facts.common_name == f"system:node:{NODE}"
    assert identity.facts.organization == "system:nodes"
    assert stat.S_IMODE(Path(config.tls_private_key_file).stat().st_mode) == 0o600
    assert Path(config.tls_private_key_file).read_bytes().startswith(b"-----BEGIN EC PRIVATE KEY-----")
    again, used = await enroller(config).ensure("")
    assert not used
    assert again.facts == identity.facts


async def test_wrong_ca_hash_is_refused_before_anything_is_trusted(https_cloud: Any) -> None:
    config = https_cloud.config().modules.edge_hub
    token = "0" * 64 + https_cloud.token()[64:]
    with pytest.raises(UserError, match="does not match the hash"):
        await enroller(config, run_job=in_thread).ensure(token)
    assert not Path(config.tls_ca_file).exists()
    assert https_cloud.issued == 0


async def test_a_wrong_or_old_token_is_refused_with_a_hint(https_cloud: Any) -> None:
    config = https_cloud.config().modules.edge_hub
    for token in (https_cloud.token()[:-4] + "AAAA", https_cloud.token(expires=time.time() - 1)):
        with pytest.raises(UserError, match="keadm gettoken"):
            await enroller(config, run_job=in_thread).ensure(token)
    with pytest.raises(UserError, match="four fields"):
        await enroller(config, run_job=in_thread).ensure("abc")
    assert not Path(config.tls_cert_file).exists()


async def test_no_token_and_no_certificate_says_what_to_do(https_cloud: Any) -> None:
    with pytest.raises(UserError, match="keadm gettoken"):
        await enroller(https_cloud.config().modules.edge_hub).ensure("")


async def test_an_unreachable_cloud_is_tried_again(https_cloud: Any) -> None:
    config = https_cloud.config().modules.edge_hub
    calls: list[Job] = []

    async def second_time(job: Job) -> Outcome:
        calls.append(job)
        if len(calls) == 1:
            return Outcome("nobody there", retry=True)
        return await in_thread(job)

    join = enroller(config, run_job=second_time)
    join.first_retry = 0.01
    _, used = await join.ensure(https_cloud.token())
    assert used
    assert len(calls) == 2


async def test_renewal_shows_the_certificate_and_needs_no_token(https_cloud: Any) -> None:
    config = https_cloud.config()
    https_cloud.install(config, days=1)
    join = enroller(config.modules.edge_hub, run_job=in_thread)
    before = join.current()
    renewed = await join.renew()
    assert before is not None
    assert renewed.facts.not_after > before.facts.not_after


async def test_rotation_happens_within_the_lifetime_and_tells(https_cloud: Any) -> None:
    config = https_cloud.config()
    https_cloud.install(config, days=1)
    identity = enroller(config.modules.edge_hub).current()
    assert identity is not None
    clock = [identity.facts.not_before + 0.79 * (identity.facts.not_after - identity.facts.not_before)]
    installed = asyncio.Event()
    join = enroller(config.modules.edge_hub, now=lambda: clock[0], run_job=in_thread)
    join.longest_sleep = 0.01
    async with asyncio.TaskGroup() as group:
        task = group.create_task(join.run_rotation(identity, installed.set))
        await asyncio.sleep(0.05)
        assert https_cloud.issued == 0
        clock[0] += 0.02 * (identity.facts.not_after - identity.facts.not_before)
        async with asyncio.timeout(10):
            await installed.wait()
        task.cancel()
    assert https_cloud.issued == 1


async def test_a_certificate_of_another_node_is_not_used(https_cloud: Any) -> None:
    config = https_cloud.config()
    https_cloud.install(config, node="victim")
    assert enroller(config.modules.edge_hub).current() is None


async def test_a_key_that_does_not_fit_is_not_used(https_cloud: Any) -> None:
    config = https_cloud.config()
    https_cloud.install(config)
    Path(config.modules.edge_hub.tls_private_key_file).write_bytes(pki.key_pem(pki.new_key()))
    assert enroller(config.modules.edge_hub).current() is None


async def test_a_crash_between_the_two_files_is_completed(https_cloud: Any) -> None:
    config = https_cloud.config()
    https_cloud.install(config)
    hub = config.modules.edge_hub
    cert, key = Path(hub.tls_cert_file), Path(hub.tls_private_key_file)
    old = cert.read_bytes(), key.read_bytes()
    https_cloud.install(config)
    new = cert.read_bytes(), key.read_bytes()
    next_cert, next_key = cert.with_name(cert.name + ".next"), key.with_name(key.name + ".next")
    # before the new certificate is there, nothing changes
    cert.write_bytes(old[0])
    key.write_bytes(old[1])
    next_key.write_bytes(new[1])
    assert enroller(hub).current() is not None
    assert cert.read_bytes() == old[0]
    # after it, both do, whether or not the key was moved already
    for moved in (False, True):
        cert.write_bytes(old[0])
        key.write_bytes(new[1] if moved else old[1])
        next_cert.write_bytes(new[0])
        if not moved:
            next_key.write_bytes(new[1])
        finish_install(cert, key)
        assert (cert.read_bytes(), key.read_bytes()) == new
        assert not next_cert.exists()
        assert enroller(hub).current() is not None


async def test_the_servers_certificate_must_name_its_address(https_cloud: Any) -> None:
    server = f"https://localhost:{https_cloud.https_port}"
    config = https_cloud.config().modules.edge_hub
    job = Job(server, NODE, config.tls_ca_file, "/x", "/x", https_cloud.token())
    outcome = await in_thread(job)
    assert "not acceptable" in outcome.error
    assert not outcome.retry
    assert https_cloud.issued == 0


def test_a_server_that_is_no_url_is_refused() -> None:
    token = f"{'0' * 64}.a.b.c"
    assert "not a URL" in run_job(Job("https://", NODE, "/x", "/x", "/x", token)).error


async def test_a_child_that_dies_is_tried_later(https_cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgehive.edge import enroll

    monkeypatch.setattr(enroll.sys, "executable", "/bin/false")  # type: ignore[attr-defined]
    with pytest.raises(EnrollLater, match="exit 1"):
        await enroll.run_child(Job("https://127.0.0.1:1", NODE, "", "", ""))


def test_facts_are_read_from_pem_and_der() -> None:
    now = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    ca = pki.create_ca("KubeEdge", now)
    pair = pki.issue(
        ca, common_name="system:node:a", organizations=["system:nodes"], now=now, client=True, days=40000
    )
    for data in (pair.cert_pem, pair.cert_der, b"junk before\n" + pair.cert_pem):
        facts = read_certificate(data)
        assert (facts.common_name, facts.organization) == ("system:node:a", "system:nodes")
        assert facts.not_after == pair.certificate.not_valid_after_utc.timestamp()
        assert facts.not_before == pair.certificate.not_valid_before_utc.timestamp()
    assert pem_to_der(der_to_pem(pair.cert_der)) == pair.cert_der


@given(st.binary(max_size=300))
def test_garbage_is_not_a_certificate(data: bytes) -> None:
    with pytest.raises(CertificateUnreadable):
        read_certificate(data)
