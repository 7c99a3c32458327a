"""Values as bytes: what a value is encoded with, and how a reader knows.

A payload is `u8 flags`, `u32 tag`, body. The tag names the codec: the entity's schema number in
its first byte, a fingerprint of codec and type in the rest. Tags have one total order, which
is what ends the quarrel of a rolling deploy: a process voids and refills what has a *smaller*
tag than its own and leaves alone what has a larger one, so each item changes sides once.

Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from struct import Struct
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

import msgpack
import msgspec

from cachelib.errors import ConfigError, DecodeError, LaterCodec, ValueTooLarge
from cachelib.policy import one_of

_PREFIX = Struct(">BI")
PREFIX_BYTES = _PREFIX.size
_COMPRESSED = 1
_BODY_BYTES_MAX = 512 << 20
"""A compressed body that would grow beyond this is an attack or damage, not a value."""


@runtime_checkable
class Codec(Protocol):
    """A way to write values as bytes. `name` identifies it among processes: change it with the format."""

    name: str

    def encode(self, value: Any) -> bytes:
        """Raises `ValueError` or `TypeError` for a value that it cannot write."""

    def decode(self, body: bytes) -> Any:
        """Raises any error for bytes that are not its own."""


# msgpack has no types for these; each gets an extension code and its usual text.
_EXTENSIONS: dict[int, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    1: (Decimal, str, Decimal),
    2: (UUID, str, UUID),
    3: (datetime, datetime.isoformat, datetime.fromisoformat),
    4: (date, date.isoformat, date.fromisoformat),
    5: (time, time.isoformat, time.fromisoformat),
    6: (timedelta, lambda d: f"{d.days},{d.seconds},{d.microseconds}", lambda s: timedelta(*map(int, s.split(",")))),
    7: (int, str, int),
}


def _to_extension(value: Any) -> msgpack.ExtType:
    for code, (kind, write, _) in _EXTENSIONS.items():
        if isinstance(value, kind):
            return msgpack.ExtType(code, write(value).encode())
    raise TypeError(f"cannot keep a {type(value).__name__} with codec 'msgpack': give the entity a codec of its type")


def _from_extension(code: int, data: memoryview) -> Any:
    if code not in _EXTENSIONS:
        raise ValueError(f"unknown msgpack extension {code}")
    return _EXTENSIONS[code][2](str(data, "utf-8"))


class MsgpackCodec:
    """The default: Python's plain types, dates, times, decimals, UUIDs. Tuples come back as lists."""

    name = "msgpack"

    def __init__(self) -> None:
        # msgpack writes (its `default` sees every type), msgspec reads the same format twice as fast.
        self.decode = msgspec.msgpack.Decoder(ext_hook=_from_extension).decode

    def encode(self, value: Any) -> bytes:
        """See `Codec.encode`."""
        try:
            return msgpack.packb(value, default=_to_extension)  # type: ignore[no-any-return]
        except OverflowError:
            return msgpack.packb(_big_ints(value), default=_to_extension)  # type: ignore[no-any-return]


