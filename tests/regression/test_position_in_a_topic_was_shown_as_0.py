"""The metric `invalidator_position` was 0 for every partition of a topic, however far the node was.

A position in a topic is the offset and, behind LOG_MARK, the topic's identity; only a point was taken for the end of
the number, as it ends that of the store's own log. The alert InvalidationStalled asks whether the sum of a node's
positions stands while changes wait: where changes always waited, as on a busy system, it called somebody for nothing;
and no dashboard showed a position.

Of its class: the promtool cases write the metric by hand. What the daemon shows must come from positions of every kind.
"""

from __future__ import annotations

import pytest

from cachelib.stores.log_rows import position
from invalidator.sources.base import leading_number
from invalidator.sources.kafka_places import place


@pytest.mark.parametrize(
    "written",
    [place(4055, "jz-L33IeSce7BkAmRH5ELw"), place(4055, ""), position(4055), position(4055, 12)],
    ids=["topic", "topic of old brokers", "log of SQLite", "log of PostgreSQL"],
)
def test_the_number_that_leads_a_position_is_told_whatever_stands_behind_it(written: str) -> None:
    assert leading_number(written) == 4055


def test_before_everything_is_0() -> None:
    assert leading_number("") == 0
