"""Mappers survive a restart of edgecore in KubeEdge's rows."""

import contextlib

from edgehive.edge.dmi_link import device_key, model_key
from edgehive.edge.dmi_rows import StoredMappers
from edgehive.edge.store import EdgeStore


def test_the_newest_registration_of_a_name_is_kept(tmp_path):
    with contextlib.closing(EdgeStore(tmp_path / "edgecore.db")) as store:
        rows = StoredMappers(store)
        rows.save_mapper("m", b'{"version":"v1"}')
        rows.save_mapper("m", b'{"version":"v2"}')
        rows.save_mapper("n", b"{}")
    with contextlib.closing(EdgeStore(tmp_path / "edgecore.db")) as store:
        assert sorted(StoredMappers(store).mappers()) == [b'{"version":"v2"}', b"{}"]
        assert store.get("node/nodeID/namespace/devicemapper/m") is not None


def test_what_a_mapper_was_told_is_kept(tmp_path):
    model, device = model_key("default", "m"), device_key("default", "d")
    with contextlib.closing(EdgeStore(tmp_path / "edgecore.db")) as store:
        rows = StoredMappers(store)
        rows.note_told("one", {model: b"1", device: b"2"}, everything=True)
        rows.note_told("one", {device: b"3"}, everything=False)
        rows.note_told("two", {device: b"4"}, everything=True)
    with contextlib.closing(EdgeStore(tmp_path / "edgecore.db")) as store:
        rows = StoredMappers(store)
        assert rows.told("one") == {model: b"1", device: b"3"}
        rows.note_told("one", {device: None}, everything=False)
        assert rows.told("one") == {model: b"1"}
        rows.note_told("one", {device: b"5"}, everything=True)
        assert rows.told("one") == {device: b"5"}
        assert rows.told("two") == {device: b"4"}
