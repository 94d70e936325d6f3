"""The Helm chart: what it renders is valid and locked down; what it refuses, it explains."""

import json
import re
from collections.abc import Iterator
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from flowledger.server.settings import ServerSettings
from tests.deploy.chart import CHART, CONFIGURATIONS, ROOT, defaults, of_kind, rendered

KUBERNETES = "1.34"
OWN_SCHEMAS = ("ServiceMonitor", "PrometheusRule")  # checked by `make deploy-check`
ALWAYS = {"Deployment", "Service", "ServiceAccount", "NetworkPolicy"}
MANY = {"HorizontalPodAutoscaler", "PodDisruptionBudget", "Job"}
DEFAULT = {*ALWAYS, *MANY, "PersistentVolumeClaim"}
KINDS = {
    "default": DEFAULT,
    "basic-auth": {*DEFAULT, "ServiceMonitor"},
    "sqlite": {*ALWAYS, "PersistentVolumeClaim"},
    "postgres-s3": {*ALWAYS, *MANY, "Ingress", "ServiceMonitor", "PrometheusRule", "ConfigMap"},
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_helm_lints_it_without_a_warning(name: str) -> None:
    report = helm_python.lint(str(CHART), CONFIGURATIONS[name], strict=True)
    told = [message["error"] for message in report["messages"] if message["severity"] > 1]
    assert ([], []) == (told, report["errors"])


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_manifest_is_one_that_kubernetes_takes(name: str) -> None:
    manifests = rendered(CONFIGURATIONS[name])
    assert KINDS[name] == {manifest["kind"] for manifest in manifests}
    for manifest in manifests:
        if manifest["kind"] not in OWN_SCHEMAS:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_example_of_a_sidecar_is_one_that_kubernetes_takes() -> None:
    manifest = yaml.safe_load((CHART / "examples" / "collector-sidecar.yaml").read_text())
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    pod = manifest["spec"]["template"]["spec"]
    [collector] = pod["initContainers"]
    assert "Always" == collector["restartPolicy"]
    assert locked(pod, collector) == locked(pod, pod["containers"][0]) == LOCKED


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"replicas": 0}, "'/replicas': minimum: got 0, want 1"),
    ({"replica": 3}, "additional properties 'replica' not allowed"),
    ({"database": {"exisitngSecret": "x"}}, "additional properties 'exisitngSecret' not allowed"),
    ({"workers": "two"}, "'/workers': got string, want integer"),
    ({"settings": {"sink": 2}}, "'sink'"),
    ({"resources": {"requests": {"memory": "1 GB"}}}, "'1 GB' does not match"),
    ({"artifacts": {"destination": "/somewhere"}}, "'/artifacts/destination'"),
    ({"database": {"existingSecret": ""}}, "database.existingSecret is empty: name the Secret"),
    ({"auth": {"existingSecret": ""}}, "auth.existingSecret is empty: name the Secret"),
    ({"auth": {"kind": "none"}}, "set service.type=ClusterIP, or service.loadBalancerSourceRanges"),
    ({"database": {"kind": "sqlite"}}, "SQLite is a file for one server: set replicas=1"),
    ({"autoscaling": {"maxReplicas": 1}}, "autoscaling.maxReplicas is less than replicas"),
    ({"persistence": {"enabled": False}}, "would lose artifacts"),
    ({"persistence": {"accessMode": "ReadWriteOnce"}}, "set persistence.accessMode=ReadWriteMany"),
    ({"ingress": {"enabled": True}}, "ingress.host is empty"),
]