def _big_ints(value: Any) -> Any:
    """Msgpack ends at 64 bits; larger numbers travel as text in an extension."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return msgpack.ExtType(7, str(value).encode())
    if isinstance(value, dict):
        return {_big_ints(k): _big_ints(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_big_ints(v) for v in value]
    return value


class JsonCodec:
    """JSON: readable by anything. Dates, decimals and UUIDs come back as text."""

    name = "json"

    def __init__(self) -> None:
        self.encode = msgspec.json.Encoder().encode
        self.decode = msgspec.json.Decoder().decode


class BytesCodec:
    """The value is the bytes."""

    name = "bytes"

    def encode(self, value: Any) -> bytes:
        """See `Codec.encode`."""
        if not isinstance(value, bytes | bytearray | memoryview):
            raise TypeError(f"codec 'bytes' keeps bytes, not a {type(value).__name__}")
        return bytes(value)

    def decode(self, body: bytes) -> bytes:
        """See `Codec.decode`."""
        return body


class TypedCodec:
    """A msgspec Struct, dataclass, TypedDict or any other type that msgspec knows, as msgpack."""

    def __init__(self, kind: Any) -> None:
        try:
            shape = msgspec.json.schema(kind)
            self.decode = msgspec.msgpack.Decoder(kind).decode
        except TypeError as cause:
            raise ConfigError(f"codec {kind!r}: msgspec cannot describe this type ({cause})") from cause
        self.name = "typed " + json.dumps(shape, sort_keys=True)
        self.encode = msgspec.msgpack.Encoder().encode


class PydanticCodec:
    """A pydantic model, as JSON."""

    def __init__(self, model: Any) -> None:
        self.name = "pydantic " + json.dumps(model.model_json_schema(), sort_keys=True)
        self._model = model

    def encode(self, value: Any) -> bytes:
        """See `Codec.encode`."""
        if not isinstance(value, self._model):
            raise TypeError(f"this entity keeps {self._model.__name__}, not a {type(value).__name__}")
        return bytes(value.model_dump_json().encode())

    def decode(self, body: bytes) -> Any:
        """See `Codec.decode`."""
        return self._model.model_validate_json(body)


def codec_of(choice: Any) -> Codec:
    """The codec that `Entity(codec=…)` names. Raises `ConfigError`."""
    if isinstance(choice, str):
        named: dict[str, Callable[[], Codec]] = {"msgpack": MsgpackCodec, "json": JsonCodec, "bytes": BytesCodec}
        one_of("codec", choice, named)
        return named[choice]()
    if hasattr(choice, "model_validate_json"):
        return PydanticCodec(choice)
    if not isinstance(choice, type) and isinstance(choice, Codec):
        return choice
    return TypedCodec(choice)


class Packer:
    """Values to payloads and back, for one entity.

    Args:
        codec: see `codec_of`.
        schema: 0 … 255; raise it when old programs must not read what new ones write.
        compress_over: bodies of more bytes than this are compressed with zlib; None for never.
    """

    __slots__ = ("_compress_over", "codec", "decode", "prefix", "tag")

    def __init__(self, codec: Any, schema: int = 0, compress_over: int | None = 16_384) -> None:
        if type(schema) is not int or not 0 <= schema <= 255:
            raise ConfigError(f"schema is {schema!r}: it takes 0 to 255")
        if compress_over is not None and (type(compress_over) is not int or compress_over < 0):
            raise ConfigError(f"compress_over is {compress_over!r}: it takes a number of bytes, or None for never")
        self.codec = codec_of(codec)
        self.decode = self.codec.decode
        """The value in a body that is not compressed. Raises any error."""
        self.tag = schema << 24 | zlib.crc32(self.codec.name.encode()) & 0xFFFFFF
        self.prefix = _PREFIX.pack(0, self.tag)
        """What a payload begins with whose rest is such a body."""
        self._compress_over = compress_over

    def pack(self, value: Any, bytes_max: int) -> bytes:
        """The payload of a value. Raises `ValueTooLarge`, or `ConfigError` for a value of a wrong type."""
        try:
            body = self.codec.encode(value)
        except (TypeError, ValueError, OverflowError) as cause:
            raise ConfigError(f"cannot encode a {type(value).__name__}: {cause}") from cause
        prefix = self.prefix
        if self._compress_over is not None and len(body) > self._compress_over:
            small = zlib.compress(body, 1)
            if len(small) < len(body):
                prefix, body = _PREFIX.pack(_COMPRESSED, self.tag), small
        if len(prefix) + len(body) > bytes_max:
            raise ValueTooLarge(f"the value takes {len(body)} bytes, the cache keeps {bytes_max - PREFIX_BYTES}")
        return prefix + body

    def unpack(self, payload: bytes, at: int = 0) -> Any:
        """The value in a payload that begins at `at`. Raises `LaterCodec` or `DecodeError` (I12)."""
        try:
            if payload.startswith(self.prefix, at):
                return self.decode(payload[at + PREFIX_BYTES :])
            return self.decode(self._body(payload[at:]))
        except DecodeError:
            raise
        except Exception as cause:
            raise DecodeError(f"the body is not what codec {self.codec.name[:40]!r} writes: {cause}") from cause

    def _body(self, payload: bytes) -> bytes:
        if len(payload) < PREFIX_BYTES:
            raise DecodeError(f"a payload has a prefix of {PREFIX_BYTES} bytes, this one has {len(payload)} in all")
        flags, tag = _PREFIX.unpack_from(payload)
        if tag > self.tag:
            raise LaterCodec(f"written with codec tag {tag:#x}, this program knows up to {self.tag:#x}")
        if tag != self.tag or flags & ~_COMPRESSED:
            raise DecodeError(f"written with codec tag {tag:#x} and flags {flags}, this program's is {self.tag:#x}")
        body = payload[PREFIX_BYTES:]
        if not flags & _COMPRESSED:
            return body
        stream = zlib.decompressobj()
        plain = stream.decompress(body, _BODY_BYTES_MAX)
        if not stream.eof:
            raise DecodeError("the compressed body is cut short, or larger than any value")
        return plain
