"""Redis 6.2 or newer: the cache machine as one script on the server, `item.lua`."""

try:
    import redis as _redis  # noqa: F401
except ImportError as cause:
    from cachelib.errors import MissingExtra

    raise MissingExtra("the Redis backend needs redis-py: pip install 'leasecache[redis]'") from cause

from cachelib.backends.redis.backend import AsyncRedis, Redis
from cachelib.backends.redis.cluster_backend import AsyncRedisCluster, RedisCluster
from cachelib.backends.redis.settings import Settings

__all__ = ["Redis", "AsyncRedis", "RedisCluster", "AsyncRedisCluster", "Settings"]
