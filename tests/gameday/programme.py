"""Which incidents there are, in the order in which they are played."""

from __future__ import annotations

from tests.gameday import incidents
from tests.gameday.client_incidents import CLIENTS
from tests.gameday.kafka_incidents import KAFKA
from tests.gameday.node_incidents import behind
from tests.gameday.shared_incidents import SHARED, burn
from tests.gameday.store_incidents import STORE

# The objective's windows are hours: what spends it is the last in its world.
ALL = (*incidents.ALONE, *KAFKA, *(one for one in (*CLIENTS, *SHARED) if one is not burn), *STORE, burn, behind)
SHORT = incidents.SHORT

NOT_CAUSED = {
    "InvalidationLagHigh": "its cause, a long transaction, is that of the burning budget",
    "OffsetGapOrReset": "the log would have to be purged before it was read, or the store replaced",
    "RelayBehind": "the series has a connector in place of the relay",
    "CacheServesStale": "a cache that serves old rows has to be made by hand: nothing that we know of does it",
    "InvalidationApplyErrors": "a node that fails now and then has to be made so for five minutes",
    "CacheUnreachable": "the application has to lose its way to a node that the daemon reaches",
    "ClockSkew": "a machine's clock would have to be set",
    "ReloadRefused": "one command, nothing waits: `invalidator check` says what is wrong",
    "UndecodableRecords": "follows from the poison message",
    "CacheNodeFull": "the cache server would have to be started with too little memory",
    "WritesUnconfirmed": "follows from the lost node",
    "UnknownTables": "for information",
}
"""Alerts that no incident here must cause, and why not."""
