"""Each backend registered a hook of its own for forks, and the interpreter keeps those for ever: a process that opened
and closed caches all day ran through all of them at each fork, and kept them in memory.

The tests of forks should have caught it; they had one backend each.
"""

from __future__ import annotations

import gc
import os

import pytest

from cachelib import forks
from cachelib.backends.memcached import AsyncMemcached, Memcached
from cachelib.backends.redis import AsyncRedis, Redis


@pytest.mark.parametrize("kind", [Redis, AsyncRedis, Memcached, AsyncMemcached])
def test_backend_that_is_gone_leaves_no_hook(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: asked.append(hooks))
    scheme = "redis" if "Redis" in kind.__name__ else "memcached"
    gc.collect()
    before = len(forks._living)
    backend = kind(f"{scheme}://127.0.0.1:1")
    assert len(forks._living) == before + 1
    del backend
    gc.collect()
    assert len(forks._living) == before
    assert asked == []
