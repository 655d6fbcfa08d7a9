"""The pod manager against a scripted runtime: what it does when the runtime, the cloud or a pod misbehaves."""

import asyncio
import base64
import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from edgehive.edge.metaclient import Failed, Ok, Reply
from edgehive.edge.pods_manager import PodManager
from edgehive.edge.pods_settings import NodeFacts, PodSettings
from edgehive.edge.pods_spec import parse_pod
from edgehive.edge.podstatus_writer import StatusWriter
from edgehive.edge.runtime import (
    ContainerInfo,
    ContainerSpec,
    ExecResult,
    ImageInfo,
    PodUsage,
    RuntimeFailure,
    RuntimeVersion,
    SandboxInfo,
    SandboxSpec,
    State,
    Usage,
)
from edgehive.kit.errors import Unreachable
from edgehive.kube.status import ApiStatus
from tests.support.fakemeta import FakeMeta, container, make_pod


class FakeRuntime:
    """A runtime of dicts with switches for everything that may go wrong."""

    def __init__(self) -> None:
        self.sandboxes: dict[str, SandboxInfo] = {}
        self.containers: dict[str, ContainerInfo] = {}
        self.specs: dict[str, ContainerSpec] = {}
        self.images = {"docker.io/library/busybox:1.36"}
        self.calls: list[str] = []
        self.down = False
        self.network = ""
        self.refuse: RuntimeFailure | None = None
        self.pulling: asyncio.Event | None = None
        self.pulls_cancelled = 0
        self.crash: Exception | None = None
        self.stop_forever = False
        self.ids = itertools.count()
        self.usages: dict[str, Usage] = {}
        self.image_list: list[ImageInfo] = []
        self.time = itertools.count(1000)

    @property
    def has_own_files(self) -> bool:
        return False

    def _up(self, call: str) -> None:
        if self.down:
            raise Unreachable("no container runtime")
        self.calls.append(call)

    async def version(self) -> RuntimeVersion:
        self._up("version")
        return RuntimeVersion("fake", "1")

    async def network_problem(self) -> str:
        return self.network

    async def check_pod(self, pod: Mapping[str, object]) -> None:
        if self.crash is not None and pod["metadata"]["name"] == "poison":  # type: ignore[index]
            raise self.crash
        if self.refuse is not None:
            raise self.refuse

    async def run_sandbox(self, spec: SandboxSpec) -> str:
        self._up(f"run_sandbox {spec.name}")
        made = f"s{next(self.ids)}"
        self.sandboxes[made] = SandboxInfo(
            made, True, next(self.time), spec.labels, spec.annotations, "10.1.0.1", spec.attempt
        )
        return made

    async def stop_sandbox(self, sandbox_id: str) -> None:
        self._up("stop_sandbox")
        self.sandboxes[sandbox_id] = replace(self.sandboxes[sandbox_id], ready=False)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        self._up("remove_sandbox")
        del self.sandboxes[sandbox_id]

    async def list_sandboxes(self, pod_uid: str = "") -> Sequence[SandboxInfo]:
        self._up("list")
        return [s for s in self.sandboxes.values() if pod_uid in ("", s.labels["io.kubernetes.pod.uid"])]

    async def sandbox_status(self, sandbox_id: str) -> SandboxInfo:
        return self.sandboxes[sandbox_id]

    async def create_container(self, sandbox_id: str, spec: ContainerSpec, sandbox: SandboxSpec) -> str:
        self._up(f"create {spec.name}")
        made = f"c{next(self.ids)}"
        self.specs[made] = spec
        now = next(self.time)
        self.containers[made] = ContainerInfo(
            made,
            sandbox_id,
            spec.name,
            spec.attempt,
            State.CREATED,
            now,
            now,
            0,
            0,
            "",
            "",
            spec.image,
            "id",
            spec.labels,
            spec.annotations,
        )
        return made

    async def start_container(self, container_id: str) -> None:
        self._up("start")
        self.containers[container_id] = replace(self.containers[container_id], state=State.RUNNING)

    async def stop_container(self, container_id: str, grace: float) -> None:
        self._up(f"stop {grace:g}")
        if self.stop_forever and grace > 0:
            await asyncio.Event().wait()
        self.end(container_id, 143)

    def end(self, container_id: str, code: int) -> None:
        old = self.containers[container_id]
        self.containers[container_id] = replace(
            old, state=State.EXITED, exit_code=code, finished_at=next(self.time)
        )

    async def remove_container(self, container_id: str) -> None:
        self._up("remove")
        del self.containers[container_id]

    async def list_containers(self, pod_uid: str = "") -> Sequence[ContainerInfo]:
        self._up("list")
        return [c for c in self.containers.values() if pod_uid in ("", c.labels["io.kubernetes.pod.uid"])]

    async def container_status(self, container_id: str) -> ContainerInfo:
        return self.containers[container_id]

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
        return ExecResult(0, b"", b"")

    async def image_status(self, image: str) -> ImageInfo | None:
        return ImageInfo(f"id:{image}", [image], [], 1) if image in self.images else None

    async def pull_image(self, image: str, auth: Mapping[str, str] | None = None) -> str:
        self._up(f"pull {image} {auth}")
        if self.pulling is not None:
            try:
                await self.pulling.wait()
            except asyncio.CancelledError:
                self.pulls_cancelled += 1
                raise
        if image not in self.images:
            raise RuntimeFailure("PullImageFailed", "registry says no")
        return f"pulled:{image}"

    async def list_images(self) -> Sequence[ImageInfo]:
        return self.image_list

    async def remove_image(self, image: str) -> None:
        self._up(f"remove image {image}")
        self.image_list = [one for one in self.image_list if one.id != image]

    async def usage(self) -> Mapping[str, Usage]:
        return self.usages

    async def pod_usage(self) -> Mapping[str, PodUsage]:
        return {}

    async def reopen_log(self, container_id: str) -> bool:
        self._up(f"reopen {container_id}")
        return True

    async def events(self) -> AsyncIterator[str]:
        return
        yield ""

    async def close(self) -> None:
        pass