@pytest.mark.parametrize(("values", "sentence"), REFUSED, ids=lambda value: str(value)[:50])
def test_a_value_that_cannot_work_fails_the_render_with_a_sentence(
    values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((helm_python.HelmValuesError, helm_python.HelmRenderError)) as refused:
        rendered(values)
    assert sentence in str(refused.value)


LOCKED = {
    "non-root": True,
    "user": 10001,
    "seccomp": "RuntimeDefault",
    "read-only": True,
    "escalation": False,
    "dropped": ["ALL"],
    "token": False,
    "writes to": ["/tmp", "/var/lib/flowledger"],
}


def locked(pod: dict[str, Any], container: dict[str, Any]) -> dict[str, Any]:
    """How a container is locked down."""
    own = container["securityContext"]
    return {
        "non-root": pod["securityContext"]["runAsNonRoot"],
        "user": pod["securityContext"]["runAsUser"],
        "seccomp": pod["securityContext"]["seccompProfile"]["type"],
        "read-only": own["readOnlyRootFilesystem"],
        "escalation": own["allowPrivilegeEscalation"],
        "dropped": own["capabilities"]["drop"],
        "token": pod["automountServiceAccountToken"],
        "writes to": sorted(mount["mountPath"] for mount in container["volumeMounts"]),
    }


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_container_is_locked_down_and_asks_for_what_it_needs(name: str) -> None:
    for pod, container in containers(name):
        assert LOCKED == locked(pod, container)
        assert {"cpu", "memory"} == container["resources"]["requests"].keys()
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert {volume["name"] for volume in pod["volumes"]} == mounted


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_no_secret_is_a_value_but_each_is_a_reference(name: str) -> None:
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|STORE_URI")
    for _, container in containers(name):
        plain = [
            one["name"]
            for one in container["env"]
            if secret.search(one["name"]) and "sqlite" not in one.get("value", "sqlite")
        ]
        assert [] == plain


def containers(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for manifest in rendered(CONFIGURATIONS[name]):
        if manifest["kind"] in ("Deployment", "Job"):
            pod = manifest["spec"]["template"]["spec"]
            for container in pod["containers"]:
                yield pod, container


def test_the_server_has_probes_that_no_host_check_turns_away_and_is_spread() -> None:
    spec = of_kind(rendered({}), "Deployment")["spec"]["template"]["spec"]
    [server] = spec["containers"]
    probes = {
        name: server[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")
    }
    assert {
        "startup": "/api/flowledger/v1/health",
        "liveness": "/api/flowledger/v1/health",
        "readiness": "/api/flowledger/v1/ready",
    } == {name: probe["path"] for name, probe in probes.items()}
    assert [[{"name": "Host", "value": "localhost"}]] * 3 == [
        probe["httpHeaders"] for probe in probes.values()
    ]
    assert ["topology.kubernetes.io/zone", "kubernetes.io/hostname"] == [
        one["topologyKey"] for one in spec["topologySpreadConstraints"]
    ]


def test_only_clients_and_who_is_named_may_come_in() -> None:
    def peers(name: str) -> list[Any]:
        [rule] = of_kind(rendered(CONFIGURATIONS[name]), "NetworkPolicy")["spec"]["ingress"]
        assert [{"port": "http", "protocol": "TCP"}] == rule["ports"]
        found: list[Any] = rule["from"]
        return found

    client = {"matchLabels": {"flowledger.io/client": "true"}}
    clients = [{"podSelector": client}, {"namespaceSelector": client}]

    def of_namespace(name: str) -> dict[str, Any]:
        return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}

    assert clients == peers("default")
    assert clients == peers("sqlite")
    assert [*clients, of_namespace("monitoring"), of_namespace("ingress-nginx")] == peers(
        "postgres-s3"
    )
    network = {"ipBlock": {"cidr": "10.0.0.0/8"}}
    assert [*clients, of_namespace("monitoring"), network] == peers("basic-auth")


def test_the_database_is_migrated_before_a_new_version_starts_and_as_its_owner() -> None:
    job = of_kind(rendered(CONFIGURATIONS["postgres-s3"]), "Job")
    assert "pre-install,pre-upgrade" == job["metadata"]["annotations"]["helm.sh/hook"]
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert ["flowledger", "migrate", "--users"] == container["args"]
    environment = {one["name"]: one for one in container["env"]}
    key = environment["MLFLOW_BACKEND_STORE_URI"]["valueFrom"]["secretKeyRef"]
    assert {"name": "flowledger-database", "key": "owner-uri"} == key


def test_services_and_hosts_are_named_so_that_the_server_answers_to_them() -> None:
    deployment = of_kind(rendered(CONFIGURATIONS["postgres-s3"]), "Deployment")
    [server] = deployment["spec"]["template"]["spec"]["containers"]
    [hosts] = [e["value"] for e in server["env"] if e["name"] == "MLFLOW_SERVER_ALLOWED_HOSTS"]
    wanted = {
        "localhost",
        "$(POD_IP):*",
        "demo-flowledger.llm.svc.cluster.local:*",
        "llm.example.com",
    }
    assert wanted <= set(hosts.split(","))


def test_the_rules_are_those_of_prometheus_and_the_limits_those_of_the_values() -> None:
    spec = of_kind(rendered(CONFIGURATIONS["postgres-s3"]), "PrometheusRule")["spec"]
    limits, *groups = spec["groups"]
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())
    assert rules["groups"] == groups
    of_file = yaml.safe_load((ROOT / "deploy" / "prometheus" / "limits.yml").read_text())
    [named] = of_file["groups"]
    assert {rule["record"] for rule in named["rules"]} == {
        rule["record"] for rule in limits["rules"]
    }
    spend = next(r for r in limits["rules"] if r["record"].endswith("cost_usd_per_hour"))
    assert ("vector(120)", {"job": "demo-flowledger", "namespace": "llm"}) == (
        spend["expr"],
        spend["labels"],
    )


def test_every_dashboard_is_in_the_chart() -> None:
    data = of_kind(rendered(CONFIGURATIONS["postgres-s3"]), "ConfigMap")["data"]
    folder = ROOT / "deploy" / "grafana" / "dashboards"
    written = {f"flowledger-{path.name}": json.loads(path.read_text()) for path in folder.iterdir()}
    assert written == {name: json.loads(text) for name, text in data.items()}


def test_the_schema_knows_every_value_and_every_setting_of_the_server() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema["properties"]) - {"global"} == set(defaults())
    settings = set(schema["properties"]["settings"]["propertyNames"]["enum"])
    assert set(ServerSettings.__struct_fields__) - {"auth", "metrics_token"} == settings


def test_every_value_is_described_with_its_default() -> None:
    text = (CHART / "README.md").read_text()
    described = dict(re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", text, re.MULTILINE))
    assert dict(flat(defaults())) == described


def flat(values: dict[str, Any], start: str = "") -> Iterator[tuple[str, str]]:
    """Every value by its path, as JSON; what an operator replaces as a whole is one value."""
    for name, value in values.items():
        path = f"{start}{name}"
        if isinstance(value, dict) and value and name != "labels" and start != "resources.":
            yield from flat(value, f"{path}.")
        else:
            yield path, json.dumps(value)
