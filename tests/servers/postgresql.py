"""A real PostgreSQL cluster: with logical decoding, and without fsync."""

from __future__ import annotations

import itertools
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.servers.missing import require
from tests.servers.ports import HOST
from tests.servers.process import Server, ServerFailed, am_root

USER = "postgres"
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "fsync": "off",  # the folder is thrown away; commits are still ordered and visible as always
    "full_page_writes": "off",
    "log_min_messages": "warning",
}


class PostgresServer(Server):
    """`PostgresServer(max_connections=20)`: settings are those of postgresql.conf."""

    name = "postgresql"
    stop_signal = signal.SIGINT  # "fast": end the sessions, not wait for them
    orphan_signal = "QUIT"  # "immediate": at once, but shared memory is given back

    def __init__(self, port: int | None = None, **settings: str | int) -> None:
        self.initdb = _initdb()
        super().__init__(port)
        self.settings = SETTINGS | {name: str(value) for name, value in settings.items()}
        self.data = self.folder / "data"
        self._numbers = itertools.count(1)

    @property
    def user(self) -> str | None:
        """PostgreSQL refuses to run as root."""
        return USER if am_root() else None

    @property
    def url(self) -> str:
        """The URL of the database `postgres`, as SQLAlchemy takes it."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """`postgresql+psycopg://postgres@127.0.0.1:PORT/DATABASE`."""
        return f"postgresql+psycopg://{USER}@{HOST}:{self.port}/{database}"

    def dsn(self, database: str = "postgres") -> str:
        """The same for `psycopg.connect`."""
        return f"postgresql://{USER}@{HOST}:{self.port}/{database}"

    def command(self) -> list[str | Path]:
        """See `Server.command`; creates the cluster before the first start."""
        if not self.data.exists():
            self._create_cluster()
        line: list[str | Path] = [self.initdb.with_name("postgres"), "-D", self.data, "-p", str(self.port)]
        for name, value in self.settings.items():
            line += ["-c", f"{name}={value}"]
        return line

    def answers(self) -> bool:
        """Connects: the port is open before the server takes sessions."""
        try:
            psycopg.connect(self.dsn(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def create_database(self, hint: str = "test") -> str:
        """A new, empty database; returns its name."""
        name = re.sub(r"\W+", "_", hint.lower())[:40] + f"_{next(self._numbers)}"
        self._admin(sql.SQL("create database {}").format(sql.Identifier(name)))
        return name

    def drop_database(self, name: str) -> None:
        """Drop it, with the sessions that are still in it and the replication slots that read it."""
        with self.connect() as connection:
            slots = "select slot_name, active_pid from pg_replication_slots where database = %s"
            for slot, reader in connection.execute(slots, [name]).fetchall():
                if reader:
                    connection.execute("select pg_terminate_backend(%s, 5000)", [reader])
                connection.execute("select pg_drop_replication_slot(%s)", [slot])
        self._admin(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    @contextmanager
    def connect(self, database: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
        """A plain autocommit connection, closed at the end."""
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            yield connection

    def _admin(self, statement: sql.Composed) -> None:
        with self.connect() as connection:
            connection.execute(statement)

    def _create_cluster(self) -> None:
        line: list[str | Path] = [self.initdb, "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8"]
        line += ["--no-locale", "--no-sync"]
        if self.user:
            shutil.chown(self.folder, self.user)
            line = ["runuser", "-u", self.user, "--", *line]
        made = subprocess.run(line, cwd=self.folder, capture_output=True, text=True, check=False)
        if made.returncode:
            raise ServerFailed(f"initdb failed:\n{made.stdout}{made.stderr}")


def _initdb() -> Path:
    """The newest one that Debian keeps off PATH, else the one on it."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return found[-1] if found else require("initdb")
