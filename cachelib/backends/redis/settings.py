"""The settings of a Redis node, the same for both faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from redis.asyncio.connection import ConnectionPool as AsyncConnectionPool
from redis.connection import ConnectionPool

from cachelib.backends.redis.sentinels import asks_sentinels, sentinel_pool
from cachelib.errors import ConfigError
from cachelib.policy import refuse_unknown

P = TypeVar("P", ConnectionPool, AsyncConnectionPool)

VALUE_BYTES_MAX = 512 * 1024 * 1024
"""The longest string that Redis keeps."""
NAMES_PER_CALL_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a node is reached, and the bounds of what is asked of it. Checked when built."""

    connections_max: int = 64
    """For threads: connections open at once."""
    in_flight_max: int = 1000
    """For asyncio: requests under way at once on an event loop's one connection."""
    wait_ms: int = 500
    """How long a caller waits for a connection, or for a place on the one."""
    connect_timeout_ms: int = 1000
    timeout_ms: int = 500
    """How long the server may keep silent."""
    name_bytes_max: int = 512
    payload_bytes_max: int = 1 << 20
    names_per_call: int = 100
    """How many names of a batch one call of the script carries; the server does nothing else meanwhile."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"redis: {field.name} must be a whole number of at least 1, not {value!r}")
        if self.payload_bytes_max > VALUE_BYTES_MAX - 1024:
            raise ConfigError(f"redis: payload_bytes_max must stay 1 KiB below {VALUE_BYTES_MAX}, what redis can keep")
        if self.names_per_call > NAMES_PER_CALL_MAX:
            raise ConfigError(f"redis: names_per_call may be at most {NAMES_PER_CALL_MAX}, not {self.names_per_call}")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Settings:
        """The settings given by name. A name that is none raises `ConfigError` with the nearest one."""
        known = [field.name for field in fields(cls)]
        refuse_unknown("redis", [name for name in given if name not in known], known)
        return cls(**given)

    def of_connections(self) -> dict[str, Any]:
        """What redis-py needs to know. RESP2: no pushed messages between the replies. No retries: they are ours."""
        return {
            "socket_timeout": self.timeout_ms / 1000,
            "socket_connect_timeout": self.connect_timeout_ms / 1000,
            "protocol": 2,
            "decode_responses": False,
            "health_check_interval": 0,
        }


def pool_of(kind: type[P], url: str, settings: Settings, options: Mapping[str, Any]) -> P:
    """redis-py's pool for this URL: we only let it make connections, and count them ourselves."""
    asked = {**settings.of_connections(), **options}
    try:
        pool = sentinel_pool(kind, url, asked) if asks_sentinels(url) else kind.from_url(url, **asked)
    except (ValueError, TypeError) as cause:
        raise ConfigError(f"redis: this is no address, or no option, of a redis: {cause}") from cause
    _check(pool.connection_kwargs)
    pool.max_connections = 2**31
    return pool


def _check(options: Mapping[str, Any]) -> None:
    """A URL overrules what was asked for; these would change what a reply is, or send operations twice."""
    if options.get("protocol") not in (2, "2") or options.get("decode_responses"):
        raise ConfigError("redis: take protocol= and decode_responses= out of the URL: replies are read as RESP2 bytes")
    if options.get("retry") or options.get("retry_on_error") or options.get("retry_on_timeout"):
        raise ConfigError("redis: take retries out of the URL and the options: an operation must not be sent twice")


def place_of(options: Mapping[str, Any]) -> str:
    """Where the server is, for messages; never with a password."""
    by_sentinels = getattr(options.get("connection_pool"), "service_name", None)
    if by_sentinels is not None:
        return f"the master of {by_sentinels}, by its sentinels"
    path = options.get("path")
    return str(path) if path else f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
