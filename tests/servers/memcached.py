"""A real memcached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.servers.missing import require
from tests.servers.ports import HOST
from tests.servers.process import Server, am_root, ask


class MemcachedServer(Server):
    """`MemcachedServer(memory_mb=64, item_size_max="1m", more=["-M"])`: its options -m, -I and any others."""

    name = "memcached"

    def __init__(
        self, port: int | None = None, *, memory_mb: int = 64, item_size_max: str = "1m", more: Sequence[str] = ()
    ) -> None:
        self.binary = require("memcached")
        self.options = ["-m", str(memory_mb), "-I", item_size_max, *more]
        super().__init__(port)

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`, to join several into one URL."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """`memcached://127.0.0.1:PORT`."""
        return f"memcached://{self.address}"

    def command(self) -> list[str | Path]:
        """See `Server.command`."""
        # Run by root it wants a user named; another one would make the kernel forget the parent-death signal.
        user = ["-u", "root"] if am_root() else []
        return [self.binary, "-l", HOST, "-p", str(self.port), "-U", "0", "-t", "2", *user, *self.options]

    def answers(self) -> bool:
        """See `Server.answers`."""
        return ask(self.port, b"version\r\n").startswith(b"VERSION")

    def flush(self) -> None:
        """Remove every item, at once."""
        answer = ask(self.port, b"flush_all\r\n")
        if answer != b"OK\r\n":
            raise RuntimeError(f"memcached refused flush_all: {answer!r}")
