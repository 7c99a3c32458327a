"""The refinement: Hypothesis drives `item.apply` and a live backend side by side and compares everything.

After each operation the answer and the item (decoded from what `Backend.get` hands out) must be
those of `apply`. An item whose life may be over by any clock may be gone; all others may go only
where the machine evicted them itself.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

from cachelib.backends.base import Results
from cachelib.errors import MissingExtra
from cachelib.item import apply
from cachelib.model import (
    ABSENCE,
    ANY,
    U64_MAX,
    Answer,
    Claim,
    Content,
    Fill,
    Get,
    Item,
    Name,
    Op,
    Put,
    RaiseFloor,
    Release,
    Requirement,
    Revoke,
    Token,
    Version,
    value_of,
)
from cachelib.testing.conformance_subject import Subject, must, readable

try:
    from hypothesis import HealthCheck, settings
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
except ImportError as cause:
    raise MissingExtra("the conformance suite drives backends with Hypothesis: pip install hypothesis") from cause

START_MS = 1_700_000_000_000
ENDINGS = (b"plain", b"{user:7}/caf\xc3\xa9", b"x" * 40)
VERSIONS = (1, 2, 255, 256, 2**53, 2**53 + 1, 2**63 - 1, 2**63, U64_MAX - 1, U64_MAX)
TOKENS = (1, 2**53 + 1, U64_MAX)
HOLDS_MS = (15_000, 30_000, 100_000)
TTLS_MS = (3_600_000, 40 * 86_400_000, 500 * 86_400_000)
SHORTER_MS = (0, 5_000, 20_000)
STALE_MS = (0, 600_000, 7_200_000)
AS_OF_US = (0, 1_000, 2_000, 2**53 + 1)
PASSES_MS = (1, 4_999, 15_000, 61_000)
SURELY_ALIVE_MS = 60_000
"""An item with less than this ahead of it may have ended, by the server's clock or ours."""

GARBAGE = (b"", b"\xca\x01", b"no item of ours, though it is longer than a header of one: " + bytes(40), bytes(68))

_WHICH = st.integers(0, len(ENDINGS) - 1)
_HOLD = st.sampled_from(HOLDS_MS)
_STALE = st.sampled_from(STALE_MS)
_AS_OF = st.sampled_from(AS_OF_US)
_LIVES: dict[str, Any] = {
    "ttl_ms": st.sampled_from(TTLS_MS),
    "soft_ttl_ms": st.sampled_from(SHORTER_MS),
    "as_of_us": _AS_OF,
}


class Refinement(RuleBasedStateMachine):
    """One example: a handful of fresh names, any operations on them, alone and in batches."""

    subject: ClassVar[Subject]

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = START_MS
        self.names = [self.subject.name(ending) for ending in ENDINGS]
        self.items: dict[Name, Item | None] = dict.fromkeys(self.names)
        self.notes: dict[Name, bytes] = {}

    @rule(ms=st.sampled_from(PASSES_MS))
    def time_passes(self, ms: int) -> None:
        """For leases and soft lives; lives on a server are counted by its own clock."""
        self.now_ms += ms

    @rule(which=_WHICH, by=st.sampled_from((-1, 0, 1)))
    def it_is_time(self, which: int, by: int) -> None:
        """The moment that a refresh is due or a lease ends, and those around it."""
        if item := self.items[self.names[which]]:
            ahead = [ms for ms in (item.soft_expire_ms, item.lease_until_ms) if ms > self.now_ms]
            self.now_ms = max(self.now_ms, min(ahead, default=0) + by)

    @rule(which=_WHICH, data=st.data())
    def one(self, which: int, data: st.DataObject) -> None:
        """One operation on one name."""
        name = self.names[which]
        self._one(name, data.draw(ops(self.items[name])))

    @rule(which=_WHICH, data=st.data(), token=st.sampled_from(TOKENS), between=st.integers(0, 2), cold=st.booleans())
    def loaded(self, which: int, data: st.DataObject, token: Token, between: int, *, cold: bool) -> None:
        """A read, whatever happens to the item meanwhile, and a fill under its lease: what chance alone seldom does."""
        name = self.names[which]
        if cold:
            self.evicted(which)
        self._one(name, Get(token, 30_000, vacant=True) if cold else Claim(token, 30_000))
        for _ in range(between):
            self._one(name, data.draw(ops(self.items[name])))
        self._one(name, data.draw(fills(self.items[name], st.just(token))))

    @rule(data=st.data(), count=st.integers(0, len(ENDINGS)))
    def many(self, data: st.DataObject, count: int) -> None:
        """One operation on each of several names, in one batch."""
        batch = self._batch(data, count)
        self._expect(batch, self.subject.backend.execute_many(batch, self.now_ms))

    @rule(data=st.data(), count=st.integers(0, len(ENDINGS)), text=st.binary(max_size=40))
    def applied(self, data: st.DataObject, count: int, text: bytes) -> None:
        """A batch with a note behind it."""
        batch, note = self._batch(data, count), self.names[0] + b".note"
        results = self.subject.backend.apply(batch, {note: text}, self.now_ms)
        self._expect(batch, results)
        self.notes[note] = text
        kept = self.subject.backend.read_notes([note, b"no." + note])
        must(kept == [text, None], f"the note {text!r} was kept as {kept}")

    @rule(which=_WHICH)
    def evicted(self, which: int) -> None:
        """The server drops an item."""
        self.subject.evict(self.names[which])
        self.items[self.names[which]] = None

    @precondition(lambda self: any(item is None for item in self.items.values()))
    @rule(raw=st.sampled_from(GARBAGE))
    def planted(self, raw: bytes) -> None:
        """Bytes that are no item stand where one belongs: as if there were none."""
        self.subject.plant(next(name for name, item in self.items.items() if item is None), raw)

    @rule()
    def looked_at(self) -> None:
        """`get_many` hands out what `get` does."""
        unknown = self.names[0] + b".unknown"
        many = self.subject.backend.get_many([*self.names, unknown])
        must(many[-1] is None, f"a name nobody used has {many[-1]!r}")
        for name, raw in zip(self.names, many, strict=False):
            self._same(name, readable(raw), [self.items[name]])

    # --- how -----------------------------------------------------------------------------------

    def _one(self, name: Name, op: Op) -> None:
        answer = self.subject.backend.execute(name, op, self.now_ms)
        self._expect([(name, op)], [answer])

    def _batch(self, data: st.DataObject, count: int) -> list[tuple[Name, Op]]:
        return [(name, data.draw(ops(self.items[name]))) for name in self.names[:count]]

    def _expect(self, batch: list[tuple[Name, Op]], results: Results | list[Answer]) -> None:
        must(len(results) == len(batch), f"{len(batch)} operations, {len(results)} answers")
        for (name, op), answer in zip(batch, results, strict=True):
            self._expect_one(name, op, answer)

    def _expect_one(self, name: Name, op: Op, answer: object) -> None:
        outcomes = [apply(before, op, self.now_ms) for before in self._possible(self.items[name])]
        states = [state for state, expected in outcomes if expected == answer]
        must(bool(states), f"{op}\n  on {self.items[name]}\n  answered {answer}\n  and not {outcomes[0][1]}")
        self._same(name, self.subject.item(name), states, op)

    def _same(self, name: Name, seen: Item | None, states: list[Item | None], op: Op | None = None) -> None:
        allowed = [possible for state in states for possible in self._possible(state)]
        must(seen in allowed, f"after {op}\n  on {self.items[name]}\n  there is {seen}\n  and not {states[0]}")
        self.items[name] = seen

    def _possible(self, item: Item | None) -> list[Item | None]:
        """What may be there: the item, or nothing where its life may be over."""
        if item is None or item.expires_ms - self.now_ms >= SURELY_ALIVE_MS:
            return [item]
        return [item, None]


