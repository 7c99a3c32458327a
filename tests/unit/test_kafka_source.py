"""The parts of the source kafka that need no broker: places, settings, logs, the buffer, a client that fails."""

from __future__ import annotations

import gc
import logging
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cachelib.errors import ConfigError, LogGap, StoreError
from invalidator.config import load
from invalidator.logs import open_log
from invalidator.metrics import Metrics
from invalidator.settings import LogSettings, Settings
from invalidator.sources.base import Record, covers, least, log_of, of_now
from invalidator.sources.kafka import KafkaSource
from invalidator.sources.kafka_buffer import Batch, Buffer
from invalidator.sources.kafka_client import OutOfRange, Topic
from invalidator.sources.kafka_login import check, for_kafka_python, for_librdkafka
from invalidator.sources.kafka_logs import ClientLogs, blames_settings
from invalidator.sources.kafka_member import Member
from invalidator.sources.kafka_open import builder
from invalidator.sources.kafka_places import (
    NODES_MAX,
    Mark,
    Part,
    decode_mark,
    digest,
    encode_mark,
    identity,
    label,
    mark,
    offset_of,
    place,
)
from invalidator.sources.kafka_puller import Puller
from invalidator.sources.kafka_python_listener import mind_the_join
from invalidator.sources.kafka_side import Side
from invalidator.sources.kafka_watch import Watch
from tests.integration.invalidator_daemon import until
from tests.servers.ports import free_port

LOG = open_log(LogSettings(level="error"))
P0, P1 = Part("t", 0), Part("t", 1)


# --- places ----------------------------------------------------------------------------------


def test_positions_sort_as_offsets_do_and_tell_their_topic() -> None:
    assert place(9, "A") < place(10, "A") < place(2**40, "A")
    assert (offset_of(place(7, "A")), log_of(place(7, "A"))) == (7, "A")
    assert offset_of("") == 0


def test_identity_is_the_same_from_both_libraries() -> None:
    plain = "43958bd6-2799-4402-8d05-1e2e6149b600"
    short = identity(plain)
    assert short == identity(UUID(plain)) == identity(short)
    assert len(short) == 22
    assert identity(None) == identity(str(UUID(int=0))) == ""


def test_long_topics_fit_into_a_memcached_name_and_stay_apart() -> None:
    names = {label(Part("x" * 248 + end, number)) for end in "ab" for number in (0, 1)}
    assert len(names) == 4
    assert max(map(len, names)) <= 128


def test_mark_survives_and_foreign_metadata_is_none() -> None:
    made = mark(place(7, "A"), ["redis://a:1", "redis://b:1"])
    assert decode_mark(7, encode_mark(made)) == made
    assert digest("redis://a:1") in made.nodes
    assert [decode_mark(7, text) for text in ("", "x", "{}", "[]", '{"format":2}')] == [None] * 5


def test_mark_of_very_many_nodes_still_fits_what_brokers_take() -> None:
    made = mark(place(7, "A" * 22), [f"redis://node-{number}.some.where:6379" for number in range(2000)])
    assert len(made.nodes) == NODES_MAX
    assert len(encode_mark(made)) < 4096


def test_positions_of_other_logs_say_nothing() -> None:
    now = {"t-0": place(3, "B"), "t-1": place(5, "A")}
    assert of_now({"t-0": place(9, "A"), "t-1": place(4, "A"), "t-2": place(1, "A")}, now) == {"t-1": place(4, "A")}
    assert least([{"t-0": place(9, "A")}, {"t-0": place(3, "B")}]) == {"t-0": ""}
    assert covers(now, {"t-1": place(4, "A")})


# --- settings --------------------------------------------------------------------------------


def settings(kafka: Mapping[str, Any] | None = None, **source: Any) -> Settings:
    given = {"bootstrap": ["here:9092"], **(kafka or {})}
    return load(None, {}, {"source": {"kind": "kafka"}, "kafka": given, "kafka_source": {"topics": ["t"], **source}})


