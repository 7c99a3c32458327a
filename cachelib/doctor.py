"""What may be wrong with an installation: the import-name clash, missing extras, servers that do not answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util

from cachelib.backends import from_url
from cachelib.errors import CacheError, CacheUnavailable, ConfigError, MissingExtra
from cachelib.stores import SqlStore

_EXTRAS = {"redis": "redis", "pymemcache": "memcached", "sqlalchemy": "sql", "psycopg": "postgresql", "click": "cli"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `ok` None: worth knowing, not wrong."""

    what: str
    ok: bool | None
    say: str


def examine(cache: str | None, store: str | None) -> Iterator[Finding]:
    """Look at the environment, and at a cache and a store where their URLs are given."""
    yield _name_clash()
    for module, extra in _EXTRAS.items():
        there = util.find_spec(module) is not None
        yield Finding(module, True if there else None, "installed" if there else f"not installed: extra [{extra}]")
    if cache:
        yield _cache(cache)
    if store:
        yield _store(store)


def _name_clash() -> Finding:
    owners = set(metadata.packages_distributions().get("cachelib", ()))
    others = sorted(owners - {"leasecache"})
    if not others:
        return Finding("import name", True, "'cachelib' is leasecache's")
    return Finding(
        "import name",
        False,
        f"{', '.join(others)} installed its own 'cachelib' into this environment (Flask-Caching and Flask-Session"
        f" do): the two overwrite each other. Use separate environments, or: pip uninstall {others[0]} &&"
        " pip install --force-reinstall --no-deps leasecache",
    )


def _cache(url: str) -> Finding:
    try:
        backend = from_url(url)
        try:
            return Finding("cache", True, f"{backend.capability.kind} answers, instance {backend.instance()}")
        finally:
            backend.close()
    except (CacheUnavailable, ConfigError, MissingExtra) as error:
        return Finding("cache", False, str(error))


def _store(url: str) -> Finding:
    try:
        with SqlStore(url) as store:
            return Finding("store", True, f"answers, identity {store.identity()}")
    except CacheError as error:
        return Finding("store", False, str(error))
