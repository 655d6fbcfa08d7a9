import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgehive.kube.builtin import BUILTIN, TYPES
from edgehive.kube.types.defaults import pull_policy
from edgehive.kube.validation import validate

INFOS = {info.kind: info for info in BUILTIN}


def defaulted(kind, obj):
    obj = copy.deepcopy(obj)
    INFOS[kind].schema.apply_defaults(obj)
    return obj


def meta(name="x", namespace="default", **more):
    return {"name": name, **({"namespace": namespace} if namespace else {}), **more}


def pod(**spec):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta(),
        "spec": {"containers": [{"name": "c", "image": "busybox:1"}], **spec},
    }


def deployment(**spec):
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    base = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(), "spec": base | spec}


def problems(kind, obj, old=None):
    obj = defaulted(kind, obj)
    assert not INFOS[kind].schema.prune(obj)
    assert not INFOS[kind].schema.validate(obj)
    return {
        (e.field, e.reason): e.message
        for e in validate(INFOS[kind], obj, old=defaulted(kind, old) if old else None)
    }


def test_every_type_can_be_built_and_every_reference_leads_somewhere():
    for name in TYPES.names():
        shape = TYPES.get(name)
        assert shape.type == "object"
        for field, sub in shape.properties.items():
            assert sub.description, f"{name}.{field} has no description"
            node = sub.items or sub.additional or sub
            assert node.resolve() is not None
            assert set(sub.map_keys) <= set(node.resolve().properties)
            if sub.patch_merge_key:
                assert sub.patch_merge_key in node.resolve().properties, f"{name}.{field}"
        assert shape.description, f"{name} has no description"
        assert set(shape.required) <= set(shape.properties)


def test_pod_defaults():
    spec = defaulted(
        "Pod",
        pod(
            volumes=[
                {"name": "a"},
                {"name": "b", "secret": {"secretName": "s"}},
                {"name": "c", "hostPath": {"path": "/x"}},
                {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
            ],
            serviceAccountName="robot",
        ),
    )["spec"]
    assert {k: v for k, v in spec.items() if k not in ("containers", "volumes")} == {
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "serviceAccount": "robot",
        "serviceAccountName": "robot",
        "terminationGracePeriodSeconds": 30,
    }
    assert spec["containers"] == [
        {
            "name": "c",
            "image": "busybox:1",
            "imagePullPolicy": "IfNotPresent",
            "resources": {},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
        }
    ]
    assert spec["volumes"] == [
        {"name": "a", "emptyDir": {}},
        {"name": "b", "secret": {"secretName": "s", "defaultMode": 420}},
        {"name": "c", "hostPath": {"path": "/x", "type": ""}},
        {
            "name": "d",
            "projected": {
                "defaultMode": 420,
                "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}],
            },
        },
    ]


def test_container_defaults():
    container = {
        "name": "c",
        "image": "x",
        "ports": [{"containerPort": 80}],
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "readinessProbe": {"httpGet": {"port": 80}},
        "livenessProbe": {"grpc": {"port": 80}},
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}},
    }
    got = defaulted("Pod", pod(containers=[container], hostNetwork=True))["spec"]["containers"][0]
    assert got["ports"] == [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]
    assert got["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    numbers = {"failureThreshold": 3, "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1}
    assert got["readinessProbe"] == {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, **numbers}
    assert got["livenessProbe"] == {"grpc": {"port": 80, "service": ""}, **numbers}
    assert got["resources"]["requests"] == {"cpu": "100m", "memory": "1Gi"}
    assert got["imagePullPolicy"] == "Always"


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("busybox:1.36", "IfNotPresent"),
        ("host:5000/a/b", "Always"),
        ("host:5000/a/b:1", "IfNotPresent"),
        ("a@sha256:00", "IfNotPresent"),
    ],
)
def test_image_pull_policy(image, policy):
    assert pull_policy(image) == policy


def test_workload_defaults():
    spec = defaulted("Deployment", deployment())["spec"]
    assert spec["replicas"] == 1
    assert spec["revisionHistoryLimit"] == 10
    assert spec["progressDeadlineSeconds"] == 600
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
    }
    assert defaulted("Deployment", deployment(replicas=0))["spec"]["replicas"] == 0
    daemon = defaulted("DaemonSet", {**deployment(), "kind": "DaemonSet"})["spec"]
    assert daemon["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
    }


