"""What cannot be read is invalidated all the same, and kept before it counts as done (I9, I12)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cachelib.errors import ConfigError
from cachelib.model import RowChange
from invalidator.config import load
from invalidator.dead_letters import FileOfDeadLetters, Letter, NotKept
from invalidator.dead_letters_kafka import TopicOfDeadLetters
from invalidator.formats.base import doubtful_row, doubtful_table
from invalidator.logs import open_log
from invalidator.producer import NotSent, Outgoing, TooLarge
from invalidator.rules import Rules
from invalidator.settings import DeadLetterSettings, LogSettings
from invalidator.sources.base import Capability, Event, Poison, Polled, Record
from invalidator.sources.outbox import Outbox
from tests.unit.invalidator_world import CUSTOMERS, ORDERS_OF, World, at, fresh

RECORD = Record("shop.customers", 0, 41, 1_700_000_000_000, b"\xff", b"{broken", [("trace", b"1"), ("none", None)])


class Poisoned(Outbox):
    """A change of the table `poison` is a record that cannot be read; its `after` says what is known of it."""

    def poll(self, limit: int, timeout_s: float) -> Polled:
        polled = super().poll(limit, timeout_s)
        bad = [event for event in polled.events if event.change.table == "poison"]
        good = tuple(event for event in polled.events if event not in bad)
        poison = tuple(
            Poison(one.partition, one.position, "no JSON", (one.change.after or {}).get("instead", ()), RECORD)
            for one in bad
        )
        return replace(polled, events=good, poison=poison)


class EarlyPoisoned(Poisoned):
    capability = Capability("early", shows_early=True, watermark=True)


class Kept:
    """Dead letters in memory, which can be refused."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self.refused = 0
        self.refuses = False

    def keep(self, letters: Sequence[Letter]) -> None:
        if self.refuses:
            self.refused += 1
            raise NotKept("no such topic")
        self.letters += letters

    def close(self) -> None: ...


def poisoned(kept: Kept | None = None, source: type[Outbox] = Poisoned, **settings: Any) -> World:
    world = World(source=source)
    world.settings = replace(world.settings, dead_letters=DeadLetterSettings(**settings))
    world.letters = kept
    world.start()
    world.go()
    return world


def spoil(world: World, instead: tuple[RowChange, ...] = ()) -> None:
    world.store.change("update", "poison", after={"instead": instead})


def go(world: World, turns: int = 6) -> None:
    for _ in range(turns):
        world.go(1)
        try:
            world.service.letterbox.step()
        except NotKept:
            pass
    world.go(2)


# --- what is invalidated -------------------------------------------------------------------------


def test_row_whose_key_can_be_read_is_invalidated() -> None:
    world = poisoned()
    mine, other = world.cache(version=0), world.cache(version=0, text="customers:8")
    spoil(world, doubtful_row("customers", {"id": 7}))
    go(world)
    assert not fresh(world.node(), mine)
    assert fresh(world.node(), other)


def test_doubtful_row_takes_an_epoch_where_a_key_of_many_rows_depends_on_it() -> None:
    world = poisoned()
    spoil(world, doubtful_row("orders", {"id": 7}))
    go(world)
    assert world.metric("epochs_total", reason="undecodable") == 1
    assert "orders-of" in world.store.layout.next.epochs  # type: ignore[union-attr]


@pytest.mark.parametrize("instead", [(), doubtful_table("nobody_caches_it"), doubtful_row("who", {"id": 1})])
def test_where_not_even_the_table_is_known_everything_takes_a_new_epoch(instead: tuple[RowChange, ...]) -> None:
    world = poisoned()
    spoil(world, instead)
    go(world)
    assert set(world.store.layout.next.epochs) == {"customers", "orders-of"}  # type: ignore[union-attr]


def test_table_of_which_anything_may_have_changed_takes_a_new_epoch() -> None:
    world = poisoned()
    spoil(world, doubtful_table("customers"))
    go(world)
    assert set(world.store.layout.next.epochs) == {"customers"}  # type: ignore[union-attr]


def test_poison_that_keeps_coming_does_not_keep_the_epoch_from_becoming_current() -> None:
    world = poisoned()
    name = world.cache(version=0)
    for _ in range(20):
        spoil(world)
        world.go(1, every_s=1.0)
    assert world.name_of() != name


def test_poison_of_a_source_that_shows_early_gets_a_second_look() -> None:
    world = poisoned(source=EarlyPoisoned)
    spoil(world, doubtful_row("customers", {"id": 7}))
    world.go(2)
    name = world.cache(version=0)  # loaded before the change that could not be read was visible
    assert fresh(world.node(), name)
    world.go(8)
    assert not fresh(world.node(), name)


# --- dead letters --------------------------------------------------------------------------------


def test_dead_letter_tells_the_record_and_why() -> None:
    kept = Kept()
    world = poisoned(kept)
    spoil(world)
    go(world)
    (letter,) = kept.letters
    assert letter.record is RECORD
    assert letter.origin() == {
        "kind": "undecodable",
        "error": "no JSON",
        "topic": "shop.customers",
        "partition": "0",
        "offset": "41",
        "timestamp": "1700000000000",
        "position": at(1),
    }
    assert world.store.consumers["invalidator"] == at(1)
    assert world.metric("dead_letters_total", kind="undecodable", outcome="kept") == 1


