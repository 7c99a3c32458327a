"""A real MariaDB: with a binary log of whole rows and GTIDs, as a connector needs it, and without fsync."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql

from tests.servers.missing import require
from tests.servers.ports import HOST
from tests.servers.process import Server, ServerFailed, am_root

PASSWORD = "capturer-secret"
"""Of the users that connectors log in as."""
RIGHTS = "select, reload, show databases, replication slave, binlog monitor"
"""Theirs: no more than they need."""
SETTINGS = {
    "bind-address": HOST,
    "server-id": "1",
    "log-bin": "binlog",
    "binlog-format": "ROW",
    "binlog-row-image": "FULL",
    "gtid-strict-mode": "1",
    "character-set-server": "utf8mb4",
    "collation-server": "utf8mb4_nopad_bin",  # else "a", "A" and "a " are one key here, and three in a cache
    "skip-name-resolve": "1",
    "innodb-buffer-pool-size": "32M",
    "innodb-flush-log-at-trx-commit": "0",  # the folder is thrown away
    "sync-binlog": "0",
}

_SCRIPTS = Path("/usr/share/mysql")
_PARTS = ("system_tables", "performance_tables", "system_tables_data")


class MariaDBServer(Server):
    """`MariaDBServer(binlog_row_image="MINIMAL")`: settings are those of my.cnf, `_` for `-`."""

    name = "mariadb"

    def __init__(self, port: int | None = None, **settings: str | int) -> None:
        self.program = require("mariadbd", [Path("/usr/sbin")])
        super().__init__(port)
        self.settings = SETTINGS | {name.replace("_", "-"): str(value) for name, value in settings.items()}
        self.data = self.folder / "data"
        self._numbers = itertools.count(1)

    @property
    def user(self) -> str | None:
        """MariaDB refuses to run as root."""
        return "daemon" if am_root() else None

    @property
    def url(self) -> str:
        """The server's URL as SQLAlchemy takes it."""
        return f"mysql+pymysql://root@{HOST}:{self.port}/"

    def command(self) -> list[str | Path]:
        """See `Server.command`; fills the data folder before the first start."""
        if not self.data.exists():
            self._install()
        own = [f"--{name}={value}" for name, value in self.settings.items()]
        socket = f"--socket={self.folder / 'socket'}"
        return [self.program, "--no-defaults", f"--datadir={self.data}", f"--port={self.port}", socket, *own]

    def answers(self) -> bool:
        """Connects: the port is open before the server takes sessions."""
        try:
            with self.connect():
                return True
        except pymysql.OperationalError:
            return False

    def create_database(self, hint: str = "test") -> str:
        """A new, empty database; returns its name."""
        name = re.sub(r"\W+", "_", hint.lower())[:40] + f"_{next(self._numbers)}"
        with self.connect() as cursor:
            cursor.execute(f"create database {name}")
        return name

    @contextmanager
    def connect(self, database: str | None = None) -> Iterator[pymysql.cursors.Cursor]:
        """A cursor of an autocommit connection of the administrator's, closed at the end."""
        connection: Any = pymysql.connect(
            host=HOST, port=self.port, user="root", database=database, autocommit=True, connect_timeout=5
        )
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def let_in(self, capturer: str) -> None:
        """Make a user for a connector."""
        with self.connect() as cursor:
            cursor.execute(f"create user if not exists {capturer} identified by '{PASSWORD}'")
            cursor.execute(f"grant {RIGHTS} on *.* to {capturer}")

    def captured_by(self, capturer: str) -> bool:
        """Whether this user reads the binary log now."""
        with self.connect() as cursor:
            asked = "select 1 from information_schema.processlist where user = %s and command = 'Binlog Dump'"
            return bool(cursor.execute(asked, (capturer,)))

    def _install(self) -> None:
        """As `mariadb-install-db` does, which wants a program that is in another package."""
        self.data.mkdir()
        if self.user:
            for folder in (self.folder, self.data):
                shutil.chown(folder, self.user)
        scripts = b"".join((_SCRIPTS / f"mysql_{part}.sql").read_bytes() for part in _PARTS)
        line: list[str | Path] = [
            self.program,
            "--no-defaults",
            "--bootstrap",
            f"--datadir={self.data}",
            "--enforce-storage-engine=",
        ]
        if self.user:
            line = ["runuser", "-u", self.user, "--", *line]
        given = b"create database mysql;\nuse mysql;\nset @auth_root_socket = null;\n" + scripts
        made = subprocess.run(line, input=given, cwd=self.folder, capture_output=True, check=False)
        if made.returncode:
            raise ServerFailed(f"mariadbd --bootstrap failed:\n{(made.stdout + made.stderr).decode(errors='replace')}")
