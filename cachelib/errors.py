"""What can go wrong, one class for each thing that a caller can do about it.

Every message says what happened, to which key or setting, and what to do next.
"""

from __future__ import annotations


class CacheError(Exception):
    """The base of all errors of this package."""


class ConfigError(CacheError, ValueError):
    """A setting, a declaration or a call is wrong: change the program."""


class BadKey(CacheError, ValueError):
    """A key does not fit its entity's template. Nothing was sent."""


class BadToken(CacheError, ValueError):
    """A session token is damaged, of a later program, or not sealed by this one: begin a session without it."""


class MissingExtra(CacheError, ImportError):
    """An optional package is needed: install the extra that the message names."""


class CacheUnavailable(CacheError):
    """A cache node could not be reached or did not answer in time."""


class CacheFull(CacheError):
    """A cache node refused a write for want of memory: give it more, or an eviction policy."""


class ProtocolError(CacheUnavailable):
    """A node answered something that the protocol does not know; the connection was dropped."""


class LoadFailed(CacheError):
    """The loader raised, or the store could not be asked; the cause is chained."""


class StoreBudgetExceeded(CacheError):
    """The loads of the store from misses are at their limit; try later, or raise the limit."""


class DeadlineExceeded(CacheError, TimeoutError):
    """The deadline of the call passed; the message says what was waited for."""


class Unconfirmed(CacheError):
    """The write is committed, but the cache did not confirm that it knows. Never repeat it."""

    def __init__(self, message: str, version: int | None = None) -> None:
        super().__init__(message)
        self.version = version


class CommitUnknown(CacheError):
    """The store did not say whether a commit took effect. Look before repeating it."""


class ValueTooLarge(CacheError, ValueError):
    """A value does not fit into the cache. Reads return it uncached; they do not raise this."""


class DecodeError(CacheError):
    """Bytes in the cache are not a value of this entity; reads count it and load instead."""


class LaterCodec(DecodeError):
    """The value was written by a program with a later codec: it is left to that program."""


class StoreError(CacheError):
    """The store refused or could not be reached; the cause is chained."""


class LogGap(StoreError):
    """Changes were lost to this consumer: the log was purged or went back."""


class LayoutConflict(StoreError):
    """The layout was changed by somebody else in the meantime: read it again."""
