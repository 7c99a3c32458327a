"""Settings of the invalidator: three places, one error each."""

from __future__ import annotations

from pathlib import Path

import pytest

from cachelib.errors import ConfigError
from invalidator.config import listing, load, node_name, redacted
from invalidator.settings import Settings


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "invalidator.toml"
    path.write_text(text)
    return path


def test_environment_overrules_file_and_flag_overrules_both(tmp_path: Path) -> None:
    path = written(tmp_path, 'namespace = "a"\nconsumer = "a"\n[store]\nurl = "sqlite:///a"\n[apply]\nbatch = 5\n')
    environment = {"INVALIDATOR_CONSUMER": "b", "INVALIDATOR_STORE__URL": "sqlite:///b", "HOME": "/"}
    settings = load(path, environment, {"store": {"url": "sqlite:///c"}})
    assert (settings.namespace, settings.consumer, settings.store_url()) == ("a", "b", "sqlite:///c")
    assert settings.apply.batch == 5


def test_numbers_and_durations_come_from_text() -> None:
    settings = load(None, {"INVALIDATOR_APPLY__NODE_DEAD_AFTER": "2m", "INVALIDATOR_HTTP__PORT": "0"}, {})
    assert settings.apply.node_dead_after_s == 120
    assert settings.http.port == 0


def test_lists_in_the_environment_are_separated_by_spaces() -> None:
    settings = load(None, {"INVALIDATOR_CACHES": "redis://a memcached://b,c"}, {})
    assert settings.cache_urls() == ("redis://a", "memcached://b", "memcached://c")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"apply": {"bacth": 5}}, "the command line, section [apply], has no setting 'bacth': did you mean 'batch'?"),
        ({"stroe": {}}, "did you mean 'store'?"),
        ({"apply": {"batch": 0}}, "apply.batch is 0: give a whole number between 1 and 100000"),
        ({"apply": {"batch": "many"}}, "apply.batch is 'many'"),
        ({"apply": {"settle_delay": "5"}}, "apply.settle_delay is '5'"),
        ({"source": {"kind": "outbx"}}, "did you mean 'outbox'?"),
        ({"store": "sqlite:///a"}, "'store' is a section"),
        ({"caches": [5]}, "caches is of type list: give a list of texts"),
        ({"namespace": "my shop"}, "namespace is 'my shop': it takes 1 to 32 letters"),
        ({"rules": [5]}, "give a list of tables, [[rules]]"),
    ],
)
def test_wrong_setting_is_named_in_one_sentence(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {}, given)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://u:p@h/db\n")
    assert load(None, {"INVALIDATOR_STORE__URL_FILE": str(tmp_path / "url")}, {}).store_url() == "postgresql://u:p@h/db"


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@h:6379/0",
        "postgresql+psycopg://shop:secret@h/db?password=secret",
        "postgresql://h/db?password=sec@secret",
        "redis://u:se/cret@h/0",
        "redis://:se?secret@h",
        "secret",
    ],
)
def test_no_secret_is_shown(url: str) -> None:
    assert "secret" not in redacted(url)
    assert "cret" not in redacted(url) + node_name(url)


def test_node_is_named_without_its_user() -> None:
    assert node_name("rediss://user:pw@cache-1:6380/2") == "rediss://cache-1:6380/2"


def test_every_setting_is_listed_with_a_meaning() -> None:
    rows = {name: (default, doc) for name, default, doc in listing()}
    assert rows["apply.node_dead_after"][0] == "1m"
    assert rows["http.port"][0] == "8625"
    assert all(doc for _, doc in rows.values())


def test_defaults_are_settings() -> None:
    assert load(None, {}, {}) == Settings()
