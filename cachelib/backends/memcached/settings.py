"""The settings of a memcached node, the same for both faces."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypedDict
from urllib.parse import urlsplit

from cachelib.envelope import HEADER_BYTES
from cachelib.errors import ConfigError
from cachelib.policy import refuse_unknown

Address: TypeAlias = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""

PORT = 11211
ITEM_BYTES_MAX = (1 << 20) - 512
"""With its default `-I 1m`, 1.6.18 keeps 1 048 517 bytes less the name's: 1 048 267 with the longest name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a node is reached, and the bounds of what is asked of it. Checked when built."""

    connections_max: int = 64
    """For threads: connections open at once; a caller waits up to `timeout_ms` for one."""
    in_flight_max: int = 1000
    """For asyncio: requests under way at once on an event loop's one connection; a caller waits up to
    `timeout_ms` for a place."""
    connect_timeout_ms: int = 1000
    timeout_ms: int = 1000
    """How long the server may take to answer one round trip."""
    item_bytes_max: int = ITEM_BYTES_MAX
    """The largest item that is sent, header included. Set it along with the server's `-I`."""
    cas_tries: int = 8
    """How often an operation is tried anew because somebody else wrote first, before it gives way (I14)."""
    pipeline_max: int = 100
    """How many names are asked in one round trip. Bounded also because a server that waits for
    us to read does not read what we send."""
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        numbers = [field.name for field in fields(self) if field.name not in ("item_bytes_max", "tls")]
        for name in numbers:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"memcached: {name} must be a whole number of at least 1, not {value!r}")
        if self.item_bytes_max <= HEADER_BYTES:
            raise ConfigError(
                f"memcached: item_bytes_max must be above {HEADER_BYTES}, an item's header; it is {self.item_bytes_max}"
            )
        if self.pipeline_max > 1000:
            raise ConfigError(f"memcached: pipeline_max may be at most 1000, not {self.pipeline_max}")

    @property
    def timeout_s(self) -> float:
        """`timeout_ms` in seconds."""
        return self.timeout_ms / 1000

    @property
    def connect_timeout_s(self) -> float:
        """`connect_timeout_ms` in seconds."""
        return self.connect_timeout_ms / 1000

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Settings:
        """The settings given by name. A name that is none raises `ConfigError` with the nearest one."""
        known = [field.name for field in fields(cls)]
        refuse_unknown("memcached", [name for name in given if name not in known], known)
        return cls(**given)


class Given(TypedDict, total=False):
    """`Settings` as keyword arguments, for type checkers."""

    connections_max: int
    in_flight_max: int
    connect_timeout_ms: int
    timeout_ms: int
    item_bytes_max: int
    cas_tries: int
    pipeline_max: int
    tls: ssl.SSLContext | None


def address_of(servers: str | Sequence[str]) -> Address:
    """The one server in `host`, `host:port`, `[ipv6]:port`, `memcached://host:port`, `unix:///path` or `/path`."""
    given = [servers] if isinstance(servers, str) else list(servers)
    if len(given) != 1 or "," in given[0]:
        raise ConfigError(
            f"a Memcached backend is one node, and {servers!r} names another number of them: "
            "make one backend for each and spread the keys over them above"
        )
    text = given[0]
    if text.startswith(("/", "unix:")):
        return _path(text)
    url = urlsplit(text if "://" in text else f"memcached://{text}")
    try:
        port = url.port or PORT
    except ValueError as cause:
        raise _wrong(text) from cause
    if url.scheme != "memcached" or not url.hostname or url.path not in ("", "/") or url.query or url.username:
        raise _wrong(text)
    return url.hostname, port


def whereabouts(address: Address) -> str:
    """The address in words that mean the same server on every machine; see `base.Addressed`.

    What is local to a machine is told with its name. So a server that is reached by two names counts as two.
    """
    if isinstance(address, str):
        return f"{socket.gethostname()}:{address}"
    host, port = address
    return f"{f'{socket.gethostname()}:' if _is_local(host) else ''}{host}:{port}"


def _is_local(host: str) -> bool:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return found.is_loopback or found.is_unspecified


def _path(text: str) -> str:
    path = text.removeprefix("unix:").removeprefix("//")
    if not path.startswith("/"):
        raise _wrong(text)
    return path


def _wrong(text: str) -> ConfigError:
    return ConfigError(f"{text!r} is no address of a memcached: write memcached://host:port or unix:///path")
