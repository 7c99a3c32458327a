"""Places: what a user gave, by the names that a layout calls the nodes."""

from __future__ import annotations

import pytest

from cachelib.backends import Backend, from_url
from cachelib.backends.memory import Memory
from cachelib.errors import CacheUnavailable, ConfigError
from cachelib.places import Places, as_its_like, each_url, node_name


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://cache-1:6379/0", "redis://cache-1:6379"),
        ("redis://cache-1", "redis://cache-1:6379"),
        ("redis://:secret@cache-1:7000/3?socket_keepalive=1", "redis://cache-1:7000/3"),
        ("rediss://app:secret@Cache-1/0", "rediss://cache-1:6379"),
        ("redis://[::1]:6380", "redis://[::1]:6380"),
        ("memcached://10.0.0.1", "memcached://10.0.0.1:11211"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
        ("memory://", "memory://"),
    ],
)
def test_a_node_is_named_by_its_url_without_secrets(url: str, name: str) -> None:
    assert node_name(url) == name


@pytest.mark.parametrize("url", ["redis://app:secret@cache-1:7000/3?a=b", "unix://:secret@/run/redis.sock"])
def test_a_name_holds_no_secret(url: str) -> None:
    assert "secret" not in node_name(url)


def test_a_port_that_is_none_is_refused_without_the_password() -> None:
    with pytest.raises(ConfigError, match="port") as refused:
        node_name("redis://:secret@host:notaport")
    assert "secret" not in str(refused.value)


def test_one_memcached_url_may_name_several_nodes() -> None:
    assert each_url("memcached://a:1, b:2") == ["memcached://a:1", "memcached://b:2"]
    assert each_url("redis://a:1") == ["redis://a:1"]


def test_a_node_that_was_not_given_is_reached_as_its_like() -> None:
    assert as_its_like("redis://c:7/3", "redis://app:secret@a:6379/0?x=1") == "redis://app:secret@c:7/3?x=1"
    made: list[str] = []
    places = Places(["redis://:pw@a:1", "memcached://b:1"], lambda url: made.append(url) or Memory())  # type: ignore[func-returns-value]
    places.reach("redis://z:9")
    places.reach("memcached://y:9")
    assert made == ["redis://:pw@a:1", "redis://:pw@z:9", "memcached://y:9"]


def test_each_node_is_made_once() -> None:
    places: Places[Memory] = Places(["memory://a", "memory://b"], lambda url: Memory())
    assert places.reach("memory://b") is places.reach("memory://b")
    assert places.reach("memory://a") is places.first


def test_one_node_has_no_name() -> None:
    """A layout without names means it, whatever it is called."""
    for given in ("memory://a", ["memory://a"], Memory(), {"a": Memory()}):
        assert Places(given, lambda url: Memory()).names == ()


def test_a_node_of_a_kind_that_was_not_given_is_tried_by_its_name() -> None:
    made: list[str] = []
    places = Places("redis://:pw@a:1", lambda url: made.append(url) or Memory())  # type: ignore[func-returns-value]
    places.reach("memcached://b:1")
    assert made == ["redis://:pw@a:1", "memcached://b:1"]


def test_a_name_that_is_no_url_cannot_be_reached() -> None:
    places: Places[Backend] = Places({"a": Memory(), "b": Memory()}, from_url)
    assert places.names == ("a", "b")
    with pytest.raises(CacheUnavailable, match="'c'"):
        places.reach("c")


@pytest.mark.parametrize("given", [[], {}, [Memory(), Memory()], ["redis://a", "redis://a:6379/0"]])
def test_nodes_that_cannot_be_told_apart_are_refused(given: object) -> None:
    with pytest.raises(ConfigError):
        Places(given, lambda url: Memory())  # type: ignore[arg-type]
