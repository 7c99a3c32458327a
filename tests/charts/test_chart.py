"""The chart: what it renders, that Kubernetes takes it, and what it refuses."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from invalidator.config import listing, load
from tests.charts.generate import CHART, RULES, described, readme, schema, values
from tests.charts.metrics import selectors, series
from tests.charts.tools import CI, KUBERNETES, objects, one, refused, rendered, run_helm

FILES = sorted(CI.glob("*-values.yaml"))
OURS = {"monitoring.coreos.com/v1", "keda.sh/v1alpha1"}  # not Kubernetes's own


def ids(path: Path) -> str:
    return path.name.removesuffix("-values.yaml")


@pytest.fixture(scope="module")
def all_rendered() -> dict[str, list[dict[str, Any]]]:
    return {ids(path): objects(path) for path in FILES}


def test_lint_finds_nothing() -> None:
    run = run_helm("lint", "--strict", CHART, *(part for path in FILES[:1] for part in ("-f", str(path))))
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_every_object_fits_three_kubernetes_versions(path: Path, all_rendered: dict[str, list[dict[str, Any]]]) -> None:
    found = all_rendered[ids(path)]
    assert found
    for version in KUBERNETES:
        for it in found:
            if it["apiVersion"] not in OURS:
                kubernetes_validate.validate(it, version, strict=True)


def test_rendered_for_every_kubernetes_version_is_the_same() -> None:
    assert len({rendered(FILES[0], kubernetes=version) for version in KUBERNETES}) == 1


def test_the_example_job_fits_too() -> None:
    job = yaml.safe_load((CHART / "examples" / "loadgen-job.yaml").read_text())
    for version in KUBERNETES:
        kubernetes_validate.validate(job, version, strict=True)


def test_every_template_is_rendered_by_some_values() -> None:
    text = "".join(rendered(path) for path in FILES)
    for template in (CHART / "templates").rglob("*.yaml"):
        assert f"# Source: invalidator/{template.relative_to(CHART)}" in text, template.name


# --- what is in it ---------------------------------------------------------------------------


def pods(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    workloads = [it["spec"]["template"]["spec"] for it in found if it["kind"] in ("StatefulSet", "Deployment")]
    return workloads + [it["spec"] for it in found if it["kind"] == "Pod"]


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_every_pod_is_hardened(path: Path, all_rendered: dict[str, list[dict[str, Any]]]) -> None:
    for pod in pods(all_rendered[ids(path)]):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False  # a service's variables would be taken for settings
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            if container["name"] != "beside":
                assert container["securityContext"]["readOnlyRootFilesystem"] is True
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_mounts_have_volumes_and_volumes_are_mounted(path: Path, all_rendered: dict[str, list[dict[str, Any]]]) -> None:
    for pod in pods(all_rendered[ids(path)]):
        mounted = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_selectors_select_what_they_are_for(path: Path, all_rendered: dict[str, list[dict[str, Any]]]) -> None:
    found = all_rendered[ids(path)]
    for it in found:
        if it["kind"] in ("StatefulSet", "Deployment"):
            labels = it["spec"]["template"]["metadata"]["labels"]
            assert it["spec"]["selector"]["matchLabels"].items() <= labels.items()
            services = [each for each in found if each["kind"] == "Service"]
            (service,) = (each for each in services if each["spec"]["selector"].items() <= labels.items())
            assert service["metadata"]["name"] == it["spec"].get("serviceName", service["metadata"]["name"])


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_the_daemon_takes_the_configuration(
    path: Path, all_rendered: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    config = next(
        it for it in all_rendered[ids(path)] if it["kind"] == "ConfigMap" and "invalidator.toml" in it["data"]
    )
    (tmp_path / "it.toml").write_text(config["data"]["invalidator.toml"])
    settings = load(tmp_path / "it.toml", {}, {})
    assert settings.http.host == "0.0.0.0"
    assert settings.log.format == "json"


def test_given_settings_arrive_as_they_were_given(tmp_path: Path) -> None:
    given = yaml.safe_load((CI / "outbox-values.yaml").read_text())["config"]
    text = one("ConfigMap", objects(CI / "outbox-values.yaml"), "shop-invalidator")["data"]["invalidator.toml"]
    found = tomllib.loads(text)
    assert found.pop("http") == {"host": "0.0.0.0", "port": 9000}
    assert found.pop("log") == {"format": "json", "level": "debug"}
    assert found == {name: value for name, value in given.items() if name not in ("http", "log")}


def environment(found: list[dict[str, Any]], kind: str = "StatefulSet", name: str = "invalidator") -> dict[str, Any]:
    container = one(kind, found, name)["spec"]["template"]["spec"]["containers"][0]
    return {each["name"]: each.get("value") or each["valueFrom"] for each in container["env"]}


POD_NAME = {"fieldRef": {"fieldPath": "metadata.name"}}


def test_with_the_outbox_each_pod_is_a_consumer_of_its_own() -> None:
    assert environment(objects(CI / "minimal-values.yaml"))["INVALIDATOR_CONSUMER"] == POD_NAME


def test_with_kafka_each_pod_is_a_static_member_and_the_relay_is_not() -> None:
    found = objects(CI / "kafka-values.yaml")
    assert environment(found)["INVALIDATOR_KAFKA_SOURCE__INSTANCE"] == POD_NAME
    assert set(environment(found, name="relay")) == {"POD_NAME"}
    assert one("StatefulSet", found, "relay")["spec"]["replicas"] == 1
    assert one("StatefulSet", found, "invalidator")["spec"]["podManagementPolicy"] == "Parallel"


def test_a_deployment_has_no_names_and_of_the_outbox_never_two_pods() -> None:
    assert "INVALIDATOR_KAFKA_SOURCE__INSTANCE" not in environment(objects(CI / "deployment-values.yaml"), "Deployment")
    single = one("Deployment", objects(CI / "single-values.yaml"))
    assert single["spec"]["strategy"] == {"type": "Recreate"}
    assert "PodDisruptionBudget" not in {it["kind"] for it in objects(CI / "single-values.yaml")}


def test_a_changed_setting_rolls_the_pods_and_nothing_else_does() -> None:
    def checksum(*more: str) -> str:
        it = one("StatefulSet", objects(CI / "outbox-values.yaml", *more))
        return str(it["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    assert checksum("--set", "config.source.poll=1s") != checksum() == checksum("--set", "replicas=5")
    assert checksum("--set-string", "modules.shop_entities\\.py=entities = []") != checksum()


def test_probes_ask_what_the_readme_says() -> None:
    container = one("StatefulSet", objects(CI / "minimal-values.yaml"))["spec"]["template"]["spec"]["containers"][0]
    assert container["livenessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_autoscaling_never_to_zero_slowly_down_and_leaves_replicas_alone() -> None:
    for path, kind, workload in (
        ("kafka", "ScaledObject", "StatefulSet"),
        ("deployment", "HorizontalPodAutoscaler", "Deployment"),
    ):
        found = objects(CI / f"{path}-values.yaml")
        scaler, it = one(kind, found)["spec"], one(workload, found, "invalidator")
        assert "replicas" not in it["spec"]
        assert scaler["scaleTargetRef"]["name"] == it["metadata"]["name"]
        assert (scaler.get("minReplicas") or scaler["minReplicaCount"]) >= 1
        assert "idleReplicaCount" not in scaler
        behavior = scaler.get("behavior") or scaler["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 300
        assert behavior["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 300}]


def test_the_autoscaler_s_question_is_one_that_prometheus_understands() -> None:
    query = one("ScaledObject", objects(CI / "kafka-values.yaml"))["spec"]["triggers"][0]["metadata"]["query"]
    assert {found.name for found in selectors(query)} <= set(series())


def test_the_dashboards_arrive_whole() -> None:
    maps = [it for it in objects(CI / "outbox-values.yaml") if it["metadata"]["labels"].get("grafana_dashboard") == "1"]
    files = {path.name: json.loads(path.read_text()) for path in (CHART / "dashboards").glob("*.json")}
    assert {name: json.loads(text) for it in maps for name, text in it["data"].items()} == files


# --- what it refuses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"replicaCount": 3}, "additional properties 'replicaCount' not allowed"),
        ({"replicas": 0}, "replicas"),
        ({"autoscaling": {"minReplicas": 0}}, "minReplicas"),
        ({"config": {"sorce": {}}}, "'sorce' not allowed"),
        ({"config": {"source": {"pol": "1s"}}}, "'pol' not allowed"),
        ({"config": {"source": {"poll": "soon"}}}, "poll"),
        ({"config": {"kafka": {"password": "x"}}}, "'password' not allowed"),
        ({"config": {"store": {"url": "postgresql+psycopg://shop:secret@db/shop"}}}, "url"),
        ({"config": {"caches": ["redis://:secret@cache-1"]}}, "caches"),
        ({"kind": "DaemonSet"}, "kind"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"modules": {"shop.txt": ""}}, "shop.txt"),
        ({"prometheusRule": {"overrides": {"DeadLetters": {"severity": "critical"}}}}, "severity"),
        ({"secrets": {"store": {"name": ""}}}, "no store is given: name a Secret in secrets.store.name"),
        ({"secrets": {"caches": {"name": ""}}}, "no cache is given"),
        ({"config": {"entities": []}}, "nothing is declared as cached"),
        ({"config": {"source": {"kind": "kafka"}}}, "no broker is given: set config.kafka.bootstrap"),
        ({"config": {"source": {"kind": "kafka"}, "kafka": {"bootstrap": ["k:9092"]}}}, "no topic is given"),
        ({"relay": {"enabled": True}, "config": {"kafka": {"bootstrap": ["k:9092"]}}}, "config.relay.topic"),
        ({"kind": "Deployment"}, "takes replicas: 1"),
        ({"autoscaling": {"kind": "hpa"}}, "autoscaling needs config.source.kind kafka"),
        ({"autoscaling": {"maxReplicas": 1}}, "maxReplicas is less"),
        ({"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}, "enable one"),
        ({"secrets": {"tls": {"name": "x", "certKey": "tls.crt"}}}, "given together"),
        ({"config": {"consumer": "one"}}, "config.consumer names one daemon"),
        ({"config": {"apply": {"drain": "2m"}}}, "terminationGracePeriodSeconds is 60"),
    ],
    ids=lambda given: json.dumps(given)[:60],
)  # fmt: skip
def test_wrong_values_are_refused_with_a_sentence(given: dict[str, Any], says: str) -> None:
    assert says in refused(given)


def test_no_object_of_the_schema_takes_unknown_keys() -> None:
    def check(node: Any, path: str) -> None:
        if isinstance(node, dict) and isinstance(node.get("properties"), dict):
            assert node.get("additionalProperties") is False, path
            for name, inner in node["properties"].items():
                check(inner, f"{path}.{name}")

    check(schema(), "")


# --- what is generated -----------------------------------------------------------------------

AGAIN = "run: python -m tests.charts.generate"


def test_the_schema_is_that_of_the_values_and_the_settings() -> None:
    found = json.loads((CHART / "values.schema.json").read_text())
    assert found == schema(), AGAIN
    jsonschema.Draft7Validator.check_schema(found)
    jsonschema.validate(values(), found)
    assert set(RULES) <= set(described())


def test_every_setting_of_the_daemon_can_be_given() -> None:
    properties = schema()["properties"]["config"]["properties"]
    left_out = {
        dotted
        for dotted, _, _ in listing()
        if dotted.rpartition(".")[2]
        not in (properties.get(dotted.partition(".")[0], {}).get("properties", {}) if "." in dotted else properties)
    }
    assert all(
        name.endswith("_file") or name in {"http.host", "kafka.password", "kafka_source.instance"} for name in left_out
    )


def test_the_readme_lists_every_value() -> None:
    text = (CHART / "README.md").read_text()
    assert text == readme(text), AGAIN

    def leaves(node: Any, path: str) -> set[str]:
        if path in described() or not isinstance(node, dict) or not node:
            return {path}
        return {leaf for name, inner in node.items() for leaf in leaves(inner, f"{path}.{name}" if path else name)}

    assert leaves(values(), "") == set(described())


def test_the_example_of_the_readme_renders() -> None:
    text = (CHART / "README.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    found = objects(yaml.safe_load(text))
    assert "PrometheusRule" in {it["kind"] for it in found}


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_notes_say_what_to_check_next(path: Path) -> None:
    run = run_helm("install", "shop", CHART, "-n", "shop", "--dry-run=client", "-f", path)
    assert run.returncode == 0, run.stderr
    notes = run.stdout.partition("NOTES:")[2]
    assert "rollout status" in notes
    assert "helm -n shop test shop" in notes
    assert ("NOBODY IS TOLD" in notes) == (ids(path) in ("minimal", "single", "deployment"))
