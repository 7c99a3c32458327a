"""What a session keeps of what it has seen, how little of it suffices, and its token."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachelib.errors import BadToken
from cachelib.history import BINDINGS_MAX, KEYS_MAX, START_BITS, History, Mark, Parts, binding_of, key_mark
from cachelib.item import serves
from cachelib.model import ANY, Item, Requirement, value_of
from cachelib.port import Found, Source
from cachelib.session import TOKEN_CHARS_MAX, decode_token, encode_token

HERE, THERE = 7 << START_BITS, 8 << START_BITS
"""Two bindings, of two spots."""
STORE = "00" * 8
SEAL, OTHER = b"k" * 16, b"o" * 16


def found(version: int = 0, as_of_us: int = 0, source: Source = "hit", *, is_there: bool = True) -> Found:
    return Found("value", is_there, version, source, as_of_us)


def asks(history: History, key: int = 1, binding: int = HERE, layout: int = 1) -> Requirement:
    return history.ground(key, history.meet(binding, layout))[0].requirement


def see(history: History, key: int, what: Found, binding: int = HERE, now_us: int = 1_000, layout: int = 1) -> None:
    met = history.meet(binding, layout)
    history.saw(key, history.ground(key, met)[1], what, met, now_us)


def item(version: int = 0, as_of_us: int = 0) -> Item:
    return Item(value_of(b"v"), version=version, as_of_us=as_of_us)


# --- what it asks ----------------------------------------------------------------------------


def test_new_session_asks_for_nothing() -> None:
    ground, mark = History(STORE).ground(1, HERE)
    assert (ground.requirement, ground.stale, ground.joins_from_us, mark) == (ANY, True, 0, None)


def test_session_asks_for_the_version_it_has_seen() -> None:
    history = History(STORE)
    see(history, 1, found(5))
    assert not serves(item(4, as_of_us=9_999), asks(history))
    assert serves(item(5), asks(history))
    assert asks(history, key=2) == ANY


def test_session_that_has_seen_absence_asks_elsewhere_for_a_load_after_that() -> None:
    """Not for one as late as that behind what it saw: whose clock was read first may have the later snapshot."""
    history = History(STORE)
    see(history, 1, found(0, 500, is_there=False), now_us=700)
    assert not serves(item(9, as_of_us=699), asks(history, binding=THERE))
    assert serves(item(0, as_of_us=700), asks(history, binding=THERE))


def test_session_that_has_seen_absence_takes_what_is_fresh_where_it_saw_it() -> None:
    history = History(STORE)
    see(history, 1, found(0, 500, is_there=False), now_us=700)
    ground, _ = history.ground(1, history.meet(HERE, 1))
    assert ground.requirement == ANY
    assert not ground.stale
    assert ground.joins_from_us == 700


def test_load_that_was_not_stored_counts_from_now_on() -> None:
    """Its snapshot may be newer than one that began later: the other's clock was read before it."""
    history = History(STORE)
    see(history, 1, found(0, 500, "store"), now_us=700)
    assert asks(history) == Requirement(min_as_of_us=700)


def test_absence_after_a_value_takes_its_place() -> None:
    history = History(STORE)
    see(history, 1, found(5))
    see(history, 1, found(0, 600, "filled", is_there=False), now_us=700)
    assert asks(history, binding=THERE) == Requirement(min_as_of_us=700)


def test_session_never_asks_for_less() -> None:
    history = History(STORE)
    see(history, 1, found(5))
    see(history, 1, found(3, source="store"))  # the store went back, or a loader reads a replica
    assert asks(history) == Requirement(min_version=5)


def test_own_write_counts_until_something_newer_is_seen() -> None:
    history = History(STORE)
    history.wrote({1: Mark(5)}, 1_000)
    assert asks(history) == Requirement(min_version=5)
    history.wrote({1: Mark(4)}, 1_000)
    assert asks(history) == Requirement(min_version=5)


def test_reads_that_overtake_each_other_count_both() -> None:
    history = History(STORE)
    _, before = history.ground(1, HERE)
    see(history, 1, found(0, 900, is_there=False))  # of another thread of the session
    history.saw(1, before, found(5), HERE, 1_000)
    assert asks(history) == Requirement(min_as_of_us=1_000)


# --- what it drops ---------------------------------------------------------------------------


def test_at_most_so_many_keys_are_kept() -> None:
    history = History(STORE)
    for key in range(1_000):
        see(history, key, found(5))
    assert len(history.parts().marks) <= KEYS_MAX


def overflown(source: Source = "hit", binding: int = HERE) -> History:
    history = History(STORE)
    for key in range(KEYS_MAX + 1):
        see(history, key, found(5, source=source), binding, now_us=1_000)
    return history


def test_dropped_key_asks_for_nothing_where_it_was_seen() -> None:
    """The item there only moves forward; so a session of many keys goes on hitting."""
    ground, _ = overflown().ground(0, HERE)
    assert ground.requirement == ANY
    assert not ground.stale
    assert ground.joins_from_us == 1_000


