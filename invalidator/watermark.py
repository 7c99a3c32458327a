"""What may be claimed of a node, and when. Pure. PROTOCOL.md, "Proof of freshness" and "Failover"."""

from __future__ import annotations

from dataclasses import dataclass

from invalidator.sources.base import Positions, covers


@dataclass(slots=True)
class Proof:
    """What a connection to a node has proven so far.

    `target_us`: the store's clock when the node was connected to. `target`: the log's end then, which
    stands in for it where the source knows no watermark.
    """

    target_us: int
    target: Positions
    watermark_us: int | None = None
    caught_up: bool = False

    def learn(self, applied: Positions, watermark_us: int | None, *, settled: bool) -> None:
        """The node has answered everything up to here. `settled`: no layout change is on its way.

        Once caught up, a connection stays so: what commits later is told by its own writer as well. But
        before that, a node that came back with old data serves what a change of the layout is
        about to make unreachable; a client that has not seen the change must not trust it.
        """
        if watermark_us is not None:
            self.watermark_us = max(self.watermark_us or 0, watermark_us)
        reached = covers(applied, self.target) if self.watermark_us is None else self.watermark_us >= self.target_us
        if reached and settled:
            self.caught_up = True

    def claim_us(self, *, settled: bool) -> int | None:
        """The watermark to claim; None while items may be read under a name that is about to go."""
        return self.watermark_us if settled and self.caught_up else None
