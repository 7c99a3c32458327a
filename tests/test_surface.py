"""The public surface is what is written here: a change of it is meant, or it is a mistake."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import cachelib
from cachelib import AsyncCache, AsyncTransaction, Cache, Transaction, backends, errors, stores

NAMES = {
    *("AsyncCache", "Cache", "Entity", "Row", "Read", "Written", "Explanation", "Codec"),
    *("Transaction", "AsyncTransaction", "Session", "AsyncSession"),
    *("Eventual", "Bounded", "Strong", "LeasePolicy", "OnFailure", "StoreBudget", "Ttl", "L1", "Compare"),
    *("BadKey", "BadToken", "CacheError", "CacheUnavailable", "CommitUnknown", "ConfigError", "DeadlineExceeded"),
    "DecodeError",
    *("LayoutConflict", "LoadFailed", "LogGap", "MissingExtra", "StoreBudgetExceeded", "StoreError", "Unconfirmed"),
}
BACKENDS = {
    *("Redis", "AsyncRedis", "RedisCluster", "AsyncRedisCluster"),
    *("Memcached", "AsyncMemcached", "Memory", "AsyncMemory"),
    *("Backend", "AsyncBackend", "Capability", "from_url", "async_from_url"),
}
STORES = {"SqlStore", "AsyncSqlStore", "Installed", "TableStatus"}

BUILD = (
    "backend, *, store=None, entities=(), namespace='lc', budget=None, listener=None, breaker=None, l1=None,"
    " gutter=None, compare=None, session_key=b''"
)
METHODS = {
    "__init__": BUILD,
    "get": "entity, key=<no key>, *, default=None, consistency=None, deadline=None, **named",
    "get_many": "entity, keys, *, consistency=None, deadline=None",
    "read": "entity, key=<no key>, *, consistency=None, deadline=None, **named",
    "read_many": "entity, keys, *, consistency=None, deadline=None",
    "explain": "entity, key=<no key>, **named",
    "session": "token=None",
    "transaction": "connection=None",
    "put": "entity, key, value",
    "delete": "entity, key",
    "invalidate": "entity, key=<no key>, **named",
    "clear": "*entities",
    "set_mode": "entity, mode",
    "cached": "template, **settings",
    "close": "",
}
SESSION = {
    "__init__": "core, token, keys, store",
    "get": "entity, key=<no key>, *, default=None, deadline=None, **named",
    "get_many": "entity, keys, *, deadline=None",
    "read": "entity, key=<no key>, *, deadline=None, **named",
    "read_many": "entity, keys, *, deadline=None",
    "transaction": "connection=None",
    "put": "entity, key, value",
    "delete": "entity, key",
}
TRANSACTION = {
    "__init__": "core, tx",
    "execute": "sql, params=None, **named",
    "get": "entity, key=<no key>, *, default=None, **named",
    "put": "entity, key, value",
    "delete": "entity, key",
}
ENTITY_SETTINGS = {
    *("name", "load", "save", "remove", "table", "key", "version", "depends_on"),
    *("ttl", "negative_ttl", "stale_ttl", "tombstone_ttl", "jitter"),
    *("codec", "schema", "compress_over", "consistency", "lease", "on_failure", "write", "refresh"),
}
FIELDS = {
    "Row": ("value", "version"),
    "Read": ("value", "found", "version", "source", "as_of_us", "age_ms"),
    "Written": ("version", "confirmed", "keys"),
    "Explanation": ("name", "verdict", "why", "item"),
    "Eventual": (),
    "Bounded": ("max_age",),
    "Strong": ("unavailable",),
    "LeasePolicy": ("hold", "wait", "wait_max"),
    "Ttl": ("jitter", "early"),
    "OnFailure": ("read", "write"),
    "Compare": ("share", "per_s", "later"),
    "StoreBudget": ("at_once", "per_s", "wait"),
}


FACES = [(Cache, AsyncCache), (Transaction, AsyncTransaction), (cachelib.Session, cachelib.AsyncSession)]


def signature(function: Any) -> str:
    """The parameters without self and types."""
    parameters = list(inspect.signature(function).parameters.values())
    plain = [p.replace(annotation=p.empty) for p in parameters if p.name != "self"]
    return str(inspect.Signature(plain)).strip("()").replace(", /", "")


def own(kind: type) -> dict[str, str]:
    """Public methods and the constructor, with their parameters."""
    methods = {name: method for name, method in vars(kind).items() if inspect.isroutine(method)}
    return {name: signature(m) for name, m in methods.items() if not name.startswith("_") or name == "__init__"}


def test_the_package_has_these_names_and_no_others() -> None:
    assert set(cachelib.__all__) == NAMES
    assert len(cachelib.__all__) == len(NAMES)


def test_the_backends_have_these_names_and_no_others() -> None:
    assert set(backends.__all__) == BACKENDS


def test_the_stores_have_these_names_and_no_others() -> None:
    assert set(stores.__all__) == STORES


@pytest.mark.parametrize(
    ("module", "names"),
    [(cachelib, NAMES), (backends, BACKENDS), (stores, STORES)],
    ids=["cachelib", "backends", "stores"],
)
def test_every_public_name_is_there(module: Any, names: set[str]) -> None:
    assert all(getattr(module, name, None) is not None for name in names)


def test_an_unknown_name_is_an_attribute_error() -> None:
    for module in (cachelib, backends, stores):
        with pytest.raises(AttributeError):
            module.NoSuchName  # noqa: B018 - the look itself is tested


@pytest.mark.parametrize("face", [Cache, AsyncCache])
def test_a_cache_has_these_methods(face: type) -> None:
    assert own(face) == METHODS


@pytest.mark.parametrize("face", [Transaction, AsyncTransaction])
def test_a_transaction_has_these_methods(face: type) -> None:
    assert own(face) == TRANSACTION


@pytest.mark.parametrize("face", [cachelib.Session, cachelib.AsyncSession])
def test_a_session_has_these_methods(face: type) -> None:
    assert own(face) == SESSION


@pytest.mark.parametrize(("sync", "awaited"), FACES)
def test_what_blocks_in_one_face_is_awaited_in_the_other(sync: type, awaited: type) -> None:
    plain = {"__init__", "cached", "transaction", "session"}
    for name in set(own(sync)) - plain:
        assert inspect.iscoroutinefunction(getattr(awaited, name)), name
        assert not inspect.iscoroutinefunction(getattr(sync, name)), name


def test_both_faces_are_context_managers() -> None:
    assert {"__enter__", "__exit__"} <= set(vars(Cache))
    assert {"__aenter__", "__aexit__"} <= set(vars(AsyncCache))


@pytest.mark.parametrize(("sync", "awaited"), FACES)
def test_both_faces_have_the_same_public_attributes(sync: type, awaited: type) -> None:
    assert {name for name in vars(sync) if not name.startswith("_")} == {
        name for name in vars(awaited) if not name.startswith("_")
    }


def test_the_two_stores_have_the_same_methods() -> None:
    def public(kind: type) -> dict[str, str]:
        return {name: parameters for name, parameters in own(kind).items() if name != "__init__"}

    sync, awaited = public(stores.SqlStore), public(stores.AsyncSqlStore)
    assert set(sync) == set(awaited)
    assert {name: sync[name] for name in sync if sync[name] != awaited[name]} == {}


def test_an_entity_takes_these_settings() -> None:
    from cachelib.entity import _SETTINGS

    assert _SETTINGS == ENTITY_SETTINGS


@pytest.mark.parametrize("name", FIELDS)
def test_what_is_given_back_and_set_has_these_fields(name: str) -> None:
    kind = getattr(cachelib, name)
    assert tuple(field.name for field in dataclasses.fields(kind)) == FIELDS[name]
    assert kind.__dataclass_params__.frozen


def test_every_error_has_the_one_base() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 10
    assert all(issubclass(kind, cachelib.CacheError) for kind in kinds)


def documented() -> Iterator[tuple[str, Any]]:
    for module in (cachelib, backends, stores):
        for name in module.__all__:
            thing = getattr(module, name)
            yield f"{module.__name__}.{name}", thing
            if inspect.isclass(thing) and thing.__module__.startswith("cachelib"):
                for method_name, method in vars(thing).items():
                    if not method_name.startswith("_") and inspect.isroutine(method):
                        yield f"{module.__name__}.{name}.{method_name}", method


@pytest.mark.parametrize("thing", [pytest.param(thing, id=name) for name, thing in documented()])
def test_it_has_a_docstring(thing: Any) -> None:
    doc = inspect.getdoc(thing) or ""
    # A dataclass without one gets its signature: that says nothing.
    assert doc
    assert not re.match(r"^\w+\(.*\)$", doc)