def test_service_secret_and_namespace_defaults():
    service = {"metadata": meta(), "spec": {"ports": [{"port": 80}, {"port": 81, "targetPort": "web"}]}}
    spec = defaulted("Service", service)["spec"]
    assert (spec["type"], spec["sessionAffinity"], spec["internalTrafficPolicy"]) == (
        "ClusterIP",
        "None",
        "Cluster",
    )
    assert [p["targetPort"] for p in spec["ports"]] == [80, "web"]
    secret = defaulted("Secret", {"metadata": meta(), "stringData": {"k": "v"}})
    assert secret["data"] == {"k": "dg=="}
    assert secret["type"] == "Opaque"
    assert "stringData" not in secret
    namespace = defaulted("Namespace", {"metadata": meta("prod", "")})
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "prod"}


def test_nulls_among_values_become_zero_as_in_go():
    spec = {"containers": [None, {"name": "c", "args": ["a", None]}], "nodeSelector": {"a": None}}
    obj = defaulted("Pod", {"metadata": {"name": "x"}, "spec": spec})
    assert obj["spec"]["containers"][1]["args"] == ["a", ""]
    assert obj["spec"]["nodeSelector"] == {"a": ""}
    assert obj["spec"]["containers"][0]["resources"] == {}


def test_nulls_mean_absent():
    obj = defaulted(
        "Pod",
        {
            "metadata": {"name": "x", "creationTimestamp": None, "labels": None},
            "spec": {"containers": None, "nodeName": None},
        },
    )
    assert obj["metadata"] == {"name": "x"}
    assert "containers" not in obj["spec"]


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda c: (
            st.lists(c, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "spec",
                        "containers",
                        "metadata",
                        "name",
                        "ports",
                        "template",
                        "volumes",
                        "env",
                        "resources",
                        "limits",
                        "strategy",
                        "rollingUpdate",
                        "status",
                    ]
                ),
                c,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_input_is_checked_without_crashing(value):
    obj = value if isinstance(value, dict) else {"spec": value}
    for kind in ("Pod", "Deployment", "Service", "Secret", "Node", "CustomResourceDefinition"):
        candidate = copy.deepcopy(obj)
        schema = INFOS[kind].schema
        schema.prune(candidate)
        if not schema.validate(candidate):
            schema.apply_defaults(candidate)
            validate(INFOS[kind], candidate)
            again = copy.deepcopy(candidate)
            schema.apply_defaults(again)
            assert again == candidate


