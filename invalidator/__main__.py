"""`invalidator run | check | replay | verify | relay`: the command line."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from cachelib.errors import CacheError, ConfigError, MissingExtra
from cachelib.policy import duration_ms
from invalidator.config import listing, load

F = TypeVar("F", bound=Callable[..., Any])
RUNTIME, USAGE, STALE = 1, 2, 3


def _settings_help() -> str:
    rows = [f"  {name:<26} {doc}{f' [{default}]' if default else ''}" for name, default, doc in listing()]
    return "\n".join(
        (
            "\b",
            "Settings (TOML; in the environment as INVALIDATOR_STORE__URL; those with a flag below as that):",
            *rows,
        )
    )


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_PROCESS = (
    click.option("--http-port", type=int, help="http.port"),
    click.option("--log-format", help="log.format"),
    click.option("--log-level", help="log.level"),
    click.option("--debug", is_flag=True, help="Show a traceback where something fails."),
)
_common = _options(
    click.option("--config", type=click.Path(path_type=Path), help="A TOML file with settings."),
    click.option("--store", metavar="URL", help="store.url"),
    click.option("--cache", "caches", metavar="URL", multiple=True, help="caches; give it once for each node."),
    click.option("--entities", metavar="MODULE[:NAME]", multiple=True, help="entities"),
    click.option("--namespace", help="namespace"),
    click.option("--consumer", help="consumer"),
    *_PROCESS,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def cli() -> None:
    """Keeps caches consistent with a store: reads its change log and voids what changed."""


@cli.command(epilog=_settings_help())
@_common
def run(config: Path | None, debug: bool, **flags: Any) -> None:
    """Run until SIGTERM or SIGINT. SIGHUP reads the rules anew."""
    from invalidator.daemon import Daemon, rest_the_collector

    with _one_sentence(debug):
        daemon = Daemon(lambda: load(config, os.environ, _given(flags)))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: daemon.service.stop())
        signal.signal(signal.SIGHUP, lambda *_: daemon.service.ask_to_reload())
        with daemon:
            print(f"ready: {daemon.says()}", flush=True)
            rest_the_collector()
            daemon.service.run()


@cli.command(epilog=_settings_help())
@_common
@click.option("--dry-run", is_flag=True, help="Print the keys of each change that waits, and apply nothing.")
@click.option("--from", "start", metavar="PLACE", help="With --dry-run: from where, as for replay, instead.")
@click.option("--sample", default=1000, type=click.IntRange(1), help="With --dry-run: at most so many changes. [1000]")
def check(config: Path | None, debug: bool, dry_run: bool, start: str | None, sample: int, **flags: Any) -> None:
    """Check the settings, connect to store and nodes, and say what `run` would do.

    Exit code 0: all is well; 1: something does not answer; 2: the settings are wrong.
    """
    from invalidator.inspection import checked
    from invalidator.replay import pending

    with _one_sentence(debug):
        settings = load(config, os.environ, _given(flags))
        fine = True
        for line, good in pending(settings, start, sample) if dry_run else checked(settings):
            print(line)
            fine = fine and good
        if not fine:
            sys.exit(RUNTIME)


@cli.command(epilog=_settings_help())
@_common
@click.option(
    "--from",
    "start",
    required=True,
    metavar="TIME|POSITION",
    help="Where in the log to begin: START, 15m (ago), 2026-05-01T12:00 (UTC), a position, PARTITION=OFFSET,...",
)
def replay(config: Path | None, debug: bool, start: str, **flags: Any) -> None:
    """Apply the change log again to every node, from a time or position to its end. Always harmless."""
    from invalidator.replay import replayed

    with _one_sentence(debug):
        for line in replayed(load(config, os.environ, _given(flags)), start):
            print(line)


@cli.command(epilog=_settings_help())
@_common
@click.option("--for", "duration", metavar="DURATION", help="Choose changes for so long (10m), then end.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the report there as JSON, at the end.")
def verify(config: Path | None, debug: bool, duration: str | None, report: Path | None, **flags: Any) -> None:
    """Ask every cache what it serves after a change, and say how often that is not what the store has.

    Reads the same log as `run`, commits nothing, changes nothing, asks the store for few keys. The last line is the
    verdict. Exit code 0: nothing stale; 3: something is; 1: something does not answer; 2: the settings are wrong.
    """
    from invalidator.verifier.daemon import VerifierDaemon

    with _one_sentence(debug):
        for_s = None if duration is None else duration_ms("--for", duration, least_ms=1, most_ms=10**12) / 1000
        daemon = VerifierDaemon(load(config, os.environ, _given(flags)))
        with daemon:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: daemon.verifier.stop())
            print(f"ready: {daemon.says()}", flush=True)
            daemon.verifier.run(for_s)
            for line in daemon.told():
                print(line)
            if report is not None:
                daemon.write(report)
            stale = daemon.verifier.findings.alarms
        if stale:
            sys.exit(STALE)


@cli.command(epilog=_settings_help())
@_options(
    click.option("--config", type=click.Path(path_type=Path), help="A TOML file with settings."),
    click.option("--store", metavar="URL", help="store.url"),
    click.option("--kafka", "bootstrap", metavar="HOST:PORT,...", help="kafka.bootstrap"),
    click.option("--topic", help="relay.topic"),
    click.option("--consumer", "relay_consumer", help="relay.consumer"),
    *_PROCESS,
)
def relay(config: Path | None, debug: bool, **flags: Any) -> None:
    """Send the store's change log to a Kafka topic until SIGTERM or SIGINT."""
    from invalidator.relay_daemon import RelayDaemon

    with _one_sentence(debug):
        daemon = RelayDaemon(load(config, os.environ, _given(flags)))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: daemon.service.stop())
        with daemon:
            print(f"ready: {daemon.says()}", flush=True)
            daemon.service.run()


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given, where they stand among the settings."""
    given: dict[str, Any] = {name: flags[name] for name in ("namespace", "consumer") if flags.get(name) is not None}
    given |= {name: list(flags[name]) for name in ("caches", "entities") if flags.get(name)}
    for flag, section, name in (
        ("store", "store", "url"),
        ("http_port", "http", "port"),
        ("log_format", "log", "format"),
        ("log_level", "log", "level"),
        ("topic", "relay", "topic"),
        ("relay_consumer", "relay", "consumer"),
    ):
        if flags.get(flag) is not None:
            given.setdefault(section, {})[name] = flags[flag]
    if flags.get("bootstrap"):
        given["kafka"] = {"bootstrap": flags["bootstrap"].split(",")}
    return given


@contextmanager
def _one_sentence(debug: bool) -> Iterator[None]:
    """An error is one sentence and an exit code; a traceback only where it was asked for."""
    try:
        yield
    except (CacheError, OSError) as error:
        if debug:
            traceback.print_exc()
        _fail(str(error), USAGE if isinstance(error, ConfigError | MissingExtra) else RUNTIME)
    except Exception as error:  # noqa: BLE001 - even a fault of ours ends in a sentence
        if debug:
            traceback.print_exc()
        _fail(f"stopped by an error that was not expected, {error!r}; --debug shows where", RUNTIME)


def _fail(text: str, code: int) -> NoReturn:
    print(f"invalidator: {' '.join(text.split())}", file=sys.stderr, flush=True)
    sys.exit(code)


def main() -> None:
    """The console script."""
    sys.path.insert(0, str(Path.cwd()))  # the application's own modules: --entities shop.caching
    cli(prog_name="invalidator")


if __name__ == "__main__":
    main()
