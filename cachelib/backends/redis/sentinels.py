"""A Redis whose master is found by asking Sentinels: `redis+sentinel://host:port,host:port/service[/db]`.

redis-py asks them each time a connection is opened, so a new connection always leads to the master of that moment.
A server that is no master any more closes what it has, or refuses to write; either way the next call opens a new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio.connection import ConnectionPool as AsyncConnectionPool
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.connection import ConnectionPool
from redis.sentinel import Sentinel, SentinelConnectionPool

from cachelib.backends.redis.cluster_map import place_of
from cachelib.errors import ConfigError

P = TypeVar("P", ConnectionPool, AsyncConnectionPool)
SCHEMES = ("redis+sentinel", "rediss+sentinel")
PORT = 26379
_OF_SENTINELS = {"sentinel_username": "username", "sentinel_password": "password"}


def asks_sentinels(url: str) -> bool:
    """Whether the URL is one of these."""
    return urlsplit(url).scheme in SCHEMES


def sentinel_pool(kind: type[P], url: str, options: Mapping[str, Any]) -> P:
    """redis-py's pool for this URL. Raises `ConfigError`.

    User and password are the servers'; the Sentinels' are `?sentinel_username=…&sentinel_password=…`.
    """
    parts = urlsplit(url)
    hosts, service, database = _named(parts)
    given = dict(parse_qsl(parts.query))
    strangers = sorted(set(given) - set(_OF_SENTINELS))
    if strangers:
        raise ConfigError(
            f"redis: {strangers[0]!r} is no option of a sentinel's URL: there are {', '.join(_OF_SENTINELS)}"
        )
    timeouts = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout") if name in options}
    to_sentinels = timeouts | {_OF_SENTINELS[name]: value for name, value in given.items()}
    to_servers: dict[str, Any] = {**options, "db": database, "ssl": parts.scheme.startswith("rediss")}
    if parts.password is not None:
        to_servers |= {"username": unquote(parts.username or "") or None, "password": unquote(parts.password)}
    classes: Any = (Sentinel, SentinelConnectionPool)
    if issubclass(kind, AsyncConnectionPool):
        classes = (AsyncSentinel, AsyncSentinelConnectionPool)
    sentinels, pool = classes
    return cast(P, pool(service, sentinels(hosts, 0, to_sentinels), **to_servers))


def replicas_behind(pool: ConnectionPool) -> list[str]:
    """The places of the service's replicas that the Sentinels hold for alive. Asks them."""
    found: Any = pool
    return [place_of(*one) for one in found.sentinel_manager.discover_slaves(found.service_name)]


async def async_replicas_behind(pool: AsyncConnectionPool) -> list[str]:
    """`replicas_behind`, awaited."""
    found: Any = pool
    try:
        replicas = await found.sentinel_manager.discover_slaves(found.service_name)
    finally:
        await leave_sentinels(pool)
    return [place_of(*one) for one in replicas]


def url_of(url: str, place: str) -> str:
    """The URL of one server behind the Sentinels of this one."""
    parts = urlsplit(url)
    who, at, _ = parts.netloc.rpartition("@")
    _, _, database = _named(parts)
    return f"{parts.scheme.removesuffix('+sentinel')}://{who}{at}{place}/{database}"


async def leave_sentinels(pool: AsyncConnectionPool) -> None:
    """Close the connections to the Sentinels, if it has any: they are asked only while one to the master is opened."""
    for client in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
        await client.aclose()


def _named(parts: SplitResult) -> tuple[list[tuple[str, int]], str, int]:
    """The Sentinels, the service and the database. Raises `ConfigError`."""
    service, _, database = parts.path.strip("/").partition("/")
    hosts = []
    try:
        for each in parts.netloc.rpartition("@")[2].split(","):
            found = urlsplit(f"//{each.strip()}")
            hosts.append((found.hostname or "", found.port or PORT))
        number = int(database or 0)
    except ValueError as cause:
        raise _wrong(parts) from cause
    if not service or not all(host for host, _ in hosts):
        raise _wrong(parts)
    return hosts, service, number


def _wrong(parts: SplitResult) -> ConfigError:
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return ConfigError(
        f"{where} names no service: give redis+sentinel://host:port,host:port/service, with /db behind it"
    )
