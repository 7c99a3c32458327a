"""What the chart renders works: command, environment, files and probes of its pods, as local processes of the image's
build, against a real Redis and real stores. Only mount points are moved: a folder stands for the container's root.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

import click
import pytest

from loadgen.__main__ import cli as loadgen
from tests.charts.generate import CHART
from tests.charts.image import Image
from tests.charts.tools import objects, one
from tests.integration.invalidator_daemon import ENTITIES, Shop, until
from tests.servers.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # building the image takes its time on a busy machine
SECRET_NAMES = {"store": "shop-store", "caches": "shop-caches"}


class Pod:
    """A pod of a workload, as a process. `secrets`: what its Secrets hold, by name and key."""

    def __init__(
        self,
        image: Image,
        root: Path,
        found: list[dict[str, Any]],
        spec: dict[str, Any],
        secrets: dict[str, dict[str, str]],
    ) -> None:
        self.image, self.root = image, root
        self.container = spec["containers"][0]
        self.port = free_port()
        maps = {it["metadata"]["name"]: it["data"] for it in found if it["kind"] == "ConfigMap"}
        contents: dict[str, dict[str, str]] = {}
        for volume in spec["volumes"]:
            if "configMap" in volume:
                contents[volume["name"]] = maps[volume["configMap"]["name"]]
            elif "secret" in volume:
                held, items = secrets[volume["secret"]["secretName"]], volume["secret"]["items"]
                contents[volume["name"]] = {item["path"]: held[item["key"]] for item in items}
        for mount in self.container["volumeMounts"]:
            self._mount(mount, contents.get(mount["name"], {}))

    def _mount(self, mount: dict[str, Any], held: dict[str, str]) -> None:
        path = self.root / mount["mountPath"].lstrip("/")
        files = (
            {path: held[mount["subPath"]]} if "subPath" in mount else {path / name: text for name, text in held.items()}
        )
        for file, text in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.moved(text))
            file.chmod(0o440)

    def moved(self, text: str) -> str:
        """A text in which the container's root is the folder, and its port a free one."""
        text = re.sub(r"(?<![\w/.])/(etc/invalidator|app)\b", rf"{self.root}/\1", text)
        return text.replace("port = 8625", f"port = {self.port}").replace(":8625/", f":{self.port}/")

    def environment(self) -> dict[str, str]:
        fields = {"metadata.name": "shop-invalidator-0"}
        own = {
            it["name"]: it["value"] if "value" in it else fields[it["valueFrom"]["fieldRef"]["fieldPath"]]
            for it in self.container["env"]
        }
        return {**self.image.environment(), "PYTHONPATH": str(self.root / "app"), **own}

    def command(self) -> list[str]:
        program, *rest = self.container["command"]
        return [str(self.image.program(program)), *map(self.moved, rest)]

    def shell(self, text: str) -> subprocess.CompletedProcess[str]:
        """As `kubectl exec … -- sh -c`."""
        return subprocess.run(
            ["sh", "-c", self.moved(text)],
            cwd=self.root / "app",
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def probe(self, name: str) -> int:
        path = self.container[name]["httpGet"]["path"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            return 0

    def __enter__(self) -> Self:
        (self.root / "app").mkdir(exist_ok=True)
        self.log = (self.root / "log").open("w")
        self.process = subprocess.Popen(
            self.command(), cwd=self.root / "app", env=self.environment(), stdout=self.log, stderr=self.log
        )
        return self

    def ready(self) -> Self:
        def answers() -> bool:
            assert self.process.poll() is None, (self.root / "log").read_text()
            return self.probe("readinessProbe") == 200

        until(answers)
        return self

    def stop(self) -> tuple[int, float]:
        """SIGTERM, as the kubelet does: the exit code and how long it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30), time.monotonic() - began

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()


def pod(image: Image, root: Path, store: str, cache: str) -> Pod:
    values = {
        "secrets": {name: {"name": secret} for name, secret in SECRET_NAMES.items()},
        "config": {"entities": ["shop_entities:entities"], "source": {"poll": "50ms"}},
        "modules": {"shop_entities.py": ENTITIES},
    }
    found = objects(values)
    secrets = {"shop-store": {"url": store}, "shop-caches": {"urls": cache + "\n"}}
    return Pod(image, root, found, one("StatefulSet", found)["spec"]["template"]["spec"], secrets)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_rendered_pod_becomes_ready_applies_changes_and_stops_in_time(
    kind: str, image: Image, request: pytest.FixtureRequest, redis_url: str, tmp_path: Path
) -> None:
    shop = Shop(request.getfixturevalue(f"{kind}_url"))
    try:
        with pod(image, tmp_path, shop.url, redis_url) as it:
            it.ready()
            assert it.probe("livenessProbe") == it.probe("startupProbe") == 200
            shop.sql("update customers set tier = 'gold' where id = 7")
            said = until(lambda: 'changes_total{table="customers"} 1' in (page := it.shell(METRICS)).stdout and page)
            assert "invalidator_lag_seconds" in said.stdout
            until(lambda: shop.committed("shop-invalidator-0"))  # under the pod's own name
            code, took_s = it.stop()
            assert code == 0
            assert took_s < 30
    finally:
        shop.close()


METRICS = ". /etc/invalidator/on-call.sh && page metrics"
ON_CALL = """
set -e
. /etc/invalidator/on-call.sh
page status | grep '"problems": \\[\\]'
page readyz
invalidator check --config $CONFIG
invalidator check --config $CONFIG --dry-run | head
cachelib layout
cachelib doctor --cache $CACHELIB_CACHE --store $CACHELIB_STORE
cachelib status customers
cachelib explain customers 7
cachelib mode customers bypass
cachelib mode customers on
invalidator replay --config $CONFIG --from 15m
cachelib clear customers
"""


def test_the_runbooks_commands_work_in_a_shell_in_the_pod(
    image: Image, sqlite_url: str, redis_url: str, tmp_path: Path
) -> None:
    shop = Shop(sqlite_url)
    try:
        with pod(image, tmp_path, shop.url, redis_url) as it:
            it.ready()
            said = it.shell(ON_CALL)
            assert said.returncode == 0, said.stdout + said.stderr
    finally:
        shop.close()


def test_check_of_the_release_s_test_says_that_all_is_well(
    image: Image, sqlite_url: str, redis_url: str, tmp_path: Path
) -> None:
    shop = Shop(sqlite_url)
    try:
        it = pod(image, tmp_path, shop.url, redis_url)
        said = it.shell(" ".join(["invalidator", "check", "--config", "/etc/invalidator/invalidator.toml"]))
        assert said.returncode == 0, said.stdout + said.stderr
    finally:
        shop.close()


def test_a_service_of_the_same_name_would_have_been_taken_for_settings(
    image: Image, sqlite_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Why `enableServiceLinks` is false."""
    shop = Shop(sqlite_url)
    try:
        it = pod(image, tmp_path, shop.url, redis_url)
        check = "invalidator check --config /etc/invalidator/invalidator.toml"
        assert it.shell(f"INVALIDATOR_SERVICE_HOST=10.0.0.1 {check}").returncode == 2
    finally:
        shop.close()


def test_example_job_s_options_are_those_of_loadgen(redis_url: str, tmp_path: Path) -> None:
    text = (CHART / "examples" / "loadgen-job.yaml").read_text()
    options = [part.replace("$(CACHE_URL)", redis_url) for part in re.findall(r"^ +- (--\S+)$", text, re.MULTILINE)]
    with click.Context(loadgen) as parent:
        assert loadgen.commands["run"].make_context("run", options, parent=parent).params["cache"] == redis_url