class Site:
    """A manager with its surroundings."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.runtime = FakeRuntime()
        self.meta = FakeMeta()
        self.now = 1_000_000.0
        self.network = "cni"
        self.resync = 60.0
        self.service = ("", "")

    @asynccontextmanager
    async def edged(self, node: str = "edge1") -> AsyncIterator[PodManager]:
        manager = PodManager(
            runtime=self.runtime,
            meta=self.meta,
            node=NodeFacts(node, "10.0.0.1"),
            settings=PodSettings(
                root_directory=self.base / node,
                log_directory=self.base / "logs",
                default_pod_network=self.network,
                relist_seconds=0.02,
                resync_seconds=self.resync,
                service_host=self.service[0],
                service_port=self.service[1],
            ),
            clock=lambda: self.now,
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(manager.run())
            yield manager
            task.cancel()

    def waiting(self, name: str) -> dict[str, Any]:
        statuses = self.meta.status("default", name).get("containerStatuses") or [{}]
        return statuses[0].get("state", {}).get("waiting", {})

    def phase(self, name: str) -> str:
        return str(self.meta.status("default", name).get("phase"))


async def until(what: str, condition: Callable[[], Any]) -> None:
    try:
        async with asyncio.timeout(8):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"not in time: {what}")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def test_a_pod_without_a_network_waits_and_says_why(site: Site) -> None:
    site.runtime.network = "NetworkPluginNotReady: cni plugin not initialized"
    site.meta.put_pod(make_pod("a", container("c", "x")))
    site.meta.put_pod(make_pod("h", container("c", "x"), hostNetwork=True))
    async with site.edged():
        await until("the host network pod runs", lambda: site.phase("h") == "Running")
        await until("the reason", lambda: "cni plugin" in site.waiting("a").get("message", ""))
        assert site.phase("a") == "Pending"
        assert "NetworkNotReady" in site.meta.reasons()


async def test_what_waits_for_the_cloud_is_tried_as_soon_as_it_is_there(site: Site) -> None:
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}
    volumes = [{"name": "token", "projected": {"sources": [token]}}]
    site.meta.connected = False
    site.meta.put_pod(make_pod("a", container("c", "x"), volumes=volumes))
    async with site.edged() as manager:  # whose clock stands still: no pause ends by itself
        await until("it waits", lambda: "FailedMount" in site.meta.reasons())
        site.meta.connect()
        await until("it runs", lambda: site.phase("a") == "Running")
        site.meta.remove_pod("default", "a")
        await until("its volume is unmounted", lambda: not [*manager.pods()])


async def test_the_host_network_can_be_the_default(site: Site) -> None:
    site.runtime.network = "NetworkPluginNotReady: cni plugin not initialized"
    site.network = "host"
    site.meta.put_pod(make_pod("a", container("c", "x")))
    async with site.edged():
        await until("it runs", lambda: site.phase("a") == "Running")


async def test_a_refused_pod_stays_pending_with_its_reason(site: Site) -> None:
    site.runtime.refuse = RuntimeFailure("CommandRequired", "no command")
    site.meta.put_pod(make_pod("a", container("c", "x")))
    async with site.edged():
        await until("the reason", lambda: site.waiting("a").get("reason") == "CommandRequired")
    assert site.phase("a") == "Pending", "a Deployment must not make ever new pods of it"
    assert "CommandRequired" in site.meta.reasons()
    assert "run_sandbox a" not in site.runtime.calls


async def test_deleting_a_pod_gives_up_its_pull(site: Site) -> None:
    site.runtime.pulling = asyncio.Event()
    site.meta.put_pod(make_pod("a", container("c", "x", image="slow:1")))
    async with site.edged():
        await until("it pulls", lambda: any("pull slow:1" in call for call in site.runtime.calls))
        site.meta.mark_deleted("default", "a")
        await until("the final delete", lambda: site.meta.deleted == ["uid-a"])
    assert site.runtime.pulls_cancelled == 1
    assert not site.runtime.sandboxes


@pytest.mark.parametrize("together", [False, True], ids=["later", "at once"])
async def test_the_end_of_a_pod_spares_the_next_of_its_name(site: Site, *, together: bool) -> None:
    old = make_pod("a", container("c", "x"), uid="old")
    new = make_pod("a", container("c", "x"), uid="new")
    site.meta.put_pod(old)
    async with site.edged() as manager:
        await until("it runs", lambda: site.phase("a") == "Running")
        site.meta.put_pod(new)
        if not together:
            await until("the next one runs", lambda: site.phase("a") == "Running")
        site.meta.tell_removed(old)  # as a cloudcore says it that was restarted before it knew of the ACK
        await until("the old one is gone", lambda: [pod.uid for pod, _ in manager.pods()] == ["new"])
        await until("the next one runs", lambda: site.phase("a") == "Running")
        site.meta.put_pod(make_pod("b", container("c", "x")))
        await until("all was taken in", lambda: site.phase("b") == "Running")
        left = {c.labels["io.kubernetes.pod.uid"] for c in site.runtime.containers.values()}
        assert left == {"new", "uid-b"}
        site.meta.remove_pod("default", "a")
        await until("the end of its own", lambda: [pod.uid for pod, _ in manager.pods()] == ["uid-b"])


async def test_what_waits_to_be_said_of_a_pod_is_forgotten_with_it(site: Site) -> None:
    """It would come after what is said of the next pod of its name, and take the place of that in the outbox."""
    gate, patch = asyncio.Event(), site.meta.patch_pod_status
    said: list[tuple[str, str]] = []

    async def slow(namespace: str, name: str, uid: str, status_patch: bytes) -> Reply:
        said.append((uid, msgspec.json.decode(status_patch)["status"]["phase"]))
        if uid == "old":
            await gate.wait()
        return await patch(namespace, name, uid, status_patch)

    site.meta.patch_pod_status = slow  # type: ignore[method-assign]
    site.runtime.stop_forever = True
    site.meta.put_pod(make_pod("a", container("c", "x"), uid="old"))
    async with site.edged() as manager:
        await until("something is said", lambda: said)
        await until("it runs", lambda: any(s.get("phase") == "Running" for _, s in manager.pods()))
        site.meta.put_pod(make_pod("a", container("c", "x"), uid="new"))
        await until("the next one runs", lambda: site.phase("a") == "Running")
        gate.set()
        site.meta.put_pod(make_pod("b", container("c", "x")))
        await until("another one runs", lambda: site.phase("b") == "Running")
    assert [uid for uid, _ in said].count("old") == 1


async def test_a_removal_that_does_not_say_of_which_pod_is_for_the_name(site: Site) -> None:
    site.meta.put_pod(make_pod("a", container("c", "x")))
    async with site.edged() as manager:
        await until("it runs", lambda: site.phase("a") == "Running")
        del site.meta.rows["default", "a"]
        site.meta.tell_removed({"metadata": {"namespace": "default", "name": "a"}})
        await until("it is gone", lambda: not [*manager.pods()])


async def test_a_shorter_grace_takes_effect_while_stopping(site: Site) -> None:
    site.runtime.stop_forever = True
    site.meta.put_pod(make_pod("a", container("c", "x")))
    async with site.edged():
        await until("it runs", lambda: site.phase("a") == "Running")
        site.meta.mark_deleted("default", "a", grace=3600)
        await until("it stops", lambda: "stop 3600" in site.runtime.calls)
        site.meta.mark_deleted("default", "a", grace=0)
        await until("the final delete", lambda: site.meta.deleted == ["uid-a"])
    assert "stop 0" in site.runtime.calls


async def test_a_runtime_that_is_away_changes_nothing(site: Site) -> None:
    site.runtime.down = True
    site.meta.put_pod(make_pod("a", container("c", "x")))
    async with site.edged() as manager:
        await asyncio.sleep(0.05)
        assert not manager.ready
        site.runtime.down = False
        await until("it runs", lambda: site.phase("a") == "Running")
        patches = len(site.meta.patches)
        site.runtime.down = True
        await asyncio.sleep(0.1)
        assert len(site.meta.patches) == patches
        site.runtime.down = False
        site.runtime.end(next(iter(site.runtime.containers)), 1)
        await until("it is restarted", lambda: len(site.runtime.containers) == 2)


async def test_a_fault_in_one_pod_does_not_end_the_others(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.runtime.crash = ZeroDivisionError("a bug")
    site.meta.put_pod(make_pod("poison", container("c", "x")))
    site.meta.put_pod(make_pod("fine", container("c", "x")))
    async with site.edged():
        await until("the other runs", lambda: site.phase("fine") == "Running")
        assert "starting over" in caplog.text
        site.runtime.crash = None
        await until("and the first one too", lambda: site.phase("poison") == "Running")


async def test_rows_that_are_not_pods_or_not_ours_are_passed_over(site: Site) -> None:
    site.meta.rows["default", "junk"] = {"metadata": {"name": "junk", "namespace": "default", "uid": "../x"}}
    other = make_pod("other", container("c", "x"), nodeName="edge2")
    site.meta.rows["default", "other"] = other
    mirror = make_pod("mirror", container("c", "x"))
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    site.meta.rows["default", "mirror"] = mirror
    site.meta.put_pod(make_pod("a", container("c", "x")))
    async with site.edged() as manager:
        await until("it runs", lambda: site.phase("a") == "Running")
        assert [pod.metadata.name for pod, _ in manager.pods()] == ["a"]


async def test_a_pod_made_anew_under_its_name_replaces_the_old_one(site: Site) -> None:
    site.meta.put_pod(make_pod("a", container("c", "x"), uid="one"))
    async with site.edged() as manager:
        await until("it runs", lambda: site.phase("a") == "Running")
        site.meta.put_pod(make_pod("a", container("c", "x"), uid="two"))
        await until("the new one runs", lambda: site.phase("a") == "Running")
        await until("the old one is gone", lambda: [p.uid for p, _ in manager.pods()] == ["two"])
    assert {s.labels["io.kubernetes.pod.uid"] for s in site.runtime.sandboxes.values()} == {"two"}
    assert site.meta.deleted == [], "nobody asks to delete what the cluster has removed"


async def test_two_nodes_on_one_runtime_leave_each_other_alone(site: Site) -> None:
    site.meta.put_pod(make_pod("a", container("c", "x")))
    async with site.edged():
        await until("it runs", lambda: site.phase("a") == "Running")
        other = Site(site.base)
        other.runtime = site.runtime
        other.meta.put_pod(make_pod("b", container("c", "x"), nodeName="edge2"))
        async with other.edged("edge2"):
            await until("the other runs", lambda: other.phase("b") == "Running")
            calls = len(site.runtime.calls)
            await until("both have relisted", lambda: len(site.runtime.calls) > calls + 12)
        assert len(site.runtime.containers) == 2


async def test_an_empty_database_is_believed_once_the_cloud_has_been_there_for_a_while(site: Site) -> None:
    site.meta.put_pod(make_pod("a", container("c", "x")))
    async with site.edged():
        await until("it runs", lambda: site.phase("a") == "Running")
    site.meta.rows.clear()
    site.meta.connected = False
    async with site.edged():
        calls = len(site.runtime.calls)
        await until("it has relisted", lambda: len(site.runtime.calls) > calls + 10)
        assert site.runtime.containers
        site.meta.connected = True
        calls = len(site.runtime.calls)
        await until("it has relisted", lambda: len(site.runtime.calls) > calls + 10)
        assert site.runtime.containers
        site.now += 61
        await until("it is ended", lambda: not site.runtime.sandboxes)


async def test_pods_that_come_back_one_by_one_into_an_empty_database_run_on(site: Site) -> None:
    pods = {name: make_pod(name, container("c", "x")) for name in ("a", "b")}
    for pod in pods.values():
        site.meta.put_pod(pod)
    async with site.edged():
        await until("they run", lambda: [site.phase(name) for name in "ab"] == ["Running"] * 2)
    before = set(site.runtime.containers)
    site.meta.rows.clear()
    async with site.edged() as manager:
        await until("the database was read", lambda: manager.ready)
        site.meta.put_pod(pods["a"])
        await until("the first is back", lambda: [pod.uid for pod, _ in manager.pods()] == ["uid-a"])
        calls = len(site.runtime.calls)
        await until("it has relisted", lambda: len(site.runtime.calls) > calls + 10)
        site.meta.put_pod(pods["b"])
        await until("so is the second", lambda: {pod.uid for pod, _ in manager.pods()} == {"uid-a", "uid-b"})
        calls = len(site.runtime.calls)
        await until("it has relisted", lambda: len(site.runtime.calls) > calls + 10)
        assert set(site.runtime.containers) == before


async def test_pull_policies_and_credentials(site: Site) -> None:
    auths = b'{"auths":{"reg.example":{"username":"u","password":"p"}}}'
    site.meta.put_object(
        "secret", "default", "pull", data={".dockerconfigjson": base64.b64encode(auths).decode()}
    )
    never = container("c", "x", image="absent:1", imagePullPolicy="Never")
    private = container("c", "x", image="reg.example/app:1")
    site.runtime.images.add("old:latest")
    always = container("c", "x", image="old:latest", imagePullPolicy="Always")
    site.meta.put_pod(make_pod("never", never))
    for number, image in enumerate(
        ("a/UPPER:1", "a//b", "x:", "x@sha256:00", "x y", "a:b:c", "-x", "r:5000:6/x")
    ):
        site.meta.put_pod(make_pod(f"odd{number}", container("c", "x", image=image)))
    site.meta.put_pod(make_pod("private", private, imagePullSecrets=[{"name": "pull"}]))
    site.meta.put_pod(make_pod("always", always))
    async with site.edged():
        await until("never", lambda: site.waiting("never").get("reason") == "ErrImageNeverPull")
        await until("private", lambda: site.waiting("private").get("reason") == "ErrImagePull")
        await until("always", lambda: site.phase("always") == "Running")
        for number in range(8):
            await until("odd", lambda n=number: site.waiting(f"odd{n}").get("reason") == "InvalidImageName")
    pulls = [call for call in site.runtime.calls if call.startswith("pull")]
    assert "'username': 'u', 'password': 'p'" in next(call for call in pulls if "reg.example" in call)
    assert next(iter(s.image for s in site.runtime.specs.values() if s.image.endswith("old:latest"))) == (
        "pulled:old:latest"
    )


async def test_an_image_that_is_there_is_used_while_the_node_is_offline(site: Site) -> None:
    site.meta.connected = False
    site.runtime.images.add("here:latest")
    site.meta.put_pod(make_pod("a", container("c", "x", image="here:latest", imagePullPolicy="Always")))

    async def fail(image: str, auth: Any = None) -> str:
        raise RuntimeFailure("PullImageFailed", "no route to host")

    site.runtime.pull_image = fail  # type: ignore[method-assign]
    async with site.edged():
        await until("it runs", lambda: site.phase("a") == "Running")
    assert "PulledOffline" in site.meta.reasons()


class SlowMeta(FakeMeta):
    """Answers when told to, with what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.answer: Reply = Ok(b"{}")

    async def patch_pod_status(self, namespace: str, name: str, uid: str, status_patch: bytes) -> Reply:
        await self.gate.wait()
        self.patches.append(msgspec.json.decode(status_patch))
        return self.answer


