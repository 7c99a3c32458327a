"""Memcached 1.6 or newer: the cache machine run by the client, over compare-and-set."""

from cachelib.backends.memcached.backend import AsyncMemcached, Memcached
from cachelib.backends.memcached.settings import Settings

__all__ = ["Memcached", "AsyncMemcached", "Settings"]
