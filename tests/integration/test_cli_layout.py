"""`cachelib layout`: a person shows the pool, adds nodes and takes them away, while clients go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cachelib import Cache
from cachelib.cli import commands
from cachelib.layout import decode_layout
from cachelib.stores import SqlStore
from tests.integration.client_world import World, sqlite_template

A, B, C = "redis://10.0.0.1:6379", "redis://10.0.0.2:6379", "redis://10.0.0.3:6379"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sqlite_template(tmp_path_factory.mktemp("layout"))


@pytest.fixture
def store_url(template: Path, tmp_path: Path) -> str:
    path = tmp_path / "store.db"
    path.write_bytes(template.read_bytes())
    return f"sqlite:///{path}"


def run(store_url: str, *line: str) -> Result:
    return CliRunner().invoke(commands, ["layout", *line, "--store", store_url], catch_exceptions=False)


def add(store_url: str, *urls: str) -> str:
    done = run(store_url, "add", "--unchecked", "--no-wait", *urls)
    assert done.exit_code == 0, done.output
    return done.output


def nodes(store_url: str) -> tuple[str, ...]:
    with SqlStore(store_url) as store:
        document = store.read_layout()
        return () if document is None else decode_layout(document).goal.nodes


def refused(store_url: str, *line: str) -> str:
    done = CliRunner().invoke(commands, ["layout", *line, "--store", store_url])
    assert done.exit_code != 0
    return str(done.exception) + done.output


def test_nodes_are_added_and_taken_away(store_url: str) -> None:
    add(store_url, A, B)
    assert nodes(store_url) == (A, B)
    add(store_url, C)
    assert nodes(store_url) == (A, B, C)
    assert run(store_url, "remove", "--no-wait", B).exit_code == 0
    assert nodes(store_url) == (A, C)


def test_the_whole_layout_is_shown_with_and_without_the_command(store_url: str) -> None:
    add(store_url, A, B, C)
    shown = run(store_url, "show").output
    assert "one node" in shown
    assert "about to become" in shown
    assert all(node in shown for node in (A, B, C))
    assert run(store_url).output == shown
    assert '"pool"' in run(store_url, "show", "--json").output


def test_a_node_is_kept_without_its_password(store_url: str) -> None:
    said = add(store_url, "redis://app:secret@10.0.0.1:6379/0", B)
    assert "secret" not in said + run(store_url, "show", "--json").output
    assert nodes(store_url) == (A, B)


def test_the_same_nodes_again_change_nothing(store_url: str) -> None:
    add(store_url, A, B)
    assert "nothing to change" in add(store_url, B)


def test_one_node_for_a_layout_that_names_none_is_refused(store_url: str) -> None:
    assert "give all nodes of the pool" in refused(store_url, "add", "--unchecked", A)


def test_a_node_that_does_not_answer_is_not_added(store_url: str) -> None:
    assert "redis at 127.0.0.1:1" in refused(store_url, "add", "redis://127.0.0.1:1", "redis://127.0.0.1:2")
    assert nodes(store_url) == ()


def test_a_stranger_and_the_last_node_are_not_taken_away(store_url: str) -> None:
    add(store_url, A, B)
    assert "not in the pool" in refused(store_url, "remove", C)
    assert "add another one" in refused(store_url, "remove", A, B)
    assert nodes(store_url) == (A, B)


def test_a_client_that_runs_takes_up_what_a_person_has_changed(
    store_url: str, redis_url: str, memcached_url: str
) -> None:
    world = World("sync", redis_url, store_url)
    try:
        customers = world.customers()
        for key in range(1, 31):
            world.customer(key, f"name-{key}")
        cache = world.cache(customers)
        cache.get_many(customers, range(1, 31))
        done = run(store_url, "add", redis_url, memcached_url)  # until it is current
        assert done.output.endswith("current\n")
        cache.get_many(customers, range(1, 31))
        assert {one.name for one in cache._pool.nodes} >= {redis_url.removesuffix("/0"), memcached_url}
        with Cache(redis_url, store=world.store, entities=[customers]) as other:
            assert {one.source for one in other.read_many(customers, range(1, 31)).values()} == {"hit"}
    finally:
        world.close()
