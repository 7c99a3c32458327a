"""Wrong settings and addresses are told when the backend is built, and nothing connects."""

from __future__ import annotations

from dataclasses import fields

import pytest

from cachelib.backends.memcached import AsyncMemcached, Memcached, Settings
from cachelib.backends.memcached.settings import Given, address_of, whereabouts
from cachelib.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost", ("localhost", 11211)),
        ("cache-1:11300", ("cache-1", 11300)),
        ("[::1]:11300", ("::1", 11300)),
        ("memcached://10.0.0.7:11300", ("10.0.0.7", 11300)),
        ("memcached://10.0.0.7/", ("10.0.0.7", 11211)),
        ("/run/memcached.sock", "/run/memcached.sock"),
        ("unix:///run/memcached.sock", "/run/memcached.sock"),
        ("unix:/run/memcached.sock", "/run/memcached.sock"),
    ],
)
def test_addresses(text: str, address: object) -> None:
    assert address_of(text) == address
    assert address_of([text]) == address


@pytest.mark.parametrize(
    "text", ["", "redis://a", "memcached://", "a:b", "a:70000", "memcached://a/b", "memcached://u@a", "a?x=1", "unix:a"]
)
def test_no_addresses(text: str) -> None:
    with pytest.raises(ConfigError, match="no address"):
        address_of(text)


@pytest.mark.parametrize("servers", ["memcached://a,b", ["a", "b"], []])
def test_several_servers_are_several_backends(servers: str | list[str]) -> None:
    for face in (Memcached, AsyncMemcached):
        with pytest.raises(ConfigError, match="one node"):
            face(servers)


def test_unknown_setting_names_the_nearest() -> None:
    for face in (Memcached, AsyncMemcached):
        with pytest.raises(ConfigError, match="did you mean 'timeout_ms'"):
            face("a", timeout_mss=3)


@pytest.mark.parametrize(
    "wrong",
    [{"timeout_ms": 0}, {"cas_tries": -1}, {"connections_max": 1.5}, {"item_bytes_max": 68}, {"pipeline_max": 5000}],
)
def test_wrong_settings(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Settings.of(wrong)


def test_capability_tells_the_limits() -> None:
    capability = Memcached("a", item_bytes_max=1000).capability
    assert (capability.kind, capability.name_bytes_max, capability.ttl_step_ms) == ("memcached", 250, 1000)
    assert capability.payload_bytes_max == 1000 - 68
    assert capability.shared


def test_type_checkers_see_every_setting() -> None:
    assert Given.__annotations__.keys() == {field.name for field in fields(Settings)}


def test_two_servers_that_may_tell_the_same_start_have_different_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert whereabouts(("cache-1", 11211)) != whereabouts(("cache-2", 11211)) != whereabouts(("cache-2", 11212))
    local = [address_of(text) for text in ("localhost", "127.0.0.1", "[::1]", "0.0.0.0", "unix:///run/memcached.sock")]
    here = [whereabouts(one) for one in local]
    monkeypatch.setattr("socket.gethostname", lambda: "another-machine")
    assert all(before != whereabouts(one) for before, one in zip(here, local, strict=True))
    assert whereabouts(("cache-1", 11211)) == "cache-1:11211"


@pytest.mark.parametrize("of", [Memcached, AsyncMemcached])
def test_backend_tells_its_address(of: type[Memcached] | type[AsyncMemcached]) -> None:
    assert of("memcached://cache-1").address == "cache-1:11211"
