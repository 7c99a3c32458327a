"""How a connection for threads is made, and how its faults are told.

pymemcache makes it (addresses, TLS, timeouts); from then on the socket is ours: its `Client.get`
spends more time around the socket than in it, and knows no binary-safe pipeline.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from typing import Any

from cachelib.backends.memcached.settings import Address, Settings
from cachelib.errors import CacheUnavailable, MissingExtra, ProtocolError

try:
    from pymemcache.client.base import Client
    from pymemcache.exceptions import MemcacheError, MemcacheUnexpectedCloseError
except ImportError as cause:
    raise MissingExtra("the memcached backend is made of pymemcache: pip install 'leasecache[memcached]'") from cause


def connect(address: Address, settings: Settings) -> socket.socket:
    """A connected socket on which a memcached has answered."""
    try:
        if isinstance(address, str):
            return _connect(address, settings, settings.tls)
        # pymemcache tries the first address of a host only, which for localhost may be the one
        # of the two loopbacks that nobody listens on.
        host, port = address
        tls = _Named(settings.tls, host) if settings.tls is not None else None
        found = dict.fromkeys(info[4][:2] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        *others, last = found
        for other in others:
            with contextlib.suppress(OSError):
                return _connect(other, settings, tls)
        return _connect(last, settings, tls)
    except (OSError, UnicodeError, MemcacheUnexpectedCloseError) as error:  # UnicodeError: of the name's lookup
        raise CacheUnavailable(f"memcached at {where(address)} cannot be reached: {error}") from error
    except MemcacheError as error:
        raise ProtocolError(f"what answers at {where(address)} is no memcached: {error}") from error


def _connect(address: Any, settings: Settings, tls: Any) -> socket.socket:
    client = Client(
        address,
        connect_timeout=settings.connect_timeout_s,
        timeout=settings.timeout_s,
        no_delay=True,
        tls_context=tls,
    )
    try:
        client.version()
        connected: socket.socket = client.sock
        if tls is None:
            _let_the_kernel_count(connected, settings.timeout_s)
    except BaseException:  # an interrupt must not leave the socket behind
        client.close()
        raise
    return connected


def _let_the_kernel_count(connected: socket.socket, timeout_s: float) -> None:
    """Bound sending and receiving by socket options: Python's own timeouts cost a `poll` before each call."""
    connected.settimeout(None)
    seconds, rest = divmod(timeout_s, 1)
    interval = struct.pack("@ll", int(seconds), int(rest * 1_000_000))
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)


class _Named:
    """A TLS context that checks the certificate against the host's name, though we connect to an address of it."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._context = context
        self._host = host

    def wrap_socket(self, plain: socket.socket, server_hostname: str) -> ssl.SSLSocket:
        return self._context.wrap_socket(plain, server_hostname=self._host)


def where(address: Address) -> str:
    """An address for a message."""
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"


def all_busy(address: Address, settings: Settings) -> CacheUnavailable:
    """Nobody gave a connection back in time."""
    return CacheUnavailable(
        f"all {settings.connections_max} connections to memcached at {where(address)} were in use for "
        f"{settings.timeout_ms} ms: raise connections_max, or call less at once"
    )


def late(address: Address, timeout_s: float) -> CacheUnavailable:
    """It has not answered in time."""
    return CacheUnavailable(f"memcached at {where(address)} did not answer within {timeout_s * 1000:.0f} ms")
