"""Three threads of the daemon ended at any error but the one they knew, and nothing said so.

Order of events: a client library raises what is none of its own errors (or a collaborator has a bug) · the thread
ends · dead letters wait for ever, or offsets are saved no more, or nobody looks any more whether topics are still the
same · `/readyz` stays well, since no failure was counted.

Of its class: every thread of the daemon, under a collaborator that raises anything at all.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from invalidator.books import Books
from invalidator.dead_letters import Letter
from invalidator.letterbox import Letterbox
from invalidator.logs import open_log
from invalidator.metrics import Metrics
from invalidator.settings import ApplySettings, DeadLetterSettings, KafkaSourceSettings, LogSettings, Settings
from invalidator.sources.base import Committed
from invalidator.sources.kafka_places import Part
from invalidator.sources.kafka_watch import Watch

WAIT_S = 20.0


class Surprises:
    """Every question raises, the first time, what nobody foresaw."""

    def __init__(self) -> None:
        self.tries = 0
        self.went_on = threading.Event()

    def _surprise(self) -> None:
        self.tries += 1
        if self.tries == 1:
            raise AssertionError("what cannot be")

    def keep(self, letters: Sequence[Letter]) -> None:
        self._surprise()
        self.went_on.set()

    def done(self) -> Committed:
        self._surprise()
        return Committed({"0": "7"}, frozenset(["node"]))

    def commit(self, committed: Committed) -> None:
        self.went_on.set()

    def replaced(self, *_: Any) -> str:
        self._surprise()
        return ""

    def ends(self, parts: Sequence[Part]) -> Mapping[Part, int]:
        self.went_on.set()
        return dict.fromkeys(parts, 0)

    def close(self) -> None: ...


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_dead_letters_are_kept_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    letters, metrics = Surprises(), Metrics()
    box = Letterbox(letters, DeadLetterSettings(), ApplySettings(), metrics, open_log(LogSettings()))
    box.start()
    try:
        box.post([Letter("bad_key", "why", "0", "1")])
        assert letters.went_on.wait(WAIT_S)
        assert "invalidator_dead_letter_errors_total 1.0" in metrics.text().decode()
    finally:
        box.stop(WAIT_S)
    assert "AssertionError: what cannot be" in said(capsys)


def test_offsets_are_saved_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    both, metrics = Surprises(), Metrics()
    settings = replace(Settings(), apply=replace(ApplySettings(), commit_s=0.01))
    books = Books(settings, both, both, metrics, open_log(LogSettings()))  # type: ignore[arg-type]
    books.place(None, ["0"])
    books.start()
    try:
        assert both.went_on.wait(WAIT_S)
        assert "invalidator_commit_errors_total 1.0" in metrics.text().decode()
    finally:
        books.stop(WAIT_S)
    assert "AssertionError: what cannot be" in said(capsys)


def test_topics_are_looked_after_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    side, source = Surprises(), replace(KafkaSourceSettings(), check_s=0.01)
    parts = {Part("t", 0): "0@x"}
    watch = Watch(side, side, source, lambda: parts, Metrics(), open_log(LogSettings()))  # type: ignore[arg-type]
    watch.start()
    try:
        assert side.went_on.wait(WAIT_S)
    finally:
        watch.stop()
    assert "AssertionError: what cannot be" in said(capsys)
