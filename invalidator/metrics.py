"""Every metric of the daemon: its name, its meaning and its labels, once. The README's table is checked against it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)
_SIZES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0)


class Metrics:
    """One daemon's metrics, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second time series for each, which nobody asks for
        self.registry = CollectorRegistry()
        self._reading()
        self._applying()
        self._proving()
        self._running()
        self._relaying()
        self._verifying()

    def text(self) -> bytes:
        """As Prometheus scrapes it."""
        return generate_latest(self.registry)

    def names(self) -> dict[str, str]:
        """Every name as it is scraped, with its meaning."""
        suffix = {"counter": "_total"}
        return {metric.name + suffix.get(metric.type, ""): metric.documentation for metric in self.registry.collect()}

    def forget_node(self, node: str) -> None:
        """It has left: what it last showed is no longer true of anything."""
        for gauge in (self.node_up, self.node_counts, self.lag, self.behind, self.position):
            gauge.remove_by_labels({"node": node})

    # --- what there is -----------------------------------------------------------------------

    def _reading(self) -> None:
        self.changes = self._counter("changes", "Changes read from the log, by table.", "table")
        self.unknown = self._counter("unknown_table_changes", "Changes of tables that no entity depends on.", "table")
        self.bad_keys = self._counter(
            "bad_keys", "Changes whose key could not be told, so that the whole entity got a new epoch.", "entity"
        )
        self.poll_size = self._histogram("poll_changes", "Changes that one poll gave, where it gave any.", _SIZES)
        self.keys = self._counter("keys", "Keys that the changes named.")
        self.coalesced = self._counter("coalesced_keys", "Keys left out because the same poll named them again.")
        self.second_looks = self._counter("second_looks", "Polls applied a second time, when surely visible.")
        self.second_pending = self._gauge("second_looks_pending", "Changes that wait for their second look.")
        self.source_errors = self._counter("source_errors", "Polls that failed; each is tried again.")
        self.gaps = self._counter("gaps", "Times that changes were lost to this consumer.")
        self.age_s = self._histogram(
            "event_age_seconds", "How old a change was when read, the oldest of a poll.", _SECONDS
        )
        self.second_oldest_s = self._gauge("second_looks_oldest_seconds", "How long the oldest of those waits already.")
        self._from_a_bus()

    def _from_a_bus(self) -> None:
        self.decode_errors = self._counter(
            "decode_errors", "Records that could not be read, by partition.", "partition"
        )
        self.dead_letters = self._counter(
            "dead_letters", "Changes that could not be told apart or read, by kind: kept, or dropped unkept.",
            "kind", "outcome",
        )  # fmt: skip
        self.dead_letter_errors = self._counter("dead_letter_errors", "Times that dead letters could not be kept.")
        self.dead_letters_waiting = self._gauge("dead_letters_waiting", "Dead letters that wait to be kept.")
        self.lag_messages = self._gauge("lag_messages", "Records of a partition that are not read yet.", "partition")
        self.rebalances = self._counter("rebalances", "Partitions given to this member, or taken from it.", "what")
        self.partitions = self._gauge("partitions", "Partitions that this member reads.")

    def _applying(self) -> None:
        self.operations = self._counter(
            "operations", "Operations that a node answered, by answer (raised, noop, revoked ...).", "node", "answer"
        )
        self.batch = self._histogram("batch_operations", "Operations in one batch for a node.", _SIZES)
        self.apply_s = self._histogram("apply_seconds", "How long a node took to answer a batch.", _SECONDS, "node")
        self.visible_s = self._histogram(
            "visibility_seconds", "From a change (the oldest of its poll) to a node's answer.", _SECONDS, "node"
        )
        self.refreshes = self._counter(
            "refreshes", "After-images put, by node and answer (stored; others: not cached, or known already).",
            "node", "answer",
        )  # fmt: skip
        self.refreshes_watched = self._counter(
            "refreshes_watched", "Watched ones of these, by whether anybody read them before the key's next change.",
            "node", "outcome",
        )  # fmt: skip
        self.images_unmade = self._counter(
            "images_unmade", "Changes of refreshed entities that only voided, as no after-image could be made, by why.",
            "entity", "why",
        )  # fmt: skip
        self.retries = self._counter("retries", "Tries of a node that failed.", "node")
        self.notes_refused = self._counter("refused_notes", "Positions that a full node had no room for.", "node")
        self.connects = self._counter("connects", "Connections to a node, by where it went on from.", "node", "start")
        self.node_up = self._gauge("node_up", "1 while a node answers.", "node")
        self.node_counts = self._gauge("node_counts", "1 while the committed offset waits for a node.", "node")

    def _proving(self) -> None:
        self.lag = self._gauge(
            "lag_seconds", "Up to how long ago every commit is applied to a node, by the store's clock.", "node"
        )
        self.behind = self._gauge("behind_changes", "Changes read from the log and not yet applied to a node.", "node")
        self.position = self._gauge(
            "position", "How far a node, or the committed offset, has come: the number that leads its position.",
            "node", "partition",
        )  # fmt: skip
        self.epochs = self._counter(
            "epochs", "Times that entities got new epochs, or a node of a pool a new tenure, by reason.", "reason"
        )
        self.layouts_completed = self._counter(
            "layouts_completed", "Published layouts made current: own ones, and those left by others.", "whose"
        )
        self.commits = self._counter("commits", "Times that the committed offset was saved.")
        self.commit_errors = self._counter(
            "commit_errors", "Times that saving the committed offset, or the purge, failed."
        )
        self.purged = self._counter("purged_changes", "Changes dropped from the log because every consumer read them.")

    def _running(self) -> None:
        self.heartbeat = self._gauge("heartbeat_timestamp_seconds", "When the loop last turned.")
        self.progress = self._gauge("progress_timestamp_seconds", "When a poll last succeeded.")
        self.ready = self._gauge("ready", "1 while /readyz says so.")
        self.reloads = self._counter("reloads", "Configurations read again on SIGHUP: taken or refused.", "outcome")

    def _relaying(self) -> None:
        self.relayed = self._counter("relayed_records", "Records that the relay sent, by kind.", "kind")
        self.relay_errors = self._counter("relay_errors", "Times that store or topic failed the relay.", "whose")
        self.relay_lag_s = self._gauge("relay_lag_seconds", "Up to how long ago every commit is in the relay's topic.")

    def _verifying(self) -> None:
        self.verify_checks = self._counter(
            "verify_checks", "Answers of a node to the verifier, by the age of the change and what they were.",
            "node", "after", "outcome",
        )  # fmt: skip
        self.verify_stale = self._counter(
            "verify_stale", "Answers that were not what the store has, by node and why.", "node", "why"
        )
        self.verify_alarms = self._counter(
            "verify_alarms", "Those that no invalidator which is merely a little late explains, by why.", "why"
        )
        self.verify_loads = self._counter("verify_loads", "Keys that the verifier asked the store for.")
        self.verify_waiting = self._gauge("verify_waiting", "Keys that wait for their next age.")

    # --- how ---------------------------------------------------------------------------------

    def _counter(self, name: str, doc: str, *labels: str) -> Counter:
        return Counter(f"invalidator_{name}", doc, labels, registry=self.registry)

    def _gauge(self, name: str, doc: str, *labels: str) -> Gauge:
        return Gauge(f"invalidator_{name}", doc, labels, registry=self.registry)

    def _histogram(self, name: str, doc: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"invalidator_{name}", doc, labels, buckets=buckets, registry=self.registry)