def test_offset_waits_for_dead_letters_and_invalidations_do_not() -> None:
    kept = Kept()
    world = poisoned(kept, tries=3)
    kept.refuses = True
    name = world.cache(version=0)
    spoil(world, doubtful_row("customers", {"id": 8}))
    go(world, 2)
    world.store.change()
    go(world, 2)
    assert not fresh(world.node(), name)
    assert world.store.consumers["invalidator"] < at(1)
    assert not world.service.ready()
    assert world.metric("dead_letters_waiting") == 1

    kept.refuses = False
    go(world, 2)
    assert world.store.consumers["invalidator"] == at(2)
    assert world.service.ready()
    assert len(kept.letters) == 1


def test_dead_letter_that_was_not_kept_comes_again_in_the_next_process() -> None:
    kept = Kept()
    world = poisoned(kept)
    kept.refuses = True
    spoil(world, doubtful_row("customers", {"id": 8}))
    go(world)
    kept.refuses = False
    world.start()
    go(world)
    assert [letter.position for letter in kept.letters] == [at(1)]
    assert world.store.consumers["invalidator"] == at(1)


def test_reading_stops_while_too_many_dead_letters_wait() -> None:
    kept = Kept()
    world = poisoned(kept, pending_max=3)
    kept.refuses = True
    world.settings = replace(world.settings, source=replace(world.settings.source, batch_max=2))
    world.start()
    for _ in range(20):
        spoil(world, doubtful_row("customers", {"id": 8}))
    go(world)
    assert world.metric("dead_letters_waiting") <= 4
    kept.refuses = False
    go(world, 20)
    assert len(kept.letters) == 20
    assert world.store.consumers["invalidator"] == at(20)


def test_change_whose_key_cannot_be_told_is_a_dead_letter_too() -> None:
    kept = Kept()
    world = poisoned(kept)
    world.store.change(key={"id": "not a number"}, table="orders", before={"id": 1}, after={"id": 1})
    go(world)
    (letter,) = kept.letters
    assert letter.kind == "bad_key"
    assert json.loads(letter.told())["table"] == "orders"
    assert world.store.consumers["invalidator"] == at(1)


def test_change_of_an_unknown_table_is_kept_where_that_is_asked_for() -> None:
    for asked, number in (("count", 0), ("keep", 1)):
        kept = Kept()
        world = poisoned(kept, unknown_tables=asked)
        world.store.change(table="suppliers")
        go(world)
        assert len(kept.letters) == number
        assert world.metric("unknown_table_changes_total", table="suppliers") == 1


def test_replay_of_one_node_keeps_no_dead_letter_again() -> None:
    kept = Kept()
    world = poisoned(kept)
    old = world.node().snapshot()
    spoil(world, doubtful_row("customers", {"id": 8}))
    go(world)
    world.node().restart_from(old)
    go(world)
    assert len(kept.letters) == 1


def test_a_kind_of_letter_is_logged_once_in_a_while() -> None:
    said: list[tuple[str, dict[str, Any]]] = []

    class Log:
        def error(self, what: str, **fields: Any) -> None:
            said.append((what, fields))

    world = poisoned()
    world.service.letterbox._seldom._log = Log()
    for _ in range(50):
        spoil(world, doubtful_row("customers", {"id": 8}))
    go(world)
    assert [(what, fields["more"]) for what, fields in said] == [("a record that cannot be read", 0)]
    world.clock.now_s += 61
    spoil(world, doubtful_row("customers", {"id": 8}))
    go(world)
    assert said[-1][1]["more"] == 49


# --- a file of them ------------------------------------------------------------------------------


def test_file_has_a_line_for_each(tmp_path: Path) -> None:
    file = FileOfDeadLetters(str(tmp_path / "dead.jsonl"), 1_000_000)
    change = RowChange("orders", "update", {"id": 1}, 5)
    file.keep([Letter("undecodable", "no JSON", "p", at(1), RECORD)])
    file.keep([Letter("bad_key", "no such column", "log", at(2), None, change)])
    first, second = map(json.loads, (tmp_path / "dead.jsonl").read_text().splitlines())
    assert first["key"] == {"base64": "/w=="}
    assert first["value"] == "{broken"
    assert first["headers"] == [["trace", "1"], ["none", None]]
    assert second["change"]["key"] == {"id": 1}


def test_file_is_begun_anew_when_it_is_large(tmp_path: Path) -> None:
    file = FileOfDeadLetters(str(tmp_path / "dead.jsonl"), 10_000)
    for number in range(200):
        file.keep([Letter("undecodable", "no JSON", "p", at(number), RECORD)])
    assert (tmp_path / "dead.jsonl").stat().st_size <= 10_000
    assert (tmp_path / "dead.jsonl.1").stat().st_size <= 10_000
    assert len(list(tmp_path.iterdir())) == 2


