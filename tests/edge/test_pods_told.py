"""What edged is told of its pods: whatever comes in whatever order, it runs what the database has."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from edgehive.edge.metaclient import Change, PodChange
from edgehive.edge.metarows import pod_change
from edgehive.edge.pods_told import PodInbox
from edgehive.wire import classify as cls
from edgehive.wire.message import DELETE, UPDATE, Message
from edgehive.wire.rows import Forward, Put, Row, plan_incoming


def pod(name: str, uid: str, version: int = 1, node: str = "edge") -> bytes:
    meta = {"name": name, "namespace": "default", "uid": uid, "resourceVersion": str(version)}
    return json.dumps({"metadata": meta, "spec": {"nodeName": node}}).encode()


def told(kind: Change, name: str, raw: bytes | None) -> PodChange:
    return PodChange(kind, "default", name, raw)


def message(operation: str, name: str, content: bytes) -> Message:
    return Message("m", 1, operation, f"default/pod/{name}", content, source=cls.EDGE_CONTROLLER)


class Node:
    """The database, and what runs by what was told."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.inbox = PodInbox()
        self.running: dict[str, str] = {}

    def receive(self, message: Message) -> None:
        stored = self.rows.get(message.resource)
        plan = plan_incoming(message, stored)
        for change in plan.changes:
            if isinstance(change, Put):
                self.rows[change.row.key] = change.row
            else:
                self.rows.pop(change.key, None)
        if plan.forward is Forward.EDGED and (said := pod_change(message, stored, "edge")) is not None:
            self.inbox.put(said)

    def take(self) -> None:
        if self.inbox.take_set():
            self.running = self.desired()
        for one in self.inbox.take():
            self.running = {u: k for u, k in self.running.items() if not one.ends(k, u)}
            if not one.removed:
                self.running[one.uid] = one.key

    def desired(self) -> dict[str, str]:
        metas = [json.loads(row.value)["metadata"] for row in self.rows.values()]
        return {meta["uid"]: f"default/{meta['name']}" for meta in metas}


steps = st.lists(
    st.one_of(
        st.tuples(st.just(UPDATE), st.sampled_from("ab"), st.integers(1, 9)),
        st.tuples(st.just(DELETE), st.sampled_from("ab"), st.integers(0, 9)),
        st.sampled_from(["take", "set"]),
    ),
    max_size=12,
)


@example([(UPDATE, "b", 1), (UPDATE, "b", 3), (DELETE, "b", 0), "take"])
@example([(UPDATE, "b", 1), "take", (UPDATE, "b", 3), (DELETE, "b", 3), "take"])
@example([(UPDATE, "b", 1), "take", (UPDATE, "b", 3), (DELETE, "b", 3), (UPDATE, "b", 6), (DELETE, "b", 3)])
@given(steps)
def test_what_runs_is_what_the_database_has(steps: list[tuple[str, str, int] | str]) -> None:
    node = Node()
    for step in steps:
        match step:
            case "take":
                node.take()
                assert node.running == node.desired()
            case "set":
                node.inbox.put(PodChange(Change.SET))
            case (operation, name, version):
                uid = f"{name}{version // 3}" if version else ""  # three versions of each pod of a name
                node.receive(message(str(operation), str(name), pod(str(name), uid, int(version))))
    node.take()
    assert node.running == node.desired()


def test_a_removal_ends_the_pod_it_is_about() -> None:
    inbox = PodInbox()
    inbox.put(told(Change.REMOVE, "a", pod("a", "old")))
    inbox.put(told(Change.REMOVE, "b", b'{"metadata":{}}'))
    inbox.put(told(Change.REMOVE, "c", b"what?"))
    a, b, c = inbox.take()
    assert a.ends("default/a", "old")
    assert not a.ends("default/a", "new")
    assert not a.ends("default/b", "old")
    assert b.ends("default/b", "any")
    assert c.ends("default/c", "any")


def test_a_new_pod_ends_those_that_had_its_name() -> None:
    inbox = PodInbox()
    inbox.put(told(Change.UPDATE, "a", pod("a", "new")))
    inbox.put(told(Change.UPDATE, "b", b"what?"))
    new, unreadable = inbox.take()
    assert new.ends("default/a", "old")
    assert not new.ends("default/a", "new")
    assert not unreadable.ends("default/b", "old")


def test_the_newest_change_of_each_pod_waits() -> None:
    inbox = PodInbox()
    inbox.put(told(Change.UPDATE, "a", pod("a", "old", 1)))
    inbox.put(told(Change.UPDATE, "a", pod("a", "new", 3)))
    inbox.put(told(Change.UPDATE, "a", pod("a", "old", 2)))
    assert [one.change.raw for one in inbox.take()] == [pod("a", "new", 3), pod("a", "old", 2)]
    inbox.put(told(Change.UPDATE, "a", pod("a", "new", 4)))
    inbox.put(PodChange(Change.SET))
    assert not [*inbox.take()]
    assert inbox.take_set()
    assert not inbox.take_set()
