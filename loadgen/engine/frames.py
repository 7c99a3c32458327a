"""What coordinator and workers say to each other: msgpack behind a length of four bytes, over any stream.

    coordinator: Hello   worker: Ready   coordinator: Go   worker: Beat, every half second; at the end
    Second for each second, Block for each log, Done     either: Failed, or the end of the stream

Nothing in a frame names a file or a process of the other side, so the stream may be TCP as well.
"""

from __future__ import annotations

from threading import Lock
from typing import IO, TypeAlias

import msgspec
from msgspec import Struct

from loadgen.plan import RunPlan

BYTES_OF_LENGTH = 4
BLOCK_BYTES = 1 << 20


class Hello(Struct, frozen=True, tag=True):
    """To a worker: the plan, and which part of it is its own. `run`: of the runs on one stage, from 0 on."""

    plan: RunPlan
    worker: int
    run: int = 0


class Ready(Struct, frozen=True, tag=True):
    """The worker has its schedule and its connections."""

    pid: int
    offered: int


class Go(Struct, frozen=True, tag=True):
    """The shared start, on the clock that worker and coordinator share."""

    start_ns: int


class Beat(Struct, frozen=True, tag=True):
    """How it goes. Counts are since the start, `late_ms` and `p99_ms` of what ended since the last beat."""

    at_s: float
    done: int
    errors: int
    late_ms: float
    p99_ms: float
    cpu_s: float
    rss_mb: float


class Counted(Struct, frozen=True, tag=True):
    """Durations: places and counts of a `Histogram`, as bytes of 64-bit numbers."""

    index: bytes
    counts: bytes


class Part(Struct, frozen=True, tag=True):
    """One kind of operation in one second."""

    offered: int
    achieved: int
    errors: dict[str, int]
    latency: Counted
    service: Counted


class Second(Struct, frozen=True, tag=True):
    """One second of a worker: what was meant to start in it."""

    at_s: int
    operations: dict[str, Part]
    sources: dict[str, int]
    lag: Counted


class Block(Struct, frozen=True, tag=True):
    """Rows of a log, as bytes of 64-bit numbers: `reads`, `probes`, `writes` or `loads`."""

    log: str
    rows: bytes


class Done(Struct, frozen=True, tag=True):
    """The worker has said everything. `ended`: operations without an error, by the second in which they ended."""

    ended: dict[int, int]


class Failed(Struct, frozen=True, tag=True):
    """The worker cannot go on."""

    why: str


Frame: TypeAlias = Hello | Ready | Go | Beat | Second | Block | Done | Failed
_decoder = msgspec.msgpack.Decoder(Frame)
_encoder = msgspec.msgpack.Encoder()


class Channel:
    """Frames over two streams of bytes. Sending is safe among threads."""

    def __init__(self, incoming: IO[bytes], outgoing: IO[bytes]) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._sending = Lock()

    def send(self, frame: Frame) -> None:
        """Raises `OSError` (`BrokenPipeError`) where nobody listens any more."""
        body = _encoder.encode(frame)
        with self._sending:
            self._outgoing.write(len(body).to_bytes(BYTES_OF_LENGTH, "big") + body)
            self._outgoing.flush()

    def receive(self) -> Frame | None:
        """The next frame; None: the other side has ended, also in the middle of a frame."""
        head = self._incoming.read(BYTES_OF_LENGTH)
        size = int.from_bytes(head, "big")
        body = self._incoming.read(size) if len(head) == BYTES_OF_LENGTH else b""
        if len(head) < BYTES_OF_LENGTH or len(body) < size:
            return None
        frame: Frame = _decoder.decode(body)
        return frame

    def send_log(self, log: str, rows: bytes) -> None:
        """In blocks, so that no frame grows with the run."""
        for at in range(0, len(rows), BLOCK_BYTES):
            self.send(Block(log, rows[at : at + BLOCK_BYTES]))
