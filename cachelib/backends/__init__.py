"""The cache servers: Redis, Memcached and memory, each a codec and a transport.

`Redis`, `AsyncRedis`, `Memcached` and `AsyncMemcached` are looked up when first asked for, so that
only the package of the server in use has to be installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cachelib.backends.base import AsyncBackend, Backend, Capability
from cachelib.backends.memory import AsyncMemory, Memory
from cachelib.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from cachelib.backends.memcached import AsyncMemcached, Memcached
    from cachelib.backends.redis import AsyncRedis, AsyncRedisCluster, Redis, RedisCluster

__all__ = [
    "AsyncBackend",
    "AsyncMemcached",
    "AsyncMemory",
    "AsyncRedis",
    "AsyncRedisCluster",
    "Backend",
    "Capability",
    "Memcached",
    "Memory",
    "Redis",
    "RedisCluster",
    "async_from_url",
    "from_url",
]

_REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")


def __getattr__(name: str) -> Any:
    if name in ("Redis", "AsyncRedis", "RedisCluster", "AsyncRedisCluster"):
        from cachelib.backends import redis  # the extra may be missing

        return getattr(redis, name)
    if name in ("Memcached", "AsyncMemcached"):
        try:
            from cachelib.backends import memcached
        except ModuleNotFoundError as cause:
            raise MissingExtra("the Memcached backend needs pymemcache: pip install 'leasecache[memcached]'") from cause
        return getattr(memcached, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def from_url(url: str) -> Backend:
    """The backend for threads that a URL names. Raises `ConfigError`, or `MissingExtra`."""
    scheme = _scheme(url)
    if scheme in _REDIS_SCHEMES:
        made: Backend = __getattr__("Redis")(url)
    elif scheme in _CLUSTER_SCHEMES:
        made = __getattr__("RedisCluster")(url)
    elif scheme == "memcached":
        made = __getattr__("Memcached")(url)
    else:
        made = Memory()
    return made


def async_from_url(url: str) -> AsyncBackend:
    """The backend for asyncio that a URL names. Raises `ConfigError`, or `MissingExtra`."""
    scheme = _scheme(url)
    if scheme in _REDIS_SCHEMES:
        made: AsyncBackend = __getattr__("AsyncRedis")(url)
    elif scheme in _CLUSTER_SCHEMES:
        made = __getattr__("AsyncRedisCluster")(url)
    elif scheme == "memcached":
        made = __getattr__("AsyncMemcached")(url)
    else:
        made = AsyncMemory()
    return made


def _scheme(url: str) -> str:
    scheme = urlsplit(url).scheme
    if scheme not in (*_REDIS_SCHEMES, *_CLUSTER_SCHEMES, "memcached", "memory"):
        raise ConfigError(
            f"cache URL scheme {scheme!r} is unknown: give redis://host:port/0, rediss://…, unix://…,"
            " redis+sentinel://host:port/service, redis+cluster://host:port, memcached://host:port or memory://"
        )
    return scheme
