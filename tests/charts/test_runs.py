"""What the chart renders works: command, environment, files and probes of its pods, as local processes of the image's
build, against a real Redis and real stores. Only mount points are moved: a folder stands for the container's root.
"""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from loadgen.cli.root import cli as loadgen
from tests.charts.generate import CHART
from tests.charts.image import Image
from tests.charts.pod import Pod, files_of
from tests.charts.tools import objects, one
from tests.integration.invalidator_daemon import ENTITIES, Shop, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # building the image takes its time on a busy machine
SECRET_NAMES = {"store": "shop-store", "caches": "shop-caches"}


def pod(image: Image, root: Path, store: str, cache: str) -> Pod:
    values = {
        "secrets": {name: {"name": secret} for name, secret in SECRET_NAMES.items()},
        "config": {"entities": ["shop_entities:entities"], "source": {"poll": "50ms"}},
        "modules": {"shop_entities.py": ENTITIES},
    }
    found = objects(values)
    secrets = {"shop-store": {"url": store}, "shop-caches": {"urls": cache + "\n"}}
    spec = one("StatefulSet", found)["spec"]["template"]["spec"]
    return Pod(image, root, spec, files_of(found) | secrets, "shop-invalidator-0")


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
        assert loadgen.commands["check"].make_context("check", options, parent=parent).params["cache"] == redis_url