async def test_only_the_newest_status_is_sent_and_the_delete_comes_after_it() -> None:
    meta = SlowMeta()
    pod = parse_pod(msgspec.json.encode(make_pod("a", container("c", "x"))))
    writer = StatusWriter(meta=meta, on_answer=lambda raw: None)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(writer.run())
        for number in range(50):
            writer.put(pod, {"phase": f"p{number}", "conditions": []})
            await asyncio.sleep(0)
        writer.delete(pod)
        meta.gate.set()
        await until("the delete", lambda: meta.deleted == ["uid-a"])
        sent = [patch["status"]["phase"] for patch in meta.patches]
        assert sent[-1] == "p49"
        assert len(sent) <= 2
        meta.answer = Failed(ApiStatus(404, "NotFound", "gone"))
        writer.put(pod, {"phase": "p49", "conditions": []})
        writer.put(pod, {"phase": "last", "conditions": []})
        await until("the next", lambda: meta.patches[-1]["status"]["phase"] == "last")
        assert len(meta.patches) == len(sent) + 1, "an unchanged status is not sent again"
        writer.forget("uid-a")
        task.cancel()


async def test_a_patch_that_was_never_sent_is_made_up_for() -> None:
    """Without a cloud only the newest patch is kept: it undoes what the ones before should have undone."""
    meta = FakeMeta()
    body = make_pod("a", container("c", "x"))
    body["status"] |= {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "Ready", "reason": "Old"}]}
    meta.put_pod(body)
    pod = parse_pod(msgspec.json.encode(body))
    writer = StatusWriter(meta=meta, on_answer=lambda raw: None)
    ready = [{"type": "Ready", "status": "True"}]

    async def report(ip: str) -> list[dict[str, Any]]:
        writer.put(pod, {"phase": "Running", "podIPs": [{"ip": ip}], "conditions": ready})
        await until(
            "it is sent", lambda: meta.patches and meta.patches[-1]["status"]["podIPs"][0]["ip"] == ip
        )
        addresses: list[dict[str, Any]] = meta.patches[-1]["status"]["podIPs"]
        return addresses

    async with asyncio.TaskGroup() as group:
        task = group.create_task(writer.run())
        meta.connected = False
        await report("10.0.0.2")
        gone = [{"$patch": "delete", "ip": f"10.0.0.{number}"} for number in (1, 2)]
        assert await report("10.0.0.3") == [{"ip": "10.0.0.3"}, *gone]
        assert meta.patches[-1]["status"]["conditions"] == [ready[0] | {"reason": None}]
        meta.connected = True
        await report("10.0.0.4")
        await asyncio.sleep(0)
        assert await report("10.0.0.5") == [{"ip": "10.0.0.5"}, gone[0] | {"ip": "10.0.0.4"}], "all is known"
        task.cancel()
