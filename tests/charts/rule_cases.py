"""What the alerts do with what is measured: for each case, exactly which of them fire.

A case is a healthy hour in which some series are different. So every case also shows that the other alerts stay silent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

POD = 'namespace="shop",job="invalidator",instance="i-0"'
NODE = f'{POD},node="cache-1"'
APP = 'namespace="shop",instance="app-1",entity="customers"'


def rising(n: float, start: float = 0) -> str:
    """A counter that goes up by `n` a minute."""
    return f"{start}+{n}x{{m}}"


def level(n: float) -> str:
    """A gauge that stays."""
    return f"{n}x{{m}}"


def after(minutes: int, before: str, then: str) -> str:
    """`before` for so long, then something else. Both as promtool writes values."""
    return f"{before.format(m=minutes - 1)} {then}"


HEALTHY: Mapping[str, str] = {
    f"up{{{POD}}}": level(1),
    f"invalidator_ready{{{POD}}}": level(1),
    f"invalidator_heartbeat_timestamp_seconds{{{POD}}}": rising(60),
    f"invalidator_progress_timestamp_seconds{{{POD}}}": rising(60),
    f"invalidator_node_up{{{NODE}}}": level(1),
    f"invalidator_node_counts{{{NODE}}}": level(1),
    f"invalidator_lag_seconds{{{NODE}}}": level(0.8),
    f"invalidator_behind_changes{{{NODE}}}": level(5),
    f'invalidator_position{{{NODE},partition="outbox"}}': rising(600),
    f'invalidator_changes_total{{{POD},table="customers"}}': rising(600),
    f'invalidator_visibility_seconds_bucket{{{NODE},le="1.0"}}': rising(1000),
    f"invalidator_visibility_seconds_count{{{NODE}}}": rising(1000),
    f"invalidator_apply_seconds_count{{{NODE}}}": rising(1000),
    f"invalidator_retries_total{{{NODE}}}": level(3),
    f"invalidator_refused_notes_total{{{NODE}}}": level(0),
    f"invalidator_gaps_total{{{POD}}}": level(0),
    f"invalidator_source_errors_total{{{POD}}}": level(2),
    f"invalidator_commit_errors_total{{{POD}}}": level(1),
    f"invalidator_dead_letters_waiting{{{POD}}}": level(0),
    f"invalidator_dead_letter_errors_total{{{POD}}}": level(0),
    f"invalidator_second_looks_oldest_seconds{{{POD}}}": level(0.2),
    f'invalidator_epochs_total{{{POD},reason="truncate"}}': rising(1),
    f'invalidator_rebalances_total{{{POD},what="taken"}}': level(4),
    f'leasecache_reads_total{{{APP},source="hit"}}': rising(5400),
    f'leasecache_reads_total{{{APP},source="filled"}}': rising(600),
    f'leasecache_reads_total{{{APP},source="error"}}': level(1),
    f'leasecache_loads_total{{{APP},outcome="found"}}': rising(600),
    f'leasecache_writes_total{{{APP},outcome="confirmed"}}': rising(300),
    f'leasecache_writes_total{{{APP},outcome="unconfirmed"}}': level(2),
    f'leasecache_events_total{{{APP},event="miss"}}': rising(600),
    f'leasecache_events_total{{{APP},event="wait"}}': rising(60),
    f'leasecache_events_total{{{APP},event="fill_refused"}}': rising(6),
}


@dataclass(frozen=True)
class Case:
    """At minute `at`, with `series` in place of the healthy ones (None takes one away), `fires` fire and no others."""

    name: str
    fires: tuple[str, ...]
    series: Mapping[str, str | None] = field(default_factory=dict)
    at: int = 30
    alone: bool = False  # without the healthy series

    def test(self) -> dict[str, Any]:
        """As promtool takes it."""
        series = {**({} if self.alone else HEALTHY), **self.series}
        fired = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(self.fires)]
        return {
            "name": self.name,
            "interval": "1m",
            "input_series": [
                {"series": name, "values": values.replace("{m}", str(self.at + 5))}
                for name, values in series.items()
                if values is not None
            ],
            "promql_expr_test": [
                {
                    "expr": 'count by (alertname) (count by (alertname, severity) (ALERTS{alertstate="firing"}))',
                    "eval_time": f"{self.at}m",
                    "exp_samples": fired,
                }
            ],
        }


def _pod(name: str) -> str:
    return f"invalidator_{name}{{{POD}}}"


def _node(name: str) -> str:
    return f"invalidator_{name}{{{NODE}}}"


def _labelled(name: str, labels: str) -> str:
    return f"invalidator_{name}{{{POD},{labels}}}"


def _event(event: str) -> str:
    return f'leasecache_events_total{{{APP},event="{event}"}}'


def _of_staleness() -> Iterator[Case]:
    slow, count = f'invalidator_visibility_seconds_bucket{{{NODE},le="1.0"}}', _node("visibility_seconds_count")
    yield Case("one in fifty is slow", ("StalenessBudgetBurnFast",), {slow: rising(980)}, at=50)
    yield Case("one in two thousand is slow", (), {slow: rising(999.5)}, at=120)
    yield Case("one in fifty is slow, of a handful", (), {slow: rising(0.98), count: rising(1)}, at=120)
    yield Case(
        "one in four hundred is slow, for three days", ("StalenessBudgetBurnSlow",), {slow: rising(997.5)}, at=120
    )
    yield Case("visibility is not scraped", (), {slow: None, count: None})
    yield Case("a node lags", ("InvalidationLagHigh",), {_node("lag_seconds"): level(45)})
    yield Case("a node lags for a minute", (), {_node("lag_seconds"): after(29, "0.8x{m}", "45x5")})
    late = {"1.0": 0.0, "30.0": 10.0, "60.0": 1000.0, "+Inf": 1000.0}
    connector = {
        f'invalidator_visibility_seconds_bucket{{{NODE},le="{bound}"}}': rising(n) for bound, n in late.items()
    }
    yield Case(
        "a node lags behind a connector's topics, which prove no time",
        ("InvalidationLagHigh", "StalenessBudgetBurnFast"),
        {_node("lag_seconds"): None, **connector},
    )
    caught_up = {
        name: after(26, "0+0x{m}", f"0 {n * 50} {' '.join(str(n * 50 + 1000 * more) for more in range(1, 10))}")
        for name, n in zip(connector, late.values(), strict=True)
    }
    yield Case(
        "a connector's topics, and a node that was away has caught up",
        ("StalenessBudgetBurnFast",),
        {_node("lag_seconds"): None, _node("visibility_seconds_count"): rising(1000), **caught_up},
        at=31,
    )
    quick = {**connector, f'invalidator_visibility_seconds_bucket{{{NODE},le="1.0"}}': rising(1000)}
    quick[f'invalidator_visibility_seconds_bucket{{{NODE},le="30.0"}}'] = rising(1000)
    yield Case("a connector's topics, and no lag", (), {_node("lag_seconds"): None, **quick})
    yield Case("a node that was given up lags", (), {
        _node("lag_seconds"): level(4500), _node("node_counts"): after(27, "1x{m}", "0x9"),
    })  # fmt: skip
    yield Case("the loop stands", ("InvalidationStalled",), {
        _pod("heartbeat_timestamp_seconds"): after(25, "0+60x{m}", "1440x10"),
        _pod("progress_timestamp_seconds"): after(25, "0+60x{m}", "1440x10"),
        _pod("ready"): after(26, "1x{m}", "0x10"),
        _node("lag_seconds"): after(25, "0.8x{m}", "45x10"),
    })  # fmt: skip
    yield Case("the log cannot be read", ("InvalidationStalled",), {
        _pod("progress_timestamp_seconds"): after(20, "0+60x{m}", "1140x15"),
        _pod("ready"): after(21, "1x{m}", "0x15"),
        _pod("source_errors_total"): after(20, "2x{m}", "2+30x15"),
        _node("lag_seconds"): after(20, "0.8x{m}", "60+60x15"),
    })  # fmt: skip
    yield Case("a position does not move while changes wait", ("InvalidationStalled",), {
        f'invalidator_position{{{NODE},partition="outbox"}}': level(600),
    })  # fmt: skip
    yield Case("a position does not move because nothing happens", (), {
        f'invalidator_position{{{NODE},partition="outbox"}}': level(600), _node("behind_changes"): level(0),
    })  # fmt: skip
    changes = _labelled("changes_total", 'table="customers"')
    yield Case("writes, and no changes", ("NoChangeLogTraffic",), {changes: level(600)})
    yield Case("writes, and a log that never said anything", ("NoChangeLogTraffic",), {changes: None})
    yield Case("no writes and no changes", (), {
        changes: level(600), f'leasecache_writes_total{{{APP},outcome="confirmed"}}': level(300),
    })  # fmt: skip
    yield Case("a gap", ("OffsetGapOrReset",), {_pod("gaps_total"): after(25, "0x{m}", "1x10")})
    yield Case("a gap an hour ago", (), {_pod("gaps_total"): after(10, "0x{m}", "1x99")}, at=50)
    yield Case(
        "another store", ("OffsetGapOrReset",), {_labelled("epochs_total", 'reason="store_changed"'): "_x24 1x10"}
    )
    yield Case(
        "another store, in the morning", (), {_labelled("epochs_total", 'reason="store_changed"'): "_x10 1x99"}, at=40
    )
    alarms = "verify_alarms_total"
    yield Case("an item was dropped", ("CacheServesStale",), {_labelled(alarms, 'why="drop"'): "_x24 1x10"})
    yield Case("another race", ("CacheServesStale",), {_labelled(alarms, 'why="race"'): after(25, "1x{m}", "2x10")})
    yield Case("the verifier sees lag", (), {_labelled(alarms, 'why="lag"'): "_x24 9x10"})
    yield Case("a node died", ("EverythingVoided",), {_labelled("epochs_total", 'reason="node_dead"'): "_x24 1x10"})
    yield Case("new rules", (), {_labelled("epochs_total", 'reason="new_rules"'): "_x24 1x10"})
    yield Case("the clock is ahead", ("ClockSkew",), {
        _pod("heartbeat_timestamp_seconds"): rising(60, 5), _pod("progress_timestamp_seconds"): rising(60, 5),
    })  # fmt: skip
    yield Case("the clock is behind", ("ClockSkew",), {
        _pod("heartbeat_timestamp_seconds"): rising(60, -5), _pod("progress_timestamp_seconds"): rising(60, -5),
    })  # fmt: skip
    yield Case("the clock is a second off", (), {_pod("heartbeat_timestamp_seconds"): rising(60, -1)})


def _of_the_daemon() -> Iterator[Case]:
    yield Case("nothing is scraped at all", ("ConsumersDown",), alone=True)
    yield Case("only clients are scraped", ("ConsumersDown",), {
        name: values for name, values in HEALTHY.items() if name.startswith("leasecache")
    }, alone=True)  # fmt: skip
    gone = {name: values.replace("{m}", "20") for name, values in HEALTHY.items() if name.startswith("invalidator")}
    yield Case("a daemon died", ("ConsumersDown",), {**gone, f"up{{{POD}}}": after(20, "1x{m}", "0x15")}, at=28)
    yield Case("a daemon is not ready", ("ConsumersDown",), {_pod("ready"): after(25, "1x{m}", "0x10")})
    yield Case("a daemon never polled", ("ConsumersDown",), {
        _pod("ready"): level(0), _pod("progress_timestamp_seconds"): level(0),
    })  # fmt: skip
    yield Case("a daemon starts for a minute", (), {_pod("ready"): after(29, "1x{m}", "0x10")})
    yield Case("partitions move", ("RebalanceStorm",), {_labelled("rebalances_total", 'what="taken"'): rising(1)})
    yield Case("partitions are given", (), {_labelled("rebalances_total", 'what="given"'): rising(1)})
    yield Case("some polls fail", ("SourceErrors",), {_pod("source_errors_total"): rising(10)})
    yield Case("offsets are not saved", ("CommitErrors",), {_pod("commit_errors_total"): rising(5)})
    yield Case("offsets were not saved while the brokers were away, which is over", (), {
        _pod("commit_errors_total"): after(20, "1x{m}", "1+10x7 70x20"),
        _pod("progress_timestamp_seconds"): after(20, "0+60x{m}", "1140x6 1560+60x20"),
    }, at=32)  # fmt: skip
    yield Case("second looks wait", ("SecondLooksWait",), {_pod("second_looks_oldest_seconds"): level(120)})
    yield Case("a refused reload", ("ReloadRefused",), {_labelled("reloads_total", 'outcome="refused"'): "_x24 1x10"})
    yield Case("a reload", (), {_labelled("reloads_total", 'outcome="taken"'): "_x24 1x10"})
    relay = 'namespace="shop",job="relay",instance="r-0"'
    beats = f'invalidator_relayed_records_total{{{relay},kind="heartbeat"}}'
    behind = f"invalidator_relay_lag_seconds{{{relay}}}"
    yield Case("a relay", (), {beats: rising(240), behind: level(0.3)})
    yield Case("a relay is behind", ("RelayBehind",), {beats: rising(240), behind: level(60)})
    yield Case("a relay stands", ("RelayBehind",), {beats: level(240), behind: level(0.3)})
    yield Case("a relay beside daemons", (), {
        beats: rising(240), behind: level(0.3),
        f"invalidator_progress_timestamp_seconds{{{relay}}}": level(0), f"invalidator_ready{{{relay}}}": level(1),
    })  # fmt: skip


def _of_changes() -> Iterator[Case]:
    letters = _labelled("dead_letters_total", 'kind="undecodable",outcome="posted"')
    kept = _labelled("dead_letters_total", 'kind="undecodable",outcome="kept"')
    yield Case("the first dead letter", ("DeadLetters",), {letters: "_x24 1x10"})
    yield Case("one more dead letter", ("DeadLetters",), {letters: after(25, "7x{m}", "8x10")})
    yield Case("dead letters of yesterday", (), {letters: level(7), kept: level(7)})
    yield Case(
        "changes of unknown tables",
        (),
        {_labelled("dead_letters_total", 'kind="unknown_table",outcome="posted"'): rising(9)},
    )
    yield Case("a flood of dead letters", ("DeadLetters", "DeadLetterFlood"), {letters: rising(120)})
    yield Case("dead letters cannot be kept", ("DeadLettersUnkept",), {
        _pod("dead_letters_waiting"): level(1000), _pod("dead_letter_errors_total"): rising(30),
        _pod("ready"): level(0),
    })  # fmt: skip
    yield Case(
        "unreadable records",
        ("UndecodableRecords",),
        {_labelled("decode_errors_total", 'partition="t/0"'): "_x24 1x10"},
    )
    yield Case("a bad key", ("BadKeys",), {_labelled("bad_keys_total", 'entity="orders"'): "_x24 1x10"})
    yield Case("bad keys of yesterday", (), {_labelled("bad_keys_total", 'entity="orders"'): level(3)})
    yield Case("a table that nobody knows", ("UnknownTables",), {
        _labelled("unknown_table_changes_total", 'table="audit"'): rising(6),
    }, at=150)  # fmt: skip


def _of_nodes() -> Iterator[Case]:
    down = {
        _node("node_up"): after(25, "1x{m}", "0x10"),
        _node("retries_total"): after(25, "3x{m}", "3+40x10"),
        _node("apply_seconds_count"): after(25, "0+1000x{m}", "24000x10"),
        _node("lag_seconds"): after(25, "0.8x{m}", "60+60x10"),
    }
    yield Case("a node is down", ("CacheNodeDown",), down)
    yield Case("a node is down, as clients see too", ("CacheNodeDown",), {**down, _event("unreachable"): rising(600)})
    yield Case("a node is away for a moment", (), {_node("node_up"): after(29, "1x{m}", "0 0 1x9")}, at=32)
    yield Case("a node fails now and then", ("InvalidationApplyErrors",), {_node("retries_total"): rising(50)})
    yield Case("a node failed once", (), {_node("retries_total"): after(25, "3x{m}", "4x10")})
    yield Case("a node answers and is not waited for", ("NodeNotCounted",), {_node("node_counts"): level(0)})
    yield Case("a node is full", ("CacheNodeFull",), {_node("refused_notes_total"): rising(60)})


def _of_clients() -> Iterator[Case]:
    hits, loads = f'leasecache_reads_total{{{APP},source="hit"}}', f'leasecache_loads_total{{{APP},outcome="found"}}'
    errors = f'leasecache_reads_total{{{APP},source="error"}}'
    yield Case("clients are not scraped", (), {name: None for name in HEALTHY if name.startswith("leasecache")})
    yield Case("reads fail", ("ReadsFail",), {errors: rising(100)})
    yield Case("one read failed", (), {errors: after(25, "1x{m}", "2x10")})
    yield Case("only clients miss the node", ("CacheUnreachable",), {_event("unreachable"): rising(600)})
    yield Case("hits fall", ("HitRatioDrop",), {hits: after(100, "0+5400x{m}", "534600+1200x60")}, at=150)
    yield Case("hits fall a little", (), {hits: after(100, "0+5400x{m}", "534600+4000x60")}, at=150)
    yield Case("a new service has few hits", (), {hits: rising(1200)}, at=45)
    yield Case("the store is asked for ten times as much", ("OriginLoadHigh",), {
        loads: after(100, "0+600x{m}", "59400+6000x60"), _event("fill_refused"): level(1),
    }, at=150)  # fmt: skip
    yield Case("the store is asked for three times little", (), {
        loads: after(100, "0+60x{m}", "5940+600x60"), _event("fill_refused"): level(1),
    }, at=150)  # fmt: skip
    yield Case("readers wait", ("LeaseContention",), {_event("wait"): rising(600)})
    yield Case("readers give up waiting", ("LeaseContention",), {_event("wait_gave_up"): rising(12)})
    yield Case("loads come too late", ("LeaseExpiredFills",), {_event("fill_refused"): rising(60)})
    yield Case(
        "writers cannot tell",
        ("WritesUnconfirmed",),
        {f'leasecache_writes_total{{{APP},outcome="unconfirmed"}}': rising(30)},
    )
    yield Case("items cannot be decoded", ("UndecodableItems",), {_event("undecodable"): rising(2)})
    yield Case("items of a newer program", (), {_event("later_codec"): rising(60)})
    yield Case("the layout cannot be read", ("LayoutUnread",), {_event("layout_unread"): rising(6)})


def cases() -> list[Case]:
    """All of them."""
    return [
        Case("all is well", ()),
        Case("all is well for hours", (), at=120),
        *_of_staleness(),
        *_of_the_daemon(),
        *_of_changes(),
        *_of_nodes(),
        *_of_clients(),
    ]