def test_sound_objects_pass():
    assert problems("Pod", pod()) == {}
    assert problems("Deployment", deployment()) == {}


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({"containers": []}, "spec.containers", "FieldValueRequired"),
        ({"containers": [{"image": "i"}]}, "spec.containers[0].name", "FieldValueRequired"),
        ({"containers": [{"name": "A", "image": "i"}]}, "spec.containers[0].name", "FieldValueInvalid"),
        (
            {"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]},
            "spec.containers[1].name",
            "FieldValueDuplicate",
        ),
        ({"containers": [{"name": "a"}]}, "spec.containers[0].image", "FieldValueRequired"),
        (
            {"containers": [{"name": "a", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/x"}]}]},
            "spec.containers[0].volumeMounts[0].name",
            "FieldValueNotFound",
        ),
        (
            {"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 70000}]}]},
            "spec.containers[0].ports[0].containerPort",
            "FieldValueInvalid",
        ),
        (
            {"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 7, "protocol": "X"}]}]},
            "spec.containers[0].ports[0].protocol",
            "FieldValueNotSupported",
        ),
        (
            {"containers": [{"name": "a", "image": "i", "env": [{"name": "a=b"}]}]},
            "spec.containers[0].env[0].name",
            "FieldValueInvalid",
        ),
        (
            {"containers": [{"name": "a", "image": "i", "env": [{"name": "E", "valueFrom": {}}]}]},
            "spec.containers[0].env[0].valueFrom",
            "FieldValueInvalid",
        ),
        (
            {"containers": [{"name": "a", "image": "i", "livenessProbe": {}}]},
            "spec.containers[0].livenessProbe",
            "FieldValueRequired",
        ),
        (
            {
                "containers": [
                    {
                        "name": "a",
                        "image": "i",
                        "livenessProbe": {"tcpSocket": {"port": 1}, "successThreshold": 2},
                    }
                ]
            },
            "spec.containers[0].livenessProbe.successThreshold",
            "FieldValueInvalid",
        ),
        (
            {
                "containers": [
                    {
                        "name": "a",
                        "image": "i",
                        "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}},
                    }
                ]
            },
            "spec.containers[0].resources.requests",
            "FieldValueInvalid",
        ),
        (
            {"initContainers": [{"name": "a", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]},
            "spec.initContainers[0].readinessProbe",
            "FieldValueForbidden",
        ),
        ({"restartPolicy": "Sometimes"}, "spec.restartPolicy", "FieldValueNotSupported"),
        ({"dnsPolicy": "None"}, "spec.dnsConfig.nameservers", "FieldValueRequired"),
        (
            {"dnsConfig": {"nameservers": [f"9.9.9.{n}" for n in range(4)]}},
            "spec.dnsConfig.nameservers",
            "FieldValueInvalid",
        ),
        (
            {"dnsConfig": {"nameservers": ["dns.example"]}},
            "spec.dnsConfig.nameservers[0]",
            "FieldValueInvalid",
        ),
        ({"dnsConfig": {"searches": ["a.b"] * 33}}, "spec.dnsConfig.searches", "FieldValueInvalid"),
        ({"securityContext": {"runAsUser": -5}}, "spec.securityContext.runAsUser", "FieldValueInvalid"),
        ({"securityContext": {"fsGroup": 1 << 31}}, "spec.securityContext.fsGroup", "FieldValueInvalid"),
        (
            {"securityContext": {"supplementalGroups": [1, -1]}},
            "spec.securityContext.supplementalGroups[1]",
            "FieldValueInvalid",
        ),
        (
            {"securityContext": {"sysctls": [{"name": "not a name", "value": "1"}]}},
            "spec.securityContext.sysctls[0].name",
            "FieldValueInvalid",
        ),
        (
            {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}] * 2}},
            "spec.securityContext.sysctls[1].name",
            "FieldValueDuplicate",
        ),
        (
            {"containers": [{"name": "a", "image": "i", "securityContext": {"runAsGroup": -1}}]},
            "spec.containers[0].securityContext.runAsGroup",
            "FieldValueInvalid",
        ),
        (
            {
                "containers": [
                    {
                        "name": "a",
                        "image": "i",
                        "securityContext": {"privileged": True, "allowPrivilegeEscalation": False},
                    }
                ]
            },
            "spec.containers[0].securityContext",
            "FieldValueInvalid",
        ),
        (
            {
                "hostNetwork": True,
                "containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80, "hostPort": 81}]}],
            },
            "spec.containers[0].ports[0].containerPort",
            "FieldValueInvalid",
        ),
        (
            {"volumes": [{"name": "v", "configMap": {"name": "x"}, "secret": {"secretName": "s"}}]},
            "spec.volumes[0].secret",
            "FieldValueForbidden",
        ),
        ({"volumes": [{"name": "v"}, {"name": "v"}]}, "spec.volumes[1].name", "FieldValueDuplicate"),
        (
            {
                "volumes": [
                    {"name": "v", "secret": {"secretName": "s", "items": [{"key": "k", "path": "../x"}]}}
                ]
            },
            "spec.volumes[0].secret.items[0].path",
            "FieldValueInvalid",
        ),
        (
            {"volumes": [{"name": "v", "hostPath": {"path": "/x", "type": "Odd"}}]},
            "spec.volumes[0].hostPath.type",
            "FieldValueNotSupported",
        ),
        ({"tolerations": [{"operator": "Equal"}]}, "spec.tolerations[0].operator", "FieldValueInvalid"),
        (
            {
                "tolerations": [
                    {"key": "k", "operator": "Exists", "tolerationSeconds": 5, "effect": "NoSchedule"}
                ]
            },
            "spec.tolerations[0].effect",
            "FieldValueInvalid",
        ),
        ({"nodeSelector": {"a": "-"}}, "spec.nodeSelector", "FieldValueInvalid"),
        ({"terminationGracePeriodSeconds": -1}, "spec.terminationGracePeriodSeconds", "FieldValueInvalid"),
    ],
)
def test_pod_problems_are_named_by_field(spec, field, reason):
    assert (field, reason) in problems("Pod", pod(**spec))


def test_workload_problems():
    assert problems("Deployment", deployment(replicas=-1)) == {
        ("spec.replicas", "FieldValueInvalid"): "Invalid value: -1: must be greater than or equal to 0"
    }
    mismatch = problems("Deployment", deployment(selector={"matchLabels": {"x": "y"}}))
    assert (
        "`selector` does not match template `labels`"
        in mismatch[("spec.template.metadata.labels", "FieldValueInvalid")]
    )
    recreate = {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}
    assert ("spec.strategy.rollingUpdate", "FieldValueForbidden") in problems(
        "Deployment", deployment(strategy=recreate)
    )
    stuck = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}
    assert ("spec.strategy.rollingUpdate.maxUnavailable", "FieldValueInvalid") in problems(
        "Deployment", deployment(strategy=stuck)
    )
    changed = deployment(
        selector={"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]}
    )
    assert problems("Deployment", changed, old=deployment())[("spec.selector", "FieldValueInvalid")].endswith(
        "field is immutable"
    )


def test_what_may_change_in_a_pod():
    old = pod(tolerations=[{"key": "k", "operator": "Exists"}])
    image = copy.deepcopy(old)
    image["spec"]["containers"][0]["image"] = "busybox:2"
    image["spec"]["tolerations"].append({"key": "l", "operator": "Exists"})
    image["spec"]["activeDeadlineSeconds"] = 5
    assert problems("Pod", image, old=old) == {}
    for change in ({"nodeName": "n"}, {"restartPolicy": "Never"}, {"volumes": [{"name": "v"}]}):
        assert ("spec", "FieldValueForbidden") in problems(
            "Pod", pod(tolerations=old["spec"]["tolerations"], **change), old=old
        )
    assert ("spec.tolerations", "FieldValueForbidden") in problems("Pod", pod(), old=old)
    assert ("spec.activeDeadlineSeconds", "FieldValueInvalid") in problems(
        "Pod", pod(activeDeadlineSeconds=9), old=pod(activeDeadlineSeconds=5)
    )


@pytest.mark.parametrize(
    ("kind", "obj", "field"),
    [
        ("ConfigMap", {"metadata": meta(), "data": {"a/b": "x"}}, "data[a/b]"),
        ("Secret", {"metadata": meta(), "type": "kubernetes.io/tls", "data": {}}, "data[tls.crt]"),
        ("Service", {"metadata": meta("1x"), "spec": {"ports": [{"port": 1}]}}, "metadata.name"),
        ("Service", {"metadata": meta(), "spec": {"ports": [{"port": 1}, {"port": 1}]}}, "spec.ports[1]"),
        ("Service", {"metadata": meta(), "spec": {}}, "spec.ports"),
        (
            "Node",
            {"metadata": meta("n", ""), "spec": {"taints": [{"key": "k", "effect": "Never"}]}},
            "spec.taints[0].effect",
        ),
        ("Lease", {"metadata": meta(), "spec": {"leaseDurationSeconds": 0}}, "spec.leaseDurationSeconds"),
        (
            "Event",
            {"metadata": meta(namespace="a"), "involvedObject": {"namespace": "b"}},
            "involvedObject.namespace",
        ),
        ("PriorityClass", {"metadata": meta("p", ""), "value": 2000000000}, "value"),
        ("Namespace", {"metadata": meta("a.b", "")}, "metadata.name"),
        ("Namespace", {"metadata": meta("a", "b")}, "metadata.namespace"),
        ("ConfigMap", {"metadata": {"namespace": "a"}}, "metadata.name"),
        ("ConfigMap", {"metadata": meta(labels={"a": "b c"})}, "metadata.labels"),
        ("ConfigMap", {"metadata": meta(annotations={"a/b/c": "x"})}, "metadata.annotations"),
        ("ConfigMap", {"metadata": meta(finalizers=["-"])}, "metadata.finalizers[0]"),
        (
            "PersistentVolumeClaim",
            {"metadata": meta(), "spec": {"accessModes": ["ReadWriteOnce"]}},
            "spec.resources[storage]",
        ),
    ],
)
def test_problems_of_other_kinds(kind, obj, field):
    assert field in {path for path, _ in problems(kind, obj)}


def test_immutable_parts():
    frozen = {"metadata": meta(), "data": {"a": "1"}, "immutable": True}
    assert ("data", "FieldValueForbidden") in problems("ConfigMap", {**frozen, "data": {}}, old=frozen)
    assert problems("ConfigMap", frozen, old=frozen) == {}
    assert ("metadata.name", "FieldValueInvalid") in problems(
        "ConfigMap", {"metadata": meta("y")}, old={"metadata": meta()}
    )
    service = {"metadata": meta(), "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 1}]}}
    moved = {"metadata": meta(), "spec": {"clusterIP": "10.0.0.2", "ports": [{"port": 1}]}}
    assert ("spec.clusterIPs[0]", "FieldValueInvalid") in problems("Service", moved, old=service)
