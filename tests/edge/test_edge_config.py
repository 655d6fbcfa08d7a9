import stat
from pathlib import Path

import msgspec
import pytest

from edgehive.edge.config import EdgeCoreConfig
from edgehive.edge.config_load import (
    default_config_yaml,
    forget_token,
    load_config,
    min_config_yaml,
    parse_config,
    parse_duration,
    read_token,
    split_address,
)
from edgehive.kit.errors import UserError


def test_defaultconfig_loads_back_to_the_defaults() -> None:
    loaded = parse_config(default_config_yaml())
    assert loaded.warnings == ()
    edged = msgspec.structs.replace(loaded.config.modules.edged, hostname_override="")
    modules = msgspec.structs.replace(loaded.config.modules, edged=edged)
    assert msgspec.structs.replace(loaded.config, modules=modules) == EdgeCoreConfig()


def test_minconfig_is_usable_verbatim_with_every_module_on() -> None:
    loaded = parse_config(min_config_yaml())
    assert loaded.warnings == ()
    modules = loaded.config.modules
    assert modules.edge_hub.enable
    assert modules.event_bus.enable
    assert modules.device_twin.enable
    assert modules.edged.enable


def test_file_is_laid_over_the_defaults() -> None:
    config = parse_config("modules: {edgeHub: {heartbeat: 3, websocket: {server: 'cloud:1'}}}").config
    assert config.modules.edge_hub.heartbeat == 3
    assert config.modules.edge_hub.message_burst == 60
    assert config.modules.edge_hub.websocket.server == "cloud:1"
    assert config.modules.edge_hub.websocket.handshake_timeout == 30


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("modules: {edgeHub: {heartbeat: fast}}", "modules.edgeHub.heartbeat"),
        ("modules: {edgeHub: {websocket: [1]}}", "modules.edgeHub.websocket"),
        ("modules: {edgeHub: {heartbeat: 0}}", "modules.edgeHub.heartbeat"),
        ("modules: {edged: {nodeLabels: {a: 1}}}", "modules.edged.nodeLabels"),
        ("modules: {edged: {hostnameOverride: A_b}}", "modules.edged.hostnameOverride"),
        (
            "modules: {edged: {tailoredKubeletConfig: {syncFrequency: soon}}}",
            "modules.edged.tailoredKubeletConfig.syncFrequency",
        ),
        ("modules: {edgeHub: {quic: {enable: true}}}", "modules.edgeHub.quic.enable"),
        ("modules: {edgeHub: {websocket: {server: nowhere}}}", "modules.edgeHub.websocket.server"),
        (
            "modules: {edged: {tailoredKubeletConfig: {containerRuntimeEndpoint: 'tcp://x'}}}",
            "modules.edged.tailoredKubeletConfig.containerRuntimeEndpoint",
        ),
        ("modules: {edged: {defaultPodNetwork: tunnel}}", "modules.edged.defaultPodNetwork"),
        ("modules: {edgeHub: {httpServer: 'http://x'}}", "modules.edgeHub.httpServer"),
        ("database: {driverName: mysql}", "database.driverName"),
        ("kind: CloudCore", "kind"),
    ],
)
def test_wrong_values_are_refused_with_their_key(text: str, path: str) -> None:
    with pytest.raises(UserError, match=path.replace(".", r"\.")):
        parse_config(text, origin="edgecore.yaml")


@pytest.mark.parametrize("text", ["a: b: c", "[1, 2]", "just text", "\x00"])
def test_what_is_not_a_mapping_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_config(text)


def test_unknown_keys_warn_and_name_the_nearest() -> None:
    loaded = parse_config("modules: {edgeHub: {tokn: x}}\nzzz: 1\n")
    assert (
        loaded.warnings[0]
        == "unknown key modules.edgeHub.tokn is ignored; did you mean modules.edgeHub.token?"
    )
    assert loaded.warnings[1] == "unknown key zzz is ignored"


def test_letter_case_of_keys_does_not_matter_and_null_means_default() -> None:
    loaded = parse_config("Modules: {EDGEHUB: {messageqps: 7, heartbeat: null}}")
    assert loaded.warnings == ()
    assert loaded.config.modules.edge_hub.message_qps == 7
    assert loaded.config.modules.edge_hub.heartbeat == 15


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--minconfig"):
        load_config(tmp_path / "none.yaml")


def test_durations() -> None:
    assert parse_duration("1m30s") == 90
    assert parse_duration("100ms") == pytest.approx(0.1)
    assert parse_duration("0") == 0


def test_addresses() -> None:
    assert split_address("cloud:10000") == ("cloud", 10000)
    assert split_address("[::1]:10000") == ("::1", 10000)


def test_the_bootstrap_file_wins_over_the_configured_token(tmp_path: Path) -> None:
    config = parse_config("modules: {edgeHub: {token: from-config}}").config
    assert read_token(config, tmp_path / "none") == "from-config"
    (tmp_path / "boot").write_text(" from-file\n")
    assert read_token(config, tmp_path / "boot") == "from-file"


def test_forgetting_the_token_touches_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "edgecore.yaml"
    text = "# mine\nmodules:\n  edgeHub:\n    token: 'abc.def' # secret\n    heartbeat: 3\n"
    path.write_text(text)
    path.chmod(0o640)
    assert forget_token(path, "abc.def")
    assert path.read_text() == text.replace("'abc.def' # secret", '""')
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_token_in_an_unusual_place_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "edgecore.yaml"
    text = "modules: {edgeHub: {token: abc.def}}\n"
    path.write_text(text)
    assert not forget_token(path, "abc.def")
    assert path.read_text() == text


@pytest.mark.parametrize("role", ["edge", "agent"])
def test_a_role_label_is_a_warning_and_no_panic(role: str) -> None:
    loaded = parse_config(f"modules: {{edged: {{nodeLabels: {{node-role.kubernetes.io/{role}: ''}}}}}}")
    assert list(loaded.warnings) == [
        f"modules.edged.nodeLabels: node-role.kubernetes.io/{role} is set by edgecore itself"
    ]