@pytest.mark.parametrize(
    ("kafka", "source", "says"),
    [
        ({"bootstrap": []}, {}, "no broker is given"),
        ({}, {"topics": []}, "no topic is given"),
        ({}, {"topics": ["a b"]}, "'a b' cannot be one"),
        ({}, {"instance": "a/b"}, "'a/b' cannot be one"),
        ({}, {"formats": ["u=relay"]}, "'u' is not among"),
        ({}, {"formats": ["t=relais"]}, "relais"),
        ({"security": "SASL_SSL"}, {}, "needs kafka.user"),
        ({"security": "SASL_SSL", "user": "u", "password_file": "/nowhere"}, {}, "cannot be read"),
        ({"security": "SASL_SSL", "mechanism": "OAUTHBEARER"}, {}, "token_file"),
        ({"ca_file": "/nowhere"}, {}, "kafka.ca_file names /nowhere"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(kafka: dict[str, Any], source: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check(settings(kafka, **source))


def test_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    file.write_text("x")
    with pytest.raises(ConfigError, match="together"):
        check(settings({"cert_file": str(file)}))


def test_passwords_stand_in_no_text_about_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hidden-one\n")
    given = settings({"security": "SASL_SSL", "user": "u", "password_file": str(file)})
    check(given)
    assert "hidden-one" not in repr(given)
    for options in (for_kafka_python(given.kafka, given.kafka_source), for_librdkafka(given.kafka, given.kafka_source)):
        assert "hidden-one" in options.values()  # they do get it


def test_token_is_read_again_at_each_login(tmp_path: Path) -> None:
    from invalidator.sources.kafka_python_client import options

    file = tmp_path / "token"
    file.write_text("first")
    given = settings({"security": "SASL_SSL", "mechanism": "OAUTHBEARER"}, token_file=str(file))
    check(given)
    provider = options(given.kafka, given.kafka_source)["sasl_oauth_token_provider"]
    assert provider.token() == "first"
    file.write_text("second\n")
    assert provider.token() == "second"


# --- logs ------------------------------------------------------------------------------------


class Heard:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def warning(self, _: str, **fields: Any) -> None:
        self.lines.append(fields)


@pytest.fixture
def logs() -> Iterator[tuple[ClientLogs, Heard, logging.Logger]]:
    heard = Heard()
    made = ClientLogs(heard, ["pass-word"], clock_s=lambda: 0.0)
    logger = made.attach("a-client-library")
    yield made, heard, logger
    logger.removeHandler(made)


def test_a_line_that_repeats_is_said_once(logs: tuple[ClientLogs, Heard, logging.Logger]) -> None:
    _, heard, logger = logs
    for number in range(800):
        logger.warning("Marking the coordinator dead (node coordinator-%d) after 0.%d s", number, number)
    logger.warning("something else, with the pass-word")
    assert [line["text"] for line in heard.lines] == [
        "Marking the coordinator dead (node coordinator-0) after 0.0 s",
        "something else, with the (hidden)",
    ]


def test_a_line_that_does_not_fit_its_arguments_is_said_all_the_same(
    logs: tuple[ClientLogs, Heard, logging.Logger],
) -> None:
    made, heard, _ = logs
    made.handle(logging.LogRecord("x", logging.WARNING, __file__, 1, "%d partitions", ("pass-word",), None))
    assert [line["text"] for line in heard.lines] == ["%d partitions ('(hidden)',)"]


@pytest.mark.parametrize(
    ("lines", "login", "reason", "final"),
    [
        (["Connection failed: 111 ECONNREFUSED"], True, "nobody listens", False),
        (["DNS lookup failed"], False, "name is not known", False),
        (["[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"], True, "not trusted", True),
        (["_AUTHENTICATION: SASL authentication error: Authentication failed"], True, "refuses the login", True),
        (["Broker version identified as 4.1", "socket disconnected"], True, "refuses the login", True),
        (["Broker version identified as 4.1", "socket disconnected"], False, "wants a login", True),
        (["[SSL: WRONG_VERSION_NUMBER] wrong version number"], False, "kafka.security", True),
        (["something nobody has seen"], False, "", False),
    ],
)
def test_what_a_log_tells_of_a_connection_that_failed(
    logs: tuple[ClientLogs, Heard, logging.Logger], lines: list[str], login: bool, reason: str, final: bool
) -> None:
    made, _, logger = logs
    for line in lines:
        logger.info(line)
    found = made.reason(login=login)
    assert reason in found
    assert bool(found) == bool(reason)
    assert blames_settings(found) is final


# --- buffer ----------------------------------------------------------------------------------


def record(offset: int, part: Part = P0, value: bytes = b"{}") -> Record:
    return Record(part.topic, part.number, offset, 0, None, value)


def batch(first: int, number: int, part: Part = P0) -> Batch:
    return Batch(part, [record(first + n, part) for n in range(number)], first + number)


def test_buffer_gives_parts_of_a_batch_and_the_place_between() -> None:
    buffer = Buffer(100, 1 << 20)
    buffer.put(batch(0, 5))
    (first,) = buffer.take(2)
    assert (len(first.records), first.upto) == (2, 2)
    (rest,) = buffer.take(9)
    assert (len(rest.records), rest.upto) == (3, 5)
    assert not buffer
    assert (buffer.records, buffer.bytes) == (0, 0)


def test_buffer_is_full_by_number_or_by_size_and_roomy_when_half_is_free() -> None:
    by_number, by_size = Buffer(10, 1 << 20), Buffer(1000, 2000)
    by_number.put(batch(0, 10))
    by_size.put(Batch(P0, [record(0, value=b"x" * 1900)], 1))
    assert by_number.full
    assert by_size.full
    by_number.take(4)
    assert not by_number.full
    assert not by_number.roomy
    by_number.take(1)
    assert by_number.roomy


def test_buffer_drops_what_was_taken_away() -> None:
    buffer = Buffer(100, 1 << 20)
    buffer.put(batch(0, 5))
    buffer.put(batch(0, 3, P1))
    buffer.drop([P0])
    assert [one.part for one in buffer.take(9)] == [P1]
    assert buffer.records == 0


# --- a member --------------------------------------------------------------------------------


class Progress:
    """All that was handed out is done, at these places."""

    def __init__(self) -> None:
        self.found: dict[Part, Mark] = {}

    def marks(self, parts: Collection[Part]) -> Mapping[Part, Mark]:
        return {part: self.found[part] for part in parts if part in self.found}

    def settled(self, parts: Collection[Part]) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def member(clock: Clock | None = None) -> Member:
    return Member(Buffer(100, 1 << 20), Progress(), Metrics(), clock or Clock())


def test_nothing_is_kept_before_somebody_says_from_where() -> None:
    one = member()
    one.given([P0])
    one.keep([record(0)], {P0: 1})
    assert not one.buffer
    one.seek({P0: 5})
    one.keep([record(0)], {P0: 1})  # fetched before the client was told
    assert not one.buffer
    assert one.obey() == {P0: 5}
    one.keep([record(5)], {P0: 6})
    assert [found.upto for found in one.buffer.take(9)] == [6]


def test_offsets_that_no_record_stands_for_are_passed() -> None:
    one = member()
    one.given([P0])
    one.seek({P0: 5})
    one.obey()
    one.keep([], {P0: 8})
    assert one.buffer.take(9) == [Batch(P0, (), 8)]


def test_gap_seen_before_a_seek_is_not_of_after_it() -> None:
    one = member()
    one.seek({P0: 5})
    one.missed("the old place")
    assert one.gap == ""


def test_partitions_taken_for_a_moment_do_not_count_as_moved() -> None:
    clock = Clock()
    one = member(clock)
    one.given([P0, P1])
    before = one.number
    one.taken([P0], lost=False)
    assert one.number == before
    clock.now_s += 3
    assert one.number > before
    before = one.number
    one.taken([P1], lost=True)
    assert one.number > before


# --- a client that fails ---------------------------------------------------------------------


class FakeClient:
    """A client whose brokers are a few fields. `script`: what its polls do, one after the other."""

    def __init__(self, world: FakeKafka) -> None:
        self.world = world
        self.closed = False
        self.paused = False
        self.sought: dict[Part, int] = {}
        self.rejoined = 0

    def subscribe(self, topics: Sequence[str], membership: Any) -> None:
        self.membership = membership
        membership.given(self.world.gives)

    def rejoin(self) -> None:
        self.rejoined += 1
        self.membership.given(self.world.gives_at_last)

    def assign(self, parts: Collection[Part]) -> None:
        pass

    def poll(self, records_max: int, timeout_s: float) -> Sequence[Record]:
        self.world.beats.wait(0.002)
        if self.world.script:
            found = self.world.script.pop(0)
            if isinstance(found, Exception):
                raise found
            if callable(found):
                found()
                return []
            for one in found:
                self.sought[Part(one.topic, one.partition)] = one.offset + 1
            return found
        return []

    def positions(self) -> Mapping[Part, int]:
        return dict(self.sought)

    def seek(self, offsets: Mapping[Part, int]) -> None:
        self.sought |= offsets
        self.world.seeks.append(dict(offsets))

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def commit(self, marks: Mapping[Part, Mark], done: Callable[[str], None]) -> None:
        if not self.world.silent:
            self.world.marks |= {part: (at.offset, encode_mark(at)) for part, at in marks.items()}
            done("")

    def committed(self, parts: Collection[Part], timeout_s: float) -> Mapping[Part, tuple[int, str]]:
        return {part: at for part, at in self.world.marks.items() if part in parts}

    def begins(self, parts: Collection[Part], timeout_s: float) -> Mapping[Part, int]:
        return dict.fromkeys(parts, 0)

    def ends(self, parts: Collection[Part], timeout_s: float) -> Mapping[Part, int]:
        if self.world.down:
            raise OSError("nobody answers")
        return dict.fromkeys(parts, self.world.end)

    def at(self, parts: Collection[Part], time_ms: int, timeout_s: float) -> Mapping[Part, int]:
        return dict.fromkeys(parts, 0)

    def topics(self, names: Collection[str], timeout_s: float) -> Mapping[str, Topic]:
        if self.world.down:
            raise OSError("nobody answers")
        return {name: Topic(self.world.topic_id, self.world.partitions) for name in names}

    def close(self, timeout_s: float) -> None:
        self.closed = True


class FakeKafka:
    """Brokers, and every client that was built for them."""

    def __init__(self) -> None:
        self.clients: list[FakeClient] = []
        self.script: list[Any] = []
        self.seeks: list[dict[Part, int]] = []
        self.marks: dict[Part, tuple[int, str]] = {}
        self.gives: list[Part] = [P0]
        self.gives_at_last: list[Part] = [P0]
        self.topic_id, self.partitions, self.end = "A", 2, 0
        self.silent = self.down = False
        self.beats = threading.Event()
        self.hangs: threading.Event | None = None

    def build(self, group: str = "") -> FakeClient:
        if self.hangs is not None:
            self.hangs.wait(20)
        if self.down:
            raise StoreError("no broker answers")
        made = FakeClient(self)
        self.clients.append(made)
        return made


@pytest.fixture
def kafka() -> Iterator[FakeKafka]:
    made = FakeKafka()
    yield made
    if made.hangs is not None:
        made.hangs.set()
    made.beats.set()


@pytest.fixture
def puller(kafka: FakeKafka, monkeypatch: pytest.MonkeyPatch) -> Iterator[Puller]:
    monkeypatch.setattr("invalidator.sources.kafka_puller._PAUSE_FIRST_S", 0.01)
    monkeypatch.setattr("invalidator.sources.kafka_puller._EMPTY_S", 0.05)
    source = settings(commit_timeout="100ms", request="1s", stalled="1s").kafka_source
    made = Puller(kafka.build, "group", source, Progress(), Metrics(), LOG)
    yield made
    made.stop()


def placed(puller: Puller) -> None:
    """The client has been told where to go on."""
    until(lambda: puller.member.parts and not puller.error)
    puller.member.seek({P0: 0})
    until(lambda: puller.member.wanted is None)


def soon(puller: Puller) -> list[Batch]:
    """What it gives once a client works."""

    def take() -> list[Batch]:
        try:
            return puller.take(10, 0.1)
        except LogGap:
            raise
        except StoreError:
            return []

    found: list[Batch] = until(take)
    return found


def test_exception_out_of_poll_means_another_client_and_nothing_is_committed(kafka: FakeKafka, puller: Puller) -> None:
    puller.start()
    placed(puller)
    first = puller.member
    kafka.script += [[record(0)], KeyError("UnknownBrokerId")]
    until(lambda: len(kafka.clients) == 2)
    until(lambda: kafka.clients[0].closed)
    assert puller.member is not first
    assert kafka.marks == {}
    placed(puller)
    kafka.script += [[record(0)]]  # it comes again
    assert soon(puller)


def test_brokers_that_stay_away_are_a_store_error_until_they_are_back(kafka: FakeKafka, puller: Puller) -> None:
    kafka.down = True
    puller.start()
    with pytest.raises(StoreError, match="no broker answers"):
        until(lambda: puller.take(10, 0.2))
    kafka.down = False
    placed(puller)
    assert puller.take(10, 0.0) == []


def test_client_that_hangs_while_it_is_built_is_replaced(
    kafka: FakeKafka, puller: Puller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A constructor took 27 s while a broker was stopped. The late client is closed, and heard no more."""
    clock = Clock()
    monkeypatch.setattr(puller, "_clock_s", clock)
    kafka.hangs = hangs = threading.Event()
    puller.start()
    time.sleep(0.05)
    kafka.hangs = None
    clock.now_s += 60
    puller.take(10, 0.0)
    until(lambda: len(kafka.clients) == 1)
    placed(puller)
    member_now = puller.member
    hangs.set()
    until(lambda: len(kafka.clients) == 2 and kafka.clients[1].closed)
    assert puller.member is member_now


def test_commit_that_nobody_confirms_fails_in_time(kafka: FakeKafka, puller: Puller) -> None:
    puller.start()
    placed(puller)
    kafka.silent = True
    with pytest.raises(StoreError, match="did not confirm"):
        puller.commit({P0: Mark(3, "A", frozenset())})
    kafka.silent = False
    puller.commit({P0: Mark(4, "A", frozenset())})
    assert kafka.marks[P0][0] == 4


def test_commit_of_partitions_that_others_have_by_now_is_left_out(kafka: FakeKafka, puller: Puller) -> None:
    puller.start()
    placed(puller)
    puller.commit({P1: Mark(3, "A", frozenset())})
    assert kafka.marks == {}


def test_member_that_got_nothing_joins_again(kafka: FakeKafka, puller: Puller) -> None:
    kafka.gives = []
    puller.start()
    until(lambda: puller.member.parts == {P0})
    assert kafka.clients[0].rejoined == 1


def test_gap_is_told_until_somebody_seeks(kafka: FakeKafka, puller: Puller) -> None:
    puller.start()
    placed(puller)
    kafka.script += [OutOfRange([P0], "t-0: offset out of range")]
    for _ in range(2):
        with pytest.raises(LogGap, match="out of range"):
            soon(puller)
    puller.member.seek({P0: 9})
    assert puller.take(10, 0.0) == []
    until(lambda: {P0: 9} in kafka.seeks)


def test_full_buffer_pauses_and_a_half_empty_one_goes_on(kafka: FakeKafka, puller: Puller) -> None:
    puller.start()
    placed(puller)
    puller.member.buffer._records_max = 10
    kafka.script += [[record(number) for number in range(10)]]
    until(lambda: kafka.clients[0].paused)
    taken = puller.take(7, 0.0)
    assert sum(len(one.records) for one in taken) == 7
    until(lambda: not kafka.clients[0].paused)


# --- the watch -------------------------------------------------------------------------------


def watch(kafka: FakeKafka, puller: Puller, at: dict[Part, str], clock: Clock) -> Watch:
    source = settings(stalled="15s").kafka_source
    return Watch(Side(kafka.build, source, "group"), puller, source, lambda: at, Metrics(), LOG, clock)


def test_no_progress_though_there_is_more_means_another_client(kafka: FakeKafka, puller: Puller) -> None:
    puller.start()
    placed(puller)
    clock, at = Clock(), {P0: place(5, "A")}
    looking = watch(kafka, puller, at, clock)
    kafka.end = 9
    before = puller.member
    looking.look()
    clock.now_s += 14
    looking.look()
    assert puller.member is before
    clock.now_s += 2
    looking.look()
    until(lambda: puller.member is not before)


def test_end_that_nobody_tells_is_no_reason_to_connect_anew(kafka: FakeKafka, puller: Puller) -> None:
    puller.start()
    placed(puller)
    clock, at = Clock(), {P0: place(5, "A")}
    looking = watch(kafka, puller, at, clock)
    before = puller.member
    kafka.end = 5  # all is read
    looking.look()
    clock.now_s += 60
    looking.look()
    kafka.down = True
    for _ in range(3):
        clock.now_s += 60
        with pytest.raises(StoreError):
            looking.look()
    assert puller.member is before


def test_topic_of_another_identity_is_a_gap(kafka: FakeKafka, puller: Puller) -> None:
    puller.start()
    placed(puller)
    at = {P0: place(5, "A")}
    looking = watch(kafka, puller, at, Clock())
    kafka.end = 9
    kafka.topic_id = "B"
    looking.look()
    with pytest.raises(LogGap, match="created again"):
        puller.take(10, 0.1)


# --- kafka-python's joins --------------------------------------------------------------------


class Coordinator:
    def __init__(self, task: object) -> None:
        self._join_task = task
        self.rejoins = 0

    def request_rejoin(self) -> None:
        self.rejoins += 1


def test_constructor_that_fails_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """With brokers away for an hour these were hundreds, with five descriptors each."""
    given = settings({"bootstrap": [f"127.0.0.1:{free_port()}"]}, connect="500ms")
    heard = Heard()
    build = builder(given, heard)
    before = threading.active_count()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves refused sockets to the collector
        for _ in range(2):
            with pytest.raises(StoreError, match="nobody listens there"):
                build("group")
        gc.collect()
    until(lambda: threading.active_count() <= before)


def test_join_under_way_stays_wanted_and_a_finished_one_is_left_alone() -> None:
    under_way, over = Coordinator(object()), Coordinator(None)
    for one in (under_way, over):
        mind_the_join(one)
    assert (under_way.rejoins, over.rejoins) == (1, 0)


# --- committed -------------------------------------------------------------------------------


@pytest.fixture
def side(kafka: FakeKafka) -> Side:
    return Side(kafka.build, settings().kafka_source, "group")


def test_partition_that_was_added_begins_at_its_beginning(kafka: FakeKafka, side: Side) -> None:
    kafka.marks = {P0: (7, encode_mark(Mark(7, "A", frozenset({"n"}))))}
    found = side.marks([P0, P1])
    assert found[P1] == Mark(0, "A", frozenset({"n"}))


def test_offsets_of_a_topic_that_was_replaced_are_none(kafka: FakeKafka, side: Side) -> None:
    kafka.marks = {P0: (7, encode_mark(Mark(7, "old", frozenset())))}
    assert side.marks([P0, P1]) == {}


def test_offset_that_another_program_committed_is_none(kafka: FakeKafka, side: Side) -> None:
    kafka.marks = {P0: (7, "")}
    assert side.marks([P0]) == {}


def test_node_counts_only_where_every_partition_says_so(kafka: FakeKafka) -> None:
    a, b = "redis://a:1", "redis://b:1"
    kafka.gives = [P0, P1]
    kafka.marks = {
        P0: (7, encode_mark(mark(place(7, "A"), [a, b]))),
        P1: (3, encode_mark(mark(place(3, "A"), [a]))),
    }
    source = KafkaSource(settings(), kafka.build, Metrics(), LOG)
    source.open(lambda: None)
    until(source.moved)
    committed = source.committed([a, b])
    source.close()
    assert committed is not None
    assert committed.counted == {a}
    assert committed.positions == {"t-0": place(7, "A"), "t-1": place(3, "A")}
