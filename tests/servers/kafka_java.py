"""What Kafka's broker and Kafka Connect have in common: a JVM that starts fast and stays small."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.servers.maven import jars
from tests.servers.missing import require

_LOGGING = """\
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=OUT
appender.out.type=Console
appender.out.name=OUT
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{HH:mm:ss.SSS} %p %c{1} %m%n%throwable
"""


def java(folder: Path, heap_mb: int, main_class: str, *arguments: str | Path) -> list[str | Path]:
    """The command line of a program of Kafka's, with its logging set up in `folder`."""
    logging = folder / "log4j2.properties"
    if not logging.exists():
        logging.write_text(_LOGGING)
    return [
        require("java"),
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",  # it lives for minutes: up in 2 s instead of 4
        f"-Dlog4j2.configurationFile={logging}",
        "-cp",
        f"{jars().libs}/*",
        main_class,
        *arguments,
    ]


def write_properties(path: Path, settings: Mapping[str, object]) -> Path:
    """A `.properties` file."""
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return path
