"""The short form of the game days: two incidents, one backend, without Kafka. All of them: `make gameday`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gameday.__main__ import FACTOR
from tests.gameday.programme import SHORT
from tests.gameday.series import run
from tests.servers.missing import require

pytestmark = [pytest.mark.charts, pytest.mark.server, pytest.mark.timeout(600)]


def test_alerts_fire_in_time_others_are_silent_and_the_runbook_ends_the_incidents(tmp_path: Path) -> None:
    require("prometheus")
    results = run("redis", SHORT, FACTOR, short=True, folder=tmp_path)
    assert len(results) == len(SHORT)
    for one in results:
        assert not one.failed, "\n".join([one.failed, *(f"{line.at_s:+.1f} {line.what}" for line in one.lines)])