def test_letter_behind_a_torn_line_has_a_line_of_its_own(tmp_path: Path) -> None:
    """A disk that was full took a part of a line: what is tried again must not end up on it, and count as kept."""
    kept = tmp_path / "dead.jsonl"
    kept.write_text('{"kind": "undec')
    for number in (1, 2):
        FileOfDeadLetters(str(kept), 10_000).keep([Letter("undecodable", "no JSON", "p", at(number), RECORD)])
    torn, *whole = kept.read_text().splitlines()
    assert torn == '{"kind": "undec'
    assert [json.loads(line)["position"] for line in whole] == [at(1), at(2)]


def test_file_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    file = FileOfDeadLetters(str(tmp_path / "dead.jsonl"), 10_000)
    (tmp_path / "dead.jsonl").mkdir()
    with pytest.raises(NotKept, match="the file of dead letters"):
        file.keep([Letter("undecodable", "no JSON", "p", at(1), RECORD)])
    with pytest.raises(ConfigError, match="no folder"):
        FileOfDeadLetters(str(tmp_path / "missing" / "dead.jsonl"), 10_000)


# --- a topic of them -----------------------------------------------------------------------------


class Broker:
    """Takes records up to a size."""

    def __init__(self, size_max: int = 10**9) -> None:
        self.size_max = size_max
        self.sent: list[Outgoing] = []
        self.down = False

    def send(self, records: Sequence[Outgoing]) -> None:
        if self.down:
            raise NotSent("nobody answers")
        for number, record in enumerate(records):
            if len(record.key or b"") + len(record.value or b"") > self.size_max:
                raise TooLarge("too large", number)
        self.sent += records

    def close(self) -> None: ...


def test_topic_has_the_record_with_what_is_wrong_in_headers() -> None:
    broker = Broker()
    TopicOfDeadLetters(broker).keep([Letter("undecodable", "no JSON", "p", at(1), RECORD)])  # type: ignore[arg-type]
    (record,) = broker.sent
    headers = dict(record.headers)
    assert (record.key, record.value) == (RECORD.key, RECORD.value)
    assert headers["leasecache.error"] == b"no JSON"
    assert headers["leasecache.offset"] == b"41"
    assert headers["trace"] == b"1"


def test_record_that_is_too_large_for_the_topic_is_cut() -> None:
    broker = Broker(size_max=10_100)
    large = replace(RECORD, value=b"x" * 50_000)
    letters = [Letter("undecodable", "no JSON", "p", at(1), one) for one in (large, RECORD)]
    TopicOfDeadLetters(broker).keep(letters)  # type: ignore[arg-type]
    assert [len(record.value or b"") for record in broker.sent] == [10_000, 7]
    assert dict(broker.sent[0].headers)["leasecache.cut"] == b"true"


def test_letter_whose_key_is_too_large_is_kept_with_a_part_of_its_key() -> None:
    broker = Broker(size_max=10_000)
    large = replace(RECORD, key=b"k" * 50_000)
    TopicOfDeadLetters(broker).keep([Letter("undecodable", "no JSON", "p", at(1), large)])  # type: ignore[arg-type]
    (record,) = broker.sent
    headers = dict(record.headers)
    assert (record.key, record.value) == (b"k" * 1000, b"")
    assert (headers["leasecache.cut"], headers["leasecache.cut-key"]) == (b"true", b"true")
    assert headers["leasecache.offset"] == b"41"


def test_topic_that_takes_not_even_a_cut_letter_says_so() -> None:
    with pytest.raises(NotKept, match="too large"):
        TopicOfDeadLetters(Broker(size_max=-1)).keep([Letter("undecodable", "no", "p", at(1), RECORD)])  # type: ignore[arg-type]


def test_topic_that_does_not_answer_says_so() -> None:
    broker = Broker()
    broker.down = True
    with pytest.raises(NotKept, match="nobody answers"):
        TopicOfDeadLetters(broker).keep([Letter("undecodable", "no JSON", "p", at(1), RECORD)])  # type: ignore[arg-type]


def test_settings_of_dead_letters_are_checked() -> None:
    from invalidator.daemon import open_letters

    log = open_log(replace(LogSettings(), level="critical"))
    with pytest.raises(ConfigError, match="not both"):
        open_letters(load(None, {}, {"dead_letters": {"topic": "dead", "file": "dead.jsonl"}}), log)
    with pytest.raises(ConfigError, match="no broker"):
        open_letters(load(None, {}, {"dead_letters": {"topic": "dead"}}), log)
    assert open_letters(load(None, {}, {}), log) is None


def test_rules_name_what_a_record_may_have_been_about() -> None:
    rules = Rules([CUSTOMERS, ORDERS_OF])
    poison = Poison("log", at(1), "no JSON", doubtful_row("customers", {"id": "not a number"}))
    reading = rules.read([Event("log", at(1), RowChange("customers", "update", {"id": 7}))], [poison])
    assert {(entity, reason) for _, entity, reason in reading.renew} <= {("customers", "undecodable")}
    assert reading.problems == []
