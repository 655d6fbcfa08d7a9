"""cloudcore.yaml: KubeEdge's keys and defaults, and refusals that say where and what."""

from pathlib import Path

import pytest
import yaml

from edgehive.cloud.config import CloudCoreConfig
from edgehive.cloud.config_load import default_config_yaml, load_config, min_config_yaml, parse_config
from edgehive.kit.errors import UserError


def test_the_printed_defaults_are_the_defaults_and_kubeedges_spelling() -> None:
    printed = yaml.safe_load(default_config_yaml())
    loaded = parse_config(default_config_yaml())
    assert loaded.warnings == ()
    assert loaded.config == parse_config("").config
    hub = printed["modules"]["cloudHub"]
    assert hub["tlsCAFile"] == "/etc/kubeedge/ca/rootCA.crt"
    assert (hub["nodeLimit"], hub["keepaliveInterval"], hub["websocket"]["port"]) == (500, 30, 10000)
    load = printed["modules"]["edgeController"]["load"]
    assert {"UpdateRuleStatusWorkers", "ServiceAccountTokenWorkers", "CreatePodWorks"} <= set(load)
    assert printed["kubeAPIConfig"]["qps"] == 2500


def test_the_minimal_configuration_loads_as_it_is() -> None:
    loaded = parse_config(min_config_yaml())
    assert loaded.warnings == ()
    assert loaded.config.modules.cloud_hub.node_limit == 1000


def test_an_address_to_advertise_is_found() -> None:
    assert CloudCoreConfig().modules.cloud_hub.advertise_address == ()
    assert len(parse_config("").config.modules.cloud_hub.advertise_address) == 1


def test_unknown_keys_are_named_with_what_was_meant_and_do_no_harm() -> None:
    loaded = parse_config("modules: {cloudHub: {nodeLimt: 3, zzz: 1}, newModule: {a: 1}}")
    assert loaded.warnings == (
        "unknown key modules.cloudHub.nodeLimt is ignored; did you mean modules.cloudHub.nodeLimit?",
        "unknown key modules.cloudHub.zzz is ignored",
        "unknown key modules.newModule is ignored",
    )
    assert loaded.config.modules.cloud_hub.node_limit == 500


def test_letter_case_and_nulls_are_read_as_go_reads_them() -> None:
    config = parse_config("modules: {CloudHub: {NODELIMIT: 7, https: null}}").config
    assert config.modules.cloud_hub.node_limit == 7
    assert config.modules.cloud_hub.https.port == 10002


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("modules: {cloudHub: {nodeLimit: many}}", "modules.cloudHub.nodeLimit: expected `int`, got `str`"),
        ("modules: {cloudHub: {websocket: {port: 70000}}}", "modules.cloudHub.websocket.port"),
        ("modules: {cloudHub: {websocket: {address: host}}}", "modules.cloudHub.websocket.address"),
        ("modules: {cloudHub: {advertiseAddress: [host]}}", "modules.cloudHub.advertiseAddress"),
        ("modules: {cloudHub: {advertiseAddress: 10.0.0.1}}", "modules.cloudHub.advertiseAddress"),
        ("modules: {cloudHub: {tokenRefreshDuration: 0}}", "modules.cloudHub.tokenRefreshDuration"),
        ("modules: {cloudHub: {unixsocket: {address: /a}}}", "modules.cloudHub.unixsocket.address"),
        ("modules: {cloudHub: {quic: {enable: true}}}", "modules.cloudHub.quic.enable"),
        ("modules: {cloudHub: []}", "modules.cloudHub"),
        ("modules: {edgeController: {nodeUpdateFrequency: 0}}", "modules.edgeController.nodeUpdateFrequency"),
        ("modules: {iptablesManager: {mode: other}}", "modules.iptablesManager.mode"),
        (
            "modules: {cloudStream: {enable: true, tlsStreamCAFile: /nowhere}}",
            "modules.cloudStream.tlsStreamCAFile",
        ),
        ("commonConfig: {monitorServer: {bindAddress: nine}}", "commonConfig.monitorServer.bindAddress"),
        ("kubeAPIConfig: {kubeConfig: relative}", "kubeAPIConfig.kubeConfig"),
        ("kubeAPIConfig: {kubeConfig: /nowhere/at/all}", "kubeAPIConfig.kubeConfig"),
        ("featureGates: {unheardOf: true}", "featureGates"),
        ("edgehive: {delivery: {window: 0}}", "edgehive.delivery.window"),
        ("kind: EdgeCore", "kind"),
        ("[1, 2]", "must be a mapping"),
        ("modules: [", "is not valid YAML"),
    ],
)
def test_what_is_wrong_is_refused_with_its_key(text: str, where: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_config(text, origin="FILE")
    assert where in caught.value.message
    assert caught.value.message.startswith("FILE")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "none.yaml")
    assert "cloudcore --minconfig" in caught.value.hint
