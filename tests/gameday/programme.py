"""Which incidents there are, in the order in which they are played."""

from __future__ import annotations

from tests.gameday import incidents
from tests.gameday.client_incidents import CLIENTS
from tests.gameday.kafka_incidents import KAFKA
from tests.gameday.node_incidents import behind
from tests.gameday.shared_incidents import SHARED, burn

# The objective's windows are hours: what spends it is the last in its world.
ALL = (*incidents.ALL, *KAFKA, *(one for one in (*SHARED, *CLIENTS) if one is not burn), burn, behind)
SHORT = incidents.SHORT
