"""What the client libraries log: a few lines of it, and what it tells about a connection that failed.

kafka-python says why it cannot connect nowhere but in its log, and repeats some lines 800 times a second.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Collection

from invalidator.logs import Log

_EVERY_S = 10.0
_KEPT = 200
_SHAPES_MAX = 500
_DIGITS = re.compile(r"0x[0-9a-f]+|[0-9][0-9.]*")
_REASONS = (
    (
        "CERTIFICATE_VERIFY_FAILED|certificate verify failed",
        "the broker's certificate is not trusted: see kafka.ca_file, kafka_source.hostnames",
    ),
    (
        "Authentication failed|SaslAuthenticationFailed|SASL authentication error|invalid credentials",
        "the broker refuses the login: see kafka.user, kafka.password",
    ),
    ("UnsupportedSaslMechanism|mechanism.*(not supported|not enabled)", "the broker does not know kafka.mechanism"),
    (
        "WRONG_VERSION_NUMBER|wrong version number|UNEXPECTED_EOF|SSL routines|SSL handshake|Handshake failed",
        "the listener does not speak TLS, or another one: see kafka.security",
    ),
    ("DNS|Name or service not known|Failed to resolve", "its name is not known"),
    ("ECONNREFUSED|Connection refused", "nobody listens there"),
)
_GREETED = "Broker version identified"
_CUT_OFF = "socket disconnected"


def _text_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - a line that does not fit its arguments must not end the thread that wrote it
        return f"{record.msg} {record.args}"


class ClientLogs(logging.Handler):
    """Takes a library's log: warnings go to ours, each kind of line once in ten seconds; all are kept a while."""

    def __init__(self, log: Log, secrets: Collection[str] = (), clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.INFO)
        self._to = log
        # A library may log its options, which escapes quotes and backslashes: that form first, it is the longer one.
        self._secrets = [form for secret in secrets if secret for form in (repr(secret)[1:-1], secret)]
        self._clock_s = clock_s
        self._kept: deque[str] = deque(maxlen=_KEPT)
        self._said: dict[str, tuple[float, int]] = {}
        self._mutex = threading.Lock()

    def attach(self, name: str) -> logging.Logger:
        """Take over a library's logger."""
        logger = logging.getLogger(name)
        for other in [one for one in logger.handlers if isinstance(one, ClientLogs)]:
            logger.removeHandler(other)
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        return logger

    @staticmethod
    def of(name: str) -> ClientLogs | None:
        """Who has taken over a library's logger, if anybody has."""
        return next((one for one in logging.getLogger(name).handlers if isinstance(one, ClientLogs)), None)

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        text = _text_of(record)
        for secret in self._secrets:
            text = text.replace(secret, "(hidden)")
        self.keep(text)
        if record.levelno < logging.WARNING:
            return
        shape = _DIGITS.sub("#", text)
        with self._mutex:
            if len(self._said) > _SHAPES_MAX:
                self._said.clear()
            since_s, more = self._said.get(shape, (float("-inf"), 0))
            quiet = self._clock_s() - since_s < _EVERY_S
            self._said[shape] = (since_s, more + 1) if quiet else (self._clock_s(), 0)
        if not quiet:
            self._to.warning("the Kafka client says", logger=record.name, text=text[:500], times_before=more)

    def keep(self, text: str) -> None:
        """Remember a line, for `reason`."""
        self._kept.append(text)

    def forget(self) -> None:
        """A new attempt to connect begins."""
        self._kept.clear()

    def reason(self, *, login: bool) -> str:
        """Why the last attempt failed, as far as the log tells; "" where it does not. `login`: it was to log in."""
        lines = list(self._kept)
        for pattern, meaning in _REASONS:
            if any(re.search(pattern, line) for line in lines):
                return meaning
        greeted = any(_GREETED in line for line in lines)
        if greeted and any(_CUT_OFF in line for line in lines):
            # Brokers close the connection of whom they do not let in, and may do so before their answer is read.
            return (
                "the broker refuses the login: see kafka.user, kafka.password, kafka.mechanism"
                if login
                else "the broker closes the connection: its listener wants a login, or TLS; see kafka.security"
            )
        return ""


def blames_settings(reason: str) -> bool:
    """Whether trying again is of no use."""
    return "see kafka" in reason or "kafka.mechanism" in reason
