"""What kafka-python tells of the group: partitions given, taken and lost; and what it has to be told."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from invalidator.sources.kafka_client import Membership
from invalidator.sources.kafka_places import Mark, Part

LOOK_S = 0.01


class Holder(Protocol):
    """The client, as far as this goes."""

    def given(self, parts: Collection[Part]) -> None:
        """Take these, and hold them."""

    def taken(self, parts: Collection[Part]) -> None:
        """Forget these."""

    async def saved(self, marks: Mapping[Part, Mark]) -> None:
        """Commit."""

    async def pause_briefly(self) -> None:
        """Let the loop go on."""


def listener(client: Holder, membership: Membership, flush_s: float) -> Any:
    """Its methods run on the loop that also sends heartbeats, so they only await: a blocking call raises or starves."""
    from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener

    class Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
        async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
            parts = _plain(revoked)
            for _ in range(int(flush_s / LOOK_S)):
                if membership.settled(parts):
                    break
                await client.pause_briefly()
            client.taken(parts)
            await client.saved(membership.taken(parts, lost=False))

        async def on_partitions_lost(self, lost: Collection[Any]) -> None:
            client.taken(_plain(lost))
            membership.taken(_plain(lost), lost=True)

        async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
            client.given(_plain(assigned))
            membership.given(_plain(assigned))

    return Listener()


def _plain(parts: Collection[Any]) -> list[Part]:
    return [Part(at.topic, at.partition) for at in parts]


def mind_the_join(coordinator: Any) -> None:
    """Say before each poll that a join which is under way is still wanted.

    The leader joins anew because the topics' metadata changed; the poll's time is over before the answer
    it shares out the partitions by the new metadata, so that now nothing asks for a join any more
    no later poll takes the result: no assignment, and heartbeats stay off for ever (one join in twenty)
    """
    if getattr(coordinator, "_join_task", None) is not None:
        coordinator.request_rejoin()


def mind_the_heartbeat(coordinator: Any) -> None:
    """Keep a poll from ending its wait for the next heartbeat, which the client's own loop sends anyhow.

    A coordinator that stands still leaves the heartbeat due until the request times out (30 s). Each round of a
    poll then waits 0 s: some 3,500 rounds a second, each with an error in a cycle of its own, and a callback more on
    the fetch that is under way: a whole core, and 100 MB in ten seconds.
    """
    coordinator.time_to_next_poll = lambda: math.inf


def parts_of(error: Exception) -> frozenset[Part]:
    """The partitions that an error is about."""
    found: set[Part] = set()
    for given in (getattr(error, "divergent_offsets", None), *error.args):
        if isinstance(given, Mapping | list | tuple | set | frozenset):
            found |= {Part(at.topic, at.partition) for at in given if hasattr(at, "partition")}
    return frozenset(found)