def test_dropped_key_asks_for_a_later_load_under_a_binding_that_is_met_later() -> None:
    assert asks(overflown(), 0, THERE) == Requirement(min_as_of_us=1_000)
    assert asks(overflown(), 0, binding=0) == Requirement(min_as_of_us=1_000)


def test_dropped_key_asks_for_a_later_load_though_others_were_dropped_there_meanwhile() -> None:
    """The server came back old: what was dropped under its new start says nothing of what was dropped before."""
    history = overflown()
    for key in range(1_000, 1_200):
        see(history, key, found(5), THERE, now_us=2_000)
    assert asks(history, 0, THERE) == Requirement(min_as_of_us=1_000)


def test_servers_met_before_anything_was_dropped_cost_nothing() -> None:
    history = History(STORE)
    for key in range(1_000):
        see(history, key, found(5), (HERE, THERE)[key % 2])
    assert asks(history, 0, HERE) == asks(history, 1, THERE) == ANY


def test_dropped_key_asks_for_a_later_load_in_another_layout() -> None:
    assert asks(overflown(), 0, HERE, layout=2) == Requirement(min_as_of_us=1_000)


def test_what_one_cache_was_told_and_was_dropped_is_not_taken_from_another_cache() -> None:
    """Met before it was dropped, and yet nobody has told it."""
    history = History(STORE)
    marks = {0: Mark(5)}
    history.wrote(marks, 500)
    history.told(marks, {0: history.meet(HERE, 1, place=1)})
    for key in range(1, KEYS_MAX + 1):
        met = history.meet(THERE, 1, place=2)
        history.saw(key, history.ground(key, met)[1], found(5), met, 1_000)
    assert history.ground(0, history.meet(THERE, 1, place=2))[0].requirement == Requirement(min_as_of_us=500)


def test_process_that_lags_behind_a_layout_binds_nobody() -> None:
    history = overflown()
    see(history, 500, found(5), THERE, layout=2)
    for key in range(600, 600 + 2 * KEYS_MAX):
        see(history, key, found(5), HERE, now_us=3_000, layout=1)
    assert asks(history, 600, THERE, layout=2) == Requirement(min_as_of_us=3_000)


@pytest.mark.parametrize("source", ["store", "stale", "joined"])
def test_dropped_key_that_no_server_has_asks_for_a_later_load_everywhere(source: Source) -> None:
    assert asks(overflown(source), 0) == Requirement(min_as_of_us=1_000)


def test_dropped_write_that_was_not_confirmed_asks_for_a_later_load_everywhere() -> None:
    history = History(STORE)
    history.wrote({0: Mark(5)}, 1_000)
    for key in range(1, KEYS_MAX + 1):
        see(history, key, found(5))
    assert asks(history, 0) == Requirement(min_as_of_us=1_000)


def test_confirmed_write_is_of_the_server_that_confirmed_it() -> None:
    history = History(STORE)
    marks = {0: Mark(5)}
    history.wrote(marks, 1_000)
    history.told(marks, {0: history.meet(HERE, 1)})
    for key in range(1, KEYS_MAX + 1):
        see(history, key, found(5))
    assert asks(history, 0) == ANY


def test_too_many_servers_are_forgotten_and_asked_as_new_ones() -> None:
    history = History(STORE)
    for number in range((BINDINGS_MAX + 2) * KEYS_MAX):
        see(history, number, found(5), binding=number % (BINDINGS_MAX + 2) + 1 << START_BITS)
    assert len(history.parts().bindings) <= BINDINGS_MAX
    assert asks(history, 10**9, binding=1 << START_BITS) == Requirement(min_as_of_us=1_000)


def test_other_store_makes_a_session_begin_anew() -> None:
    history = overflown()
    history.of_store("another")
    assert asks(history, 0, THERE) == ANY
    assert asks(history, KEYS_MAX) == ANY


def test_bulk_write_asks_for_later_loads_of_everything() -> None:
    history = overflown()
    history.wrote_all(5_000)
    assert asks(history, 0) == asks(history, KEYS_MAX) == Requirement(min_as_of_us=5_000)


def journey(seed: int, keys: int, writes: float, files: float, restarts: float) -> float:
    """Keys on two servers, each of which moves forward until it comes back, as another start, with what is in its
    file. Nothing goes back; answers the share of hits. `writes`, `files`, `restarts`: how often at each read."""
    rng = random.Random(seed)
    history, seen = History(STORE), dict.fromkeys(range(keys), 0)
    version, held, loaded = dict.fromkeys(seen, 1), dict.fromkeys(seen, 1), dict.fromkeys(seen, 1)
    starts, kept, hits = [HERE, THERE], [(1, 1)] * keys, 0
    for now in range(2, 12_000):
        key = rng.randrange(keys)
        if rng.random() < writes:
            version[key] += 1
            if rng.random() < 0.9:
                held[key], loaded[key] = version[key], now  # else the event is still on its way
        if rng.random() < files:
            kept = [(held[other], loaded[other]) for other in range(keys)]
        if rng.random() < restarts:
            server = rng.randrange(2)
            starts[server] += 1
            for other in range(server, keys, 2):
                held[other], loaded[other] = kept[other]
        if rng.random() < 0.01:
            history = decode_token(encode_token(history))
        met = history.meet(starts[key % 2], 1)
        ground, mark = history.ground(key, met)
        if serves(item(held[key], loaded[key]), ground.requirement):
            hits += 1
        else:
            held[key], loaded[key] = version[key], now
        assert held[key] >= seen[key]
        seen[key] = held[key]
        history.saw(key, mark, found(held[key], loaded[key]), met, now)
    return hits / 12_000


