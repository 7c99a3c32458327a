"""What is searched: who takes part, and what may happen to them."""

from __future__ import annotations

from tests.model.world import Config

CONFIGS: dict[str, Config] = {
    "write-through": Config(),
    "write-through, the log rewound": Config(rewind=1, evict=0),
    "write-through, somebody dies": Config(crash=1, evict=0),
    "write-through, each reads twice": Config(reads=2, evict=0, expire=0),
    "invalidate": Config(write="invalidate"),
    "populate": Config(write="populate", evict=0),
    "revoke": Config(write="revoke"),
    "deletes": Config(deletes=True),
    "deletes, no row at first": Config(deletes=True, row_at_first=False),
    "deletes, invalidate": Config(deletes=True, write="invalidate"),
    "deletes, populate": Config(deletes=True, write="populate", evict=0),
    "log ahead": Config(log_ahead=True),
    "log ahead, deletes": Config(log_ahead=True, deletes=True, expire=0),
    "log ahead, no row at first": Config(log_ahead=True, deletes=True, row_at_first=False, expire=0),
    "log ahead, refresh": Config(log_ahead=True, refresh="second_look"),
    "log ahead, refresh, deletes": Config(log_ahead=True, refresh="second_look", deletes=True, expire=0),
    "log ahead, tombstones": Config(log_ahead=True, tombstones=True, expire=0),
    "log ahead, tombstones that stay, no second look": Config(
        log_ahead=True, tombstones=True, second_look=False, evict=0
    ),
    "replicas, tombstones that stay (settle)": Config(
        replica_lag=1, tombstones=True, second_look=False, evict=0, strong=False
    ),
    "keys of many rows": Config(many_rows=True),
    "keys of many rows, log ahead": Config(many_rows=True, log_ahead=True, expire=0),
    "a store without versions": Config(versions="none", deletes=True),
    "a store without versions, no row at first": Config(versions="none", deletes=True, row_at_first=False),
    "an insert drew before a delete, revoke": Config(versions="early_insert", deletes=True, write="revoke"),
    "a counter that restarts, revoke": Config(versions="restart", deletes=True, write="revoke"),
    "a counter that restarts, deletes without a version": Config(
        versions="restart_revoke", deletes=True, write="revoke"
    ),
    "early refresh": Config(early_refresh=True, age=1),
    "patient readers": Config(plans=("patient", "patient"), evict=0),
    "a reader that may not fill": Config(plans=("strong", "no_fill")),
    "a strong and an eventual reader": Config(plans=("strong", "eventual"), deletes=True),
    "loads fail": Config(load_fail=1, early_refresh=True, age=1, evict=0),
    "readers give up": Config(cancel=1, expire=0),
    "answers are lost, readers refuse": Config(fault=1, writers=1),
    "answers are lost, readers ask the store": Config(fault=1, writers=1, when_down="store"),
    "answers are lost, two writers": Config(fault=1, evict=0, expire=0, plans=("strong",), deletes=True),
}

# What no rule of the protocol keeps: versions that do not rise in commit order, with writes that carry them.
# Each must break; a store of that kind declares write="revoke" (searched above).
BEYOND: dict[str, Config] = {
    "a counter that restarts, write-through": Config(versions="restart", deletes=True),
    "an insert drew before a delete, write-through": Config(versions="early_insert", deletes=True),
    "an insert drew before a delete, invalidate": Config(versions="early_insert", deletes=True, write="invalidate"),
}
