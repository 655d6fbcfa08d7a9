"""Mappers survive a restart of edgecore in KubeEdge's rows."""

import contextlib

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