@pytest.mark.parametrize("seed", range(4))
def test_never_shown_anything_older_whatever_is_dropped(seed: int) -> None:
    assert journey(seed, keys=300, writes=0.05, files=0.001, restarts=0.001) > 0.8


@pytest.mark.parametrize("seed", range(2))
def test_never_shown_anything_older_where_all_changes_often(seed: int) -> None:
    journey(seed, keys=100, writes=0.3, files=0.1, restarts=0.02)


# --- the token -------------------------------------------------------------------------------

marks = st.dictionaries(
    st.integers(0, 2**48 - 1),
    st.one_of(
        st.builds(Mark, st.integers(1, 2**64 - 1), st.just(0), st.integers(0, 2**48 - 1)),
        st.builds(Mark, st.just(0), st.integers(0, 2**63), st.integers(0, 2**48 - 1)),
    ),
    max_size=KEYS_MAX,
)


times = st.integers(0, 2**63)


def made(marks: dict[int, Mark], **parts: Any) -> History:
    history = History(STORE)
    plain: dict[str, Any] = {"layout": 0, "place": 0, "since_us": 0, "past_us": 0, "seen_us": 0, "left_us": 0}
    history.restore(Parts(**(plain | {"bindings": {}} | parts), marks=marks))
    return history


@given(marks, st.tuples(*[times] * 5), st.dictionaries(st.integers(1, 2**48 - 1), times, max_size=BINDINGS_MAX))
def test_token_carries_the_whole_history(
    marks: dict[int, Mark], numbers: tuple[int, ...], bindings: dict[int, int]
) -> None:
    layout, since, past, seen, left = numbers
    history = made(marks, layout=layout, since_us=since, past_us=past, seen_us=seen, left_us=left, bindings=bindings)
    for keys in ((), (SEAL,)):
        other = decode_token(encode_token(history, keys), keys)
        assert other.parts() == history.parts()
        assert other.store == STORE


def test_token_fits_into_a_header_and_a_cookie() -> None:
    full = made(
        {key_mark("order", b"%d" % n): Mark(10**9 + n, 0, HERE) for n in range(KEYS_MAX)},
        **(dict.fromkeys(["since_us", "past_us", "seen_us", "left_us"], 2**51)),
    )
    token = encode_token(full, [SEAL])
    assert len(token) < 1_300
    assert token.isascii()
    assert not set(token) & set(' ;,="\\\r\n')
    assert len(encode_token(History(STORE))) < 32


def test_seal_is_checked_and_keys_can_be_changed() -> None:
    token = encode_token(made({1: Mark(5)}), [SEAL])
    assert decode_token(token, [OTHER, SEAL]).parts().marks == {1: Mark(5)}
    for keys in ([OTHER], [OTHER * 2]):
        with pytest.raises(BadToken, match="sealed"):
            decode_token(token, keys)
    with pytest.raises(BadToken, match="sealed"):
        decode_token(encode_token(made({1: Mark(5)})), [SEAL])


@given(st.text(max_size=60))
def test_what_is_no_token_is_refused(text: str) -> None:
    for prefix in ("", "1.", "2."):
        try:
            decode_token(prefix + text)
        except BadToken:
            continue


def test_changed_token_is_refused_or_harmless() -> None:
    token = encode_token(made({n: Mark(5) for n in range(9)}), [SEAL])
    rng = random.Random(1)
    for _ in range(300):
        at = rng.randrange(2, len(token) - 1)
        changed = token[:at] + rng.choice("abcdefgh") + token[at + 1 :]
        if changed != token:
            with pytest.raises(BadToken):
                decode_token(changed, [SEAL])


@pytest.mark.parametrize("token", ["", "1.", "2.AAAA", "1.!!!!", "1." + "A" * TOKEN_CHARS_MAX, "1.AAAAAAAAAAAAAAAA"])
def test_token_of_another_kind_is_refused(token: str) -> None:
    with pytest.raises(BadToken):
        decode_token(token)


def test_binding_is_of_one_start_one_layout_and_one_place() -> None:
    one = binding_of("start", 3, b"lc/e.t/order:1", b"order:1")
    assert one == binding_of("start", 3, b"lc/e.t/order:2", b"order:2")
    for start, number, name in (("other", 3, b"lc/e.t/"), ("start", 4, b"lc/e.t/"), ("start", 3, b"lc/e.u/")):
        assert one != binding_of(start, number, name + b"order:1", b"order:1")
