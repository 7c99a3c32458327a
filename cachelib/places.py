"""Where the nodes of a cache are: what the user gave, by the names that the layout calls them.

A layout names a node by its URL without user, password and options, since every client and person reads it.
A client that is shown a name it was not given reaches that node as it was told to reach its like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import parse_qs, urlsplit

from cachelib.errors import CacheUnavailable, ConfigError

B = TypeVar("B")
Given: TypeAlias = "str | B | Sequence[str] | Mapping[str, str | B]"
"""One URL or backend; or several: URLs, or backends by name."""

_PORTS = {"redis": 6379, "rediss": 6379, "memcached": 11211}


def node_name(url: str) -> str:
    """What the layout calls the node of this URL: without credentials, options and what goes without saying."""
    if "://" not in url:
        return url  # a name that somebody chose
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        number = "".join(parse_qs(parts.query).get("db", [])[:1]) if parts.scheme == "unix" else ""
        return base if number in ("", "0") else f"{base}?db={number}"
    try:
        port = parts.port or _PORTS[parts.scheme]
    except ValueError as cause:
        raise ConfigError(f"{url.rpartition('@')[2]!r} has no port that can be read: {cause}") from cause
    host = parts.hostname or "localhost"
    database = parts.path.strip("/")
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"{parts.scheme}://{where}" + ("" if database in ("", "0") else f"/{database}")


def each_url(given: str | Sequence[str]) -> list[str]:
    """The URL of each node: `memcached://a,b` are two."""
    urls = [given] if isinstance(given, str) else list(given)
    each: list[str] = []
    for url in urls:
        scheme, separator, rest = str(url).partition("://")
        if scheme == "memcached" and separator:
            each += [f"memcached://{host.strip()}" for host in rest.split(",") if host.strip()]
        else:
            each.append(url)
    return each


def as_its_like(name: str, like: str) -> str:
    """The URL of a node that the layout names, with user, password and options of another's URL."""
    parts, found = urlsplit(like), urlsplit(name)
    who, at, _ = parts.netloc.rpartition("@")
    options = "&".join(one for one in (found.query, parts.query if parts.scheme != "unix" else "") if one)
    return f"{found.scheme}://{who}{at}{found.netloc}{found.path}" + (f"?{options}" if options else "")


class Places(Generic[B]):
    """The nodes that a user gave, and the way to any that the layout names. `make`: from a URL to a backend.

    `names` is empty where one node was given: then it is the one that a layout without names means.
    """

    def __init__(self, given: Given[B], make: Callable[[str], B]) -> None:
        self._make = make
        self._urls: dict[str, str] = {}
        self._made: dict[str, B] = {}
        for name, one in _by_name(given).items():
            if isinstance(one, str):
                self._urls[name] = one
            else:
                self._made[name] = one
        names = [*_by_name(given)]
        self.first = self.reach(names[0])
        """The node that a layout without names means."""
        self.names = tuple(names) if len(names) > 1 else ()

    def reach(self, name: str) -> B:
        """The backend of the node that the layout calls so; made once. Raises `CacheUnavailable` for a stranger."""
        made = self._made.get(name)
        if made is None:
            made = self._made.setdefault(name, self._new(name))
        return made

    def _new(self, name: str) -> B:
        url = self._urls.get(name)
        if url is not None:
            return self._make(url)
        kind = urlsplit(name).scheme
        like = next((one for one in self._urls.values() if urlsplit(one).scheme == kind), name)
        try:
            return self._make(as_its_like(name, like))
        except ConfigError as cause:
            raise CacheUnavailable(
                f"the layout names the node {name!r}, which this cache was not given and cannot reach by that name:"
                " give Cache(…) that node, too"
            ) from cause

    def all(self) -> list[B]:
        """Every backend made so far."""
        return list(self._made.values())


def _by_name(given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):
        found = dict(given)
    elif isinstance(given, str) or (isinstance(given, Sequence) and all(isinstance(one, str) for one in given)):
        urls = each_url(given)
        found = {node_name(url): url for url in urls}
        if len(found) < len(urls):
            raise ConfigError(f"a node is given twice among {', '.join(sorted(found))}")
    elif isinstance(given, Sequence):
        raise ConfigError("several backends need names that all clients agree on: give a mapping, {name: backend, …}")
    else:
        found = {"": given}
    if not found:
        raise ConfigError("no cache node is given")
    return found
