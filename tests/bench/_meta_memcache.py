"""meta-memcache, a peer that may be missing: it is built of compiled parts that not every Python has."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from tests.bench._one_row import PAYLOAD
from tests.servers.ports import HOST

try:
    from meta_memcache import CacheClient, ServerAddress, connection_pool_factory_builder
except ImportError as missing:  # pragma: no cover - as the machine is
    print(f"meta-memcache is left out: {missing}; pip install 'leasecache[bench]' to have its rows", file=sys.stderr)
    CacheClient = None


def client_of(port: int) -> Any:
    """Its client of one server; None where the package is missing."""
    if CacheClient is None:
        return None
    servers = [ServerAddress(HOST, port)]
    return CacheClient.cache_client_from_servers(servers, connection_pool_factory_fn=connection_pool_factory_builder())


def one(port: int) -> Callable[[], Any] | None:
    """Its get of one key that holds the payload, through its serializer, as its users have it."""
    client = client_of(port)
    if client is None:
        return None
    client.set(key="meta-k", value=PAYLOAD, ttl=3600)
    assert client.get(key="meta-k") == PAYLOAD
    return lambda: client.get(key="meta-k")


def many(port: int, keys: Sequence[str]) -> Callable[[], Any] | None:
    """Its get of many keys that hold the payload."""
    client = client_of(port)
    if client is None:
        return None
    names = [f"meta-{key}" for key in keys]
    for name in names:
        client.set(key=name, value=PAYLOAD, ttl=3600)
    assert len(client.multi_get(keys=names)) == len(names)
    return lambda: client.multi_get(keys=names)
