"""What the daemon says of itself to a person on call: by partition and by node, how far, how fast, what failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from invalidator.metrics import Metrics
from invalidator.node import NodeWorker
from invalidator.service import Service
from invalidator.settings import ApplySettings

_WAITS_S = 10.0


class Overview:
    """`status.Watched` over the daemon."""

    def __init__(self, service: Service, now_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self._service = service
        self._now_us = now_us

    @property
    def metrics(self) -> Metrics:
        """See `Watched.metrics`."""
        return self._service.metrics

    def healthy(self) -> bool:
        """See `Watched.healthy`."""
        return self._service.healthy()

    def ready(self) -> bool:
        """See `Watched.ready`."""
        return self._service.ready()

    def status(self) -> dict[str, Any]:
        """See `Watched.status`: everything that one looks at first."""
        service = self._service
        committed = service.books.committed
        identity, generation = service.lineage.current()
        last_error, last_error_at = service.trouble.last
        return {
            "what": "invalidator",
            "ready": service.ready(),
            "healthy": service.healthy(),
            "problems": self._problems(),
            "store_error": service.trouble.error,
            "last_store_error": last_error,
            "last_store_error_at": last_error_at,
            "store": identity,
            "generation": generation,
            "read": dict(service.positions),
            "committed": dict(committed.positions) if committed else None,
            "entities": [entity.name for entity in service.rules.entities],
            "tables": sorted(service.rules.tables),
            "partitions": self._partitions(),
            "waiting": self._waiting(service.settings.apply),
            "nodes": {worker.name: self._node(worker) for worker in service.fleet},
        }

    def _problems(self) -> list[str]:
        """What somebody should look at now, one sentence each."""
        service, box = self._service, self._service.letterbox
        found = [f"Store or log does not answer: {service.trouble.error}"] if service.trouble.error else []
        if not service.positions:
            found.append("No partition is read here.")
        if service.books.last_error and not service.trouble.error:
            found.append(f"The committed offset is not saved: {service.books.last_error}")
        if box.last_error:
            found.append(f"Dead letters cannot be kept, and the committed offset waits for them: {box.last_error}")
        waits_s = _sample(self.metrics, "second_looks_oldest_seconds") or 0
        if waits_s > max(_WAITS_S, 3 * service.settings.apply.settle_delay_s):
            found.append(f"A commit has not become visible in the store for {waits_s:.0f} s.")
        for worker in service.fleet:
            if worker.failing_since_s is not None:
                found.append(f"Node {worker.name} does not answer: {worker.last_error}")
            elif worker.last_error:
                found.append(f"Node {worker.name}: {worker.last_error}")
            elif not worker.in_window:
                found.append(f"Node {worker.name} is behind, and reads the log by itself.")
        return found

    def _partitions(self) -> dict[str, Any]:
        service, now_us = self._service, self._now_us()
        committed = service.books.committed
        done = committed.positions if committed else {}
        return {
            partition: {
                "read": position,
                "committed": done.get(partition),
                "lag_messages": _sample(self.metrics, "lag_messages", partition=partition),
                **service.tally.of(partition, now_us),
            }
            for partition, position in sorted(service.positions.items())
        }

    def _waiting(self, settings: ApplySettings) -> dict[str, Any]:
        """What is held back, and where reading would stop for it."""
        box = self._service.letterbox
        return {
            "second_looks": _sample(self.metrics, "second_looks_pending"),
            "second_looks_max": settings.pending_max,
            "second_looks_oldest_s": _sample(self.metrics, "second_looks_oldest_seconds"),
            "dead_letters": _sample(self.metrics, "dead_letters_waiting"),
            "dead_letters_error": box.last_error,
            "coalesced": self._coalesced(),
        }

    def _coalesced(self) -> float | None:
        """Which part of all keys was left out because the same poll named them again."""
        keys = _sample(self.metrics, "keys_total")
        return round((_sample(self.metrics, "coalesced_keys_total") or 0) / keys, 3) if keys else None

    def _node(self, worker: NodeWorker) -> dict[str, Any]:
        session = worker.session
        watermark_us = session.proof.watermark_us if session else None
        return {
            "answers": session is not None and worker.failing_since_s is None,
            "counts": worker.counts,
            "goes_along": worker.in_window,
            "behind": worker.behind(),
            "position": dict(worker.confirmed),
            "watermark_us": watermark_us,
            "age_s": round(max(0, self._now_us() - watermark_us) / 1e6, 3) if watermark_us is not None else None,
            "caught_up": session.proof.caught_up if session else False,
            "per_s": worker.rate.per_s(),
            "error": worker.last_error,
            "last_error": worker.past_error,
        }


def _sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"invalidator_{name}", labels)
