"""The token of a session: its history as a short text for a header or a cookie.

`1.` and base64url of: the store (8 bytes of a hash), layout and times, bindings, marks; numbers as LEB128. With a key,
16 bytes of HMAC-SHA256 stand at the end: of a token from outside, nothing is believed that was not written here.
Without one, whoever sends a token can only cause loads of the keys that he reads: no number of a token ever enters an
item (I5).
"""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from cachelib.errors import BadToken
from cachelib.history import BINDINGS_MAX, KEYS_MAX, UNBOUND, History, Mark, Parts
from cachelib.model import U64_MAX

FORMAT = "1."
TOKEN_CHARS_MAX = 4096
_STORE_BYTES, _KEY_BYTES, _BINDING_BYTES, _SEAL_BYTES = 8, 6, 6, 16


def encode_token(history: History, keys: Sequence[bytes] = ()) -> str:
    """The token; sealed with the first of the keys."""
    raw = _packed(history)
    return FORMAT + urlsafe_b64encode(raw + (_seal(keys[0], raw) if keys else b"")).decode().rstrip("=")


def decode_token(token: str, keys: Sequence[bytes] = ()) -> History:
    """The history in a token. Raises `BadToken`."""
    if not token.startswith(FORMAT) or len(token) > TOKEN_CHARS_MAX:
        raise BadToken(f"not a session token of this version: {token[:20]!r}; begin a session without one")
    try:
        text = token[len(FORMAT) :]
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return _unpacked(_opened(raw, keys))
    except (binascii.Error, IndexError, ValueError) as cause:
        raise BadToken(f"a damaged session token ({cause}): begin a session without one") from cause


def _seal(key: bytes, raw: bytes) -> bytes:
    return hmac.digest(key, FORMAT.encode() + raw, "sha256")[:_SEAL_BYTES]


def _opened(raw: bytes, keys: Sequence[bytes]) -> bytes:
    if not keys:
        return raw
    plain, seal = raw[:-_SEAL_BYTES], raw[-_SEAL_BYTES:]
    if not any(hmac.compare_digest(_seal(key, plain), seal) for key in keys):
        raise BadToken("the session token was not sealed with a key of this cache: begin a session without one")
    return plain


def _packed(history: History) -> bytes:
    parts = history.parts()
    bindings = [*parts.bindings, *({mark.binding for mark in parts.marks.values()} - {UNBOUND} - set(parts.bindings))]
    places = {UNBOUND: 0} | {binding: at for at, binding in enumerate(bindings, 1)}
    out = bytearray(bytes.fromhex(history.store or "00" * _STORE_BYTES))
    for number in (parts.layout, parts.place, parts.since_us, parts.past_us, parts.seen_us, parts.left_us):
        _put(out, number)
    for number in (len(parts.bindings), len(bindings)):
        _put(out, number)
    for binding in bindings:
        out += binding.to_bytes(_BINDING_BYTES, "big")
    for since_us in parts.bindings.values():
        _put(out, since_us)
    _put(out, len(parts.marks))
    for key, mark in parts.marks.items():
        out += key.to_bytes(_KEY_BYTES, "big")
        _put(out, places[mark.binding] << 1 | (mark.version != 0))
        _put(out, mark.version or mark.as_of_us)
    return bytes(out)


def _unpacked(raw: bytes) -> History:
    reader = _Reader(raw)
    history = History(reader.take(_STORE_BYTES).hex())
    layout, place, since_us, past_us, seen_us, left_us = (reader.number() for _ in range(6))
    met, count = reader.number(BINDINGS_MAX), reader.number(BINDINGS_MAX + KEYS_MAX)
    bindings = [int.from_bytes(reader.take(_BINDING_BYTES), "big") for _ in range(count)]
    times = {binding: reader.number() for binding in bindings[:met]}
    marks = {}
    for _ in range(reader.number(KEYS_MAX)):
        key = int.from_bytes(reader.take(_KEY_BYTES), "big")
        at, number = reader.number(), reader.number()
        binding = bindings[(at >> 1) - 1] if at > 1 else UNBOUND
        marks[key] = Mark(number, 0, binding) if at & 1 else Mark(0, number, binding)
    if reader.rest:
        raise ValueError("it goes on behind its end")
    history.restore(Parts(layout, place, since_us, past_us, seen_us, left_us, times, marks))
    return history


def _put(out: bytearray, number: int) -> None:
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    @property
    def rest(self) -> int:
        return len(self._raw) - self._at

    def take(self, size: int) -> bytes:
        if self.rest < size:
            raise ValueError("it ends too early")
        self._at += size
        return self._raw[self._at - size : self._at]

    def number(self, most: int = U64_MAX) -> int:
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if number > most or shift > 70:
                raise ValueError("a number that is too large")
            if byte < 0x80:
                return number
