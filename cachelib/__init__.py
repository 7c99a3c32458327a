"""A write-through distributed cache with an invalidation bus. The README has the first steps."""

from cachelib.aio import AsyncCache
from cachelib.asked import Read
from cachelib.client import Cache
from cachelib.codecs import Codec
from cachelib.commit import Written
from cachelib.entity import Entity
from cachelib.errors import (
    BadKey,
    BadToken,
    CacheError,
    CacheUnavailable,
    CommitUnknown,
    ConfigError,
    DeadlineExceeded,
    DecodeError,
    LayoutConflict,
    LoadFailed,
    LogGap,
    MissingExtra,
    StoreBudgetExceeded,
    StoreError,
    Unconfirmed,
)
from cachelib.explain import Explanation
from cachelib.model import Row
from cachelib.policy import L1, Bounded, Compare, Eventual, LeasePolicy, OnFailure, StoreBudget, Strong, Ttl
from cachelib.sessions import AsyncSession, Session
from cachelib.transaction import AsyncTransaction, Transaction

__all__ = [
    "AsyncCache",
    "AsyncSession",
    "AsyncTransaction",
    "BadKey",
    "BadToken",
    "Bounded",
    "Cache",
    "CacheError",
    "CacheUnavailable",
    "Codec",
    "Compare",
    "CommitUnknown",
    "ConfigError",
    "DeadlineExceeded",
    "DecodeError",
    "Entity",
    "Eventual",
    "Explanation",
    "L1",
    "LayoutConflict",
    "LeasePolicy",
    "LoadFailed",
    "LogGap",
    "MissingExtra",
    "OnFailure",
    "Read",
    "Row",
    "Session",
    "StoreBudget",
    "StoreBudgetExceeded",
    "StoreError",
    "Strong",
    "Transaction",
    "Ttl",
    "Unconfirmed",
    "Written",
]
