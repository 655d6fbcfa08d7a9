import base64

import pytest
import yaml

from edgehive.kit.errors import UserError
from edgehive.kube.kubeconfig import KubeConfig, format_kubeconfig, parse_kubeconfig, with_files_read


def document(cluster=None, user=None, **more) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://h:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "ns"}}],
        "current-context": "x",
        **more,
    }


def parse(*args, **kwargs) -> KubeConfig:
    return parse_kubeconfig(yaml.safe_dump(document(*args, **kwargs)), base="/home/me/.kube")


def test_everything_about_cluster_and_user_is_read():
    data = base64.b64encode(b"PEM").decode()
    config = parse(
        {"certificate-authority-data": data, "tls-server-name": "api", "proxy-url": "http://p:1"},
        {
            "client-certificate": "me.crt",
            "client-key": "/keys/me.key",
            "tokenFile": "token",
            "as": "system:admin",
            "as-groups": ["a", "b"],
            "as-user-extra": {"reason": ["test"]},
        },
    )
    assert config.server == "https://h:6443"
    assert (config.namespace, config.ca_pem, config.tls_server_name) == ("ns", b"PEM", "api")
    assert (config.cert_file, config.key_file) == ("/home/me/.kube/me.crt", "/keys/me.key")
    assert config.token_file == "/home/me/.kube/token"
    assert (config.as_user, config.as_groups) == ("system:admin", ("a", "b"))
    assert config.as_extra == (("reason", ("test",)),)
    filled = with_files_read(config, {"/home/me/.kube/me.crt": b"C", "/keys/me.key": b"K"})
    assert (filled.cert_pem, filled.key_pem, filled.ca_pem) == (b"C", b"K", b"PEM")


def test_exec_plugins_are_described_not_run():
    plugin = {
        "command": "bin/login",
        "args": ["--now"],
        "env": [{"name": "A", "value": "b"}],
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "provideClusterInfo": True,
    }
    found = parse(user={"exec": plugin}).exec
    assert found.command == "/home/me/.kube/bin/login"
    assert (found.args, found.env) == (("--now",), (("A", "b"),))
    assert found.provide_cluster_info
    assert found.api_version.endswith("v1beta1")
    assert parse(user={"exec": {"command": "aws"}}).exec.command == "aws"


def test_of_several_files_the_first_wins():
    one = yaml.safe_dump({"kind": "Config", "current-context": "x"})
    two = yaml.safe_dump(document(user={"tokenFile": "t"}))
    config = parse_kubeconfig([(one, "/one"), (two, "/two")])
    assert config.token_file == "/two/t"


def test_a_context_can_be_chosen():
    extra = document()
    extra["contexts"].append({"name": "y", "context": {"cluster": "c"}})
    config = parse_kubeconfig(yaml.safe_dump(extra), context="y")
    assert (config.namespace, config.token) == ("default", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not YAML"),
        ("[]", "not a kubeconfig"),
        ("kind: Pod", "not a kubeconfig"),
        ("kind: Config", "current-context"),
        ("{current-context: x, contexts: [{name: y, context: {}}]}", "no context named x"),
        (
            "{current-context: x, contexts: [{name: x, context: {cluster: c}}], clusters: {}}",
            "must be a list",
        ),
        (yaml.safe_dump(document({"server": "ftp://h"})), "http"),
        (yaml.safe_dump(document({"server": 5})), "must be text"),
        (yaml.safe_dump(document({"certificate-authority-data": "***"})), "base64"),
        (yaml.safe_dump(document(user={"exec": {"args": []}})), "no command"),
        (yaml.safe_dump(document(user={"exec": []})), "must be a mapping"),
    ],
)
def test_what_is_wrong_is_said(text, said):
    with pytest.raises(UserError) as caught:
        parse_kubeconfig(text)
    assert said in str(caught.value)
    assert caught.value.hint


def test_secrets_do_not_show():
    config = KubeConfig(server="https://h", token="s3cret", key_pem=b"s3cret", password="s3cret")
    assert "s3cret" not in repr(config)


def test_what_is_written_reads_back():
    config = KubeConfig(
        server="https://h:1", ca_pem=b"ca", cert_pem=b"crt", key_pem=b"key", token="t", namespace="n"
    )
    assert parse_kubeconfig(format_kubeconfig(config, name="edgehive", user="admin")) == config
    by_file = KubeConfig(server="http://h:1", ca_file="/a/ca", token_file="/a/t", insecure=True)
    assert parse_kubeconfig(format_kubeconfig(by_file, name="x")) == by_file
