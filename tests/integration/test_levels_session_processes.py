"""A session's token carried from a writer to readers in four other processes, while no invalidator runs."""

from __future__ import annotations

from pathlib import Path

from tests.integration.session_processes import run, verdict

READS = 4_000


def test_token_of_a_writer_is_kept_in_four_other_processes(
    sqlite_url: str, redis_url: str, memcached_url: str, tmp_path: Path
) -> None:
    with (tmp_path / "readers.log").open("w") as errors:
        total = run(sqlite_url, redis_url, memcached_url, READS, errors)
    assert total["reads"] >= READS, (tmp_path / "readers.log").read_text()
    assert total["old"] == 0, verdict(total)
    assert total["behind"] > 0, "eventual reads beside it were never behind: the test shows nothing"
    assert total["hits"] / total["reads"] >= 0.8, verdict(total)
