"""The chart on a real API server with controllers, its pods real processes against a real Kafka and Redis.

`make kube` runs this: the control plane is built from Go the first time (minutes).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml

from tests.charts.generate import CHART
from tests.charts.golang import control_plane, crds
from tests.charts.kubelet import Kubelet
from tests.charts.pod import Tree
from tests.charts.tools import CI, program, rendered
from tests.integration.invalidator_daemon import ENTITIES, Shop, cached, client, tier, until
from tests.servers.kafka import KafkaServer
from tests.servers.kubernetes import ControlPlane
from tests.servers.redis import RedisServer

pytestmark = [pytest.mark.kube, pytest.mark.timeout(2400)]  # building takes its time, once
WAIT_S = 120.0
NAMESPACE, NAME = "shop", "invalidator"


@dataclass
class Place:
    """A cluster with what the chart's daemon talks to."""

    plane: ControlPlane
    kubelet: Kubelet
    shop: Shop
    redis: RedisServer
    kafka: KafkaServer
    folder: Path

    def run(self, name: str, *arguments: str | Path, ok: bool = True) -> str:
        """Helm or kubectl; what it said."""
        home = {"HELM_CACHE_HOME": "cache", "HELM_CONFIG_HOME": "config", "HELM_DATA_HOME": "data"}
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.plane.api.kubeconfig),
            **{variable: str(self.folder / where) for variable, where in home.items()},
        }
        command = [str(program(name)), *map(str, arguments)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        said = run.stdout + run.stderr
        assert (run.returncode == 0) == ok, f"{' '.join(command)}: {said}\n{self.kubelet.errors}\n{self.logs()}"
        return said

    def helm(self, verb: str, *arguments: str | Path, ok: bool = True) -> str:
        return self.run("helm", verb, NAME, *arguments, "-n", NAMESPACE, ok=ok)

    def get(self, kind: str, name: str = "") -> Any:
        said = self.run("kubectl", "get", kind, *([name] if name else []), "-n", NAMESPACE, "-o", "json")
        return json.loads(said)

    def install(self, verb: str, *more: str, ok: bool = True) -> str:
        values = self.folder / "values.yaml"
        values.write_text(yaml.safe_dump(self.values()))
        wait = ["--wait", f"--timeout={WAIT_S:g}s"]
        return self.helm(verb, CHART, "-f", values, *wait, *more, ok=ok)

    def values(self) -> dict[str, Any]:
        return {
            "replicas": 2,
            "secrets": {"store": {"name": "shop-store"}, "caches": {"name": "shop-caches"}},
            "config": {
                "entities": ["shop_entities:entities"],
                "source": {"kind": "kafka"},
                "kafka": {"bootstrap": [self.kafka.bootstrap]},
                "kafka_source": {"topics": ["shop.changes"], "group": "shop"},
                "relay": {"topic": "shop.changes", "partitions": 2, "replicas": 1},
            },
            "modules": {"shop_entities.py": ENTITIES},
            "relay": {"enabled": True},
            "verifier": {"enabled": True},
            "podMonitor": {"enabled": True},
            "prometheusRule": {"enabled": True},
            "dashboards": {"enabled": True},
            "networkPolicy": {"enabled": True},
        }

    def pods(self) -> dict[str, Any]:
        return {it["metadata"]["name"]: it for it in self.get("pods")["items"]}

    def daemons(self) -> dict[str, str]:
        """Their pods' uids."""
        return {name: pod["metadata"]["uid"] for name, pod in self.pods().items() if re.fullmatch(rf"{NAME}-\d", name)}

    def config_of(self, pod: str) -> str:
        """The configuration that its process reads."""
        return self.kubelet.runs[NAMESPACE, pod].pods[0].shell("cat /etc/invalidator/invalidator.toml").stdout

    def logs(self) -> str:
        return "\n".join(
            f"{at}: {pod.log_file.read_text()[-1500:]}"
            for at, run in self.kubelet.runs.items()
            for pod in run.pods
            if pod.log_file.exists()
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("kube")
    programs = control_plane()
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        kafka = stack.enter_context(KafkaServer())
        shop = Shop(f"sqlite:///{folder / 'store.db'}")
        stack.callback(shop.close)
        plane = stack.enter_context(ControlPlane(programs))
        kubelet = stack.enter_context(Kubelet(plane.api, Tree(), folder))
        it = Place(plane, kubelet, shop, redis, kafka, folder)
        it.run("kubectl", "create", "-f", crds())
        it.run("kubectl", "create", "namespace", NAMESPACE)
        for name, key, value in (("shop-store", "url", shop.url), ("shop-caches", "urls", redis.url)):
            it.run("kubectl", "-n", NAMESPACE, "create", "secret", "generic", name, f"--from-literal={key}={value}")
        yield it


@pytest.fixture
def released(place: Place) -> Iterator[Place]:
    """Installed, and gone afterwards."""
    place.install("install")
    yield place
    place.helm("uninstall", "--wait")
    until(lambda: not place.pods(), WAIT_S)


def test_installed_pods_run_as_rendered_become_ready_and_apply_changes(released: Place) -> None:
    place = released
    pods = place.pods()
    (verifier,) = (name for name in pods if name.startswith(f"{NAME}-verifier-"))
    assert set(pods) == {*place.daemons(), f"{NAME}-relay-0", verifier}
    for pod in pods.values():
        ready = {one["type"]: one["status"] for one in pod["status"]["conditions"]}["Ready"]
        assert ready == "True"
        assert pod["spec"]["nodeName"] == "local"  # the scheduler's choice
    for name in (f"{NAME}-0", f"{NAME}-1"):
        (process,) = place.kubelet.runs[NAMESPACE, name].pods
        assert process.environment()["INVALIDATOR_KAFKA_SOURCE__INSTANCE"] == name
        assert process.status()["ready"] is True
    with client(place.shop, place.redis.url) as cache:
        cached(cache)
        place.shop.sql("update customers set tier = 'gold' where id = 7")
        until(lambda: tier(cache) == "gold", WAIT_S)
    assert "Succeeded" in place.run("helm", "test", NAME, "-n", NAMESPACE, "--timeout=90s")
    kinds = ("podmonitor", "prometheusrule", "networkpolicy", "poddisruptionbudget", "configmap")
    assert all(place.get(kind)["items"] for kind in kinds)


def test_changed_setting_rolls_the_pods_and_rollback_brings_it_back(released: Place) -> None:
    place = released
    before = place.daemons()
    assert "drain" not in place.config_of(f"{NAME}-0")
    place.install("upgrade", "--set", "config.apply.drain=7s")
    after = place.daemons()
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())
    for name in (f"{NAME}-0", f"{NAME}-1"):
        assert 'drain = "7s"' in place.config_of(name)
    place.install("upgrade", "--set", "config.apply.drain=7s", "--set", "pdb.enabled=false")
    assert place.daemons() == after  # no setting, no roll
    place.helm("rollback", "1", "--wait", f"--timeout={WAIT_S:g}s")
    until(lambda: all(place.kubelet.runs[NAMESPACE, name].pods[0].running for name in after), WAIT_S)
    assert "drain" not in place.config_of(f"{NAME}-0")
    assert place.get("poddisruptionbudget")["items"]
    assert len(re.findall(r"^\d", place.helm("history"), re.MULTILINE)) == 4


def test_release_that_cannot_start_is_rolled_back_and_one_daemon_goes_on(released: Place) -> None:
    place = released
    said = place.install(
        "upgrade", "--set", "config.entities={nowhere:entities}", "--rollback-on-failure", "--timeout=30s", ok=False
    )
    assert "rolled back" in said or "rollback" in said.lower()
    until(lambda: all(place.kubelet.runs[NAMESPACE, name].said == "Running True 0" for name in place.pods()), WAIT_S)
    assert "nowhere" not in place.config_of(f"{NAME}-0") + place.config_of(f"{NAME}-1")


def test_only_one_daemon_at_a_time_may_be_evicted(released: Place) -> None:
    place = released

    def evict(number: int) -> int:
        name = f"{NAME}-{number}"
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        try:
            place.plane.api.request("POST", path, body)
        except HTTPError as error:
            with error:
                return error.code
        return 200

    until(lambda: place.get("poddisruptionbudget", NAME)["status"].get("disruptionsAllowed") == 1, WAIT_S)
    assert evict(0) == 200
    assert evict(1) == 429
    until(lambda: place.get("poddisruptionbudget", NAME)["status"].get("disruptionsAllowed") == 1, WAIT_S)


def test_uninstall_leaves_nothing(place: Place) -> None:
    place.install("install")
    place.helm("uninstall", "--wait")
    until(lambda: not place.pods(), WAIT_S)
    kinds = "statefulset,deployment,service,configmap,serviceaccount,poddisruptionbudget,networkpolicy,podmonitor"
    left = [f"{it['kind']}/{it['metadata']['name']}" for it in place.get(f"{kinds},prometheusrule")["items"]]
    assert sorted(left) == ["ConfigMap/kube-root-ca.crt", "ServiceAccount/default"]


@pytest.mark.parametrize("values", sorted(CI.glob("*-values.yaml")), ids=lambda path: path.name)
def test_api_server_takes_every_object_strictly(place: Place, values: Path) -> None:
    manifests = place.folder / values.name
    manifests.write_text(rendered(values, "--no-hooks"))  # a pod's account would have to be there; `helm test` runs it
    apply = ("apply", "--dry-run=server", "--validate=strict", "-f", manifests)
    said = place.run("kubectl", "-n", NAMESPACE, *apply)
    assert "server dry run" in said


def test_api_server_refuses_a_fault(place: Place) -> None:
    manifests = place.folder / "fault.yaml"
    manifests.write_text(rendered(CI / "outbox-values.yaml").replace("interval: 30s", "interval: thirty"))
    apply = ("apply", "--dry-run=server", "--validate=strict", "-f", manifests)
    assert "thirty" in place.run("kubectl", "-n", NAMESPACE, *apply, ok=False)