def refinement_of(subject: Subject) -> type[Refinement]:
    """The state machine for one subject, for `run_state_machine_as_test` or its `TestCase`."""
    return type("RefinementOfSubject", (Refinement,), {"subject": subject})


def run_refinement(subject: Subject, *, examples: int = 100, steps: int = 30, **more: Any) -> None:
    """Run the state machine. `more` are further settings of Hypothesis."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    chosen: dict[str, Any] = {"deadline": None, "suppress_health_check": slow, **more}
    run_state_machine_as_test(
        refinement_of(subject), settings=settings(max_examples=examples, stateful_step_count=steps, **chosen)
    )


# --- operations ------------------------------------------------------------------------------


def ops(item: Item | None) -> st.SearchStrategy[Op]:
    """Operations that are likely to matter to this item: with its token, around its version and floor."""
    return _ops(item.version, item.floor, item.lease) if item else _ops(0, 0, 0)


def fills(item: Item | None, tokens: st.SearchStrategy[Token]) -> st.SearchStrategy[Op]:
    """Fills around the item's version and floor, and without a version."""
    versions = _versions(item.version, item.floor) if item else _versions(0, 0)
    return st.builds(Fill, tokens, contents(), st.just(0) | versions, **_LIVES)


@lru_cache(maxsize=1024)
def _versions(version: Version, floor: Version) -> st.SearchStrategy[Version]:
    near = {number + by for number in (version, floor) for by in (-1, 0, 1)}
    some = st.sampled_from(sorted({1, *(number for number in near if 1 <= number <= U64_MAX)}))
    return some | st.sampled_from(VERSIONS)


@lru_cache(maxsize=4096)
def _ops(version: Version, floor: Version, lease: Token) -> st.SearchStrategy[Op]:
    versions = _versions(version, floor)
    tokens = st.sampled_from([lease, *TOKENS] if lease else TOKENS)
    or_none = st.just(0) | tokens  # 0 names no lease, not even that of an item without one
    changes = st.sampled_from(("create", "update", "delete"))
    put = {"version": versions, "change": changes, "stale_ttl_ms": _STALE, "token": or_none}
    return st.one_of(
        st.builds(Get, tokens, _HOLD, _requirements(versions), st.booleans()),
        st.builds(Fill, or_none, contents(), st.just(0) | versions, **_LIVES),
        st.builds(Put, contents(), **put, **_LIVES),
        st.builds(RaiseFloor, versions, changes, _STALE, _STALE),
        st.builds(Revoke, _STALE, st.booleans()),
        st.builds(Claim, tokens, _HOLD),
        st.builds(Release, or_none),
    )


def contents() -> st.SearchStrategy[Content]:
    """Absence, or a value: short ones, and one that is longer than a socket's buffer."""
    return st.just(ABSENCE) | st.builds(value_of, st.binary(max_size=60) | st.just(b"\r\n$-1\r\nEND\r\n" * 8_000))


def _requirements(versions: st.SearchStrategy[Version]) -> st.SearchStrategy[Requirement]:
    return st.just(ANY) | st.builds(Requirement, st.none() | versions, st.none() | _AS_OF)
