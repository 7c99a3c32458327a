"""The daemon's settings: what there is, with its default and its meaning.

In a field's name `_s` says that it holds seconds; outside it is a duration such as "250ms", under the name
without `_s`. `config.py` says where values come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cachelib.errors import ConfigError
from cachelib.policy import duration_ms


def _text(default: str, doc: str, *, secret: bool = False, among: tuple[str, ...] = ()) -> Any:
    return field(default=default, repr=not secret, metadata={"doc": doc, "secret": secret, "among": among})


def _number(default: int, doc: str, least: int, most: int) -> Any:
    return field(default=default, metadata={"doc": doc, "range": (least, most)})


def _duration(default: str, doc: str, least_ms: int, most_ms: int = 86_400_000) -> Any:
    seconds = duration_ms("default", default) / 1000
    return field(default=seconds, metadata={"doc": doc, "range": (least_ms, most_ms), "text": default})


def _several(doc: str, *, secret: bool = False) -> Any:
    return field(default=(), repr=not secret, metadata={"doc": doc, "secret": secret})


def _texts(default: str, doc: str) -> Any:
    return field(default=tuple(default.split()), metadata={"doc": doc, "secret": False})


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The database: its change log, and the layout that all clients read."""

    url: str = _text("", "the store, such as sqlite:///shop.db or postgresql+psycopg://user@host/db", secret=True)
    url_file: str = _text("", "a file that holds the URL, where it must not stand in the configuration")


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Where changes are read from."""

    kind: str = _text("outbox", "the store's own change log, or topics of Kafka", among=("outbox", "kafka"))
    poll_s: float = _duration("500ms", "how long a poll waits for something new", 10, 10_000)
    batch_max: int = _number(1000, "the most changes read by one poll", 1, 100_000)
    purge_s: float = _duration("1m", "how often what every consumer has read is dropped from the log", 1000)


@dataclass(frozen=True, slots=True)
class ApplySettings:
    """How the caches are told."""

    batch: int = _number(1000, "the most changes told to a node in one batch", 1, 100_000)
    window: int = _number(50_000, "changes kept in memory for nodes that are behind the fastest", 1000, 10_000_000)
    positions_s: float = _duration(
        "500ms", "at the latest so often a node is told its position and watermark", 50, 5000
    )
    commit_s: float = _duration("1s", "how often the committed offset is saved", 100, 60_000)
    second_look: str = _text(
        "auto",
        "how a commit is known to be readable: by its transaction where the log is that of store.url, or by time only",
        among=("auto", "delay"),
    )
    settle_delay_s: float = _duration(
        "1s", "when to look a second time where no transaction tells, for sources that show commits early", 0
    )
    pending_max: int = _number(100_000, "changes that wait for their second look, at most", 1000, 10_000_000)
    refresh_bytes_max: int = _number(16_384, "of entities with refresh=: larger values are voided instead", 0, 1 << 20)
    refresh_watch: int = _number(
        100, "one in so many of those puts is watched for whether anybody reads it, at the price of a load; 0: none",
        0, 1_000_000,
    )  # fmt: skip
    node_dead_after_s: float = _duration("1m", "a node that fails for so long no longer holds up the others", 1000)
    retry_first_s: float = _duration("50ms", "the first pause after a failure; it doubles, with jitter", 1, 10_000)
    retry_max_s: float = _duration("2s", "the longest pause between two tries", 10, 60_000)
    drain_s: float = _duration("10s", "at a stop: how long to wait for nodes that are behind", 0, 600_000)


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach Kafka: for the source, the relay and the dead letters alike."""

    bootstrap: tuple[str, ...] = _several("addresses of brokers, such as kafka-1:9092")
    security: str = _text(
        "PLAINTEXT", "the listener's protocol", among=("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
    )
    mechanism: str = _text(
        "SCRAM-SHA-512", "how to log in", among=("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
    )
    user: str = _text("", "as whom to log in")
    password: str = _text("", "the password", secret=True)
    password_file: str = _text("", "a file that holds the password")
    ca_file: str = _text("", "the certificates of authorities to trust, PEM; the system's where not given")
    cert_file: str = _text("", "the client's own certificate, PEM")
    key_file: str = _text("", "and its key")


@dataclass(frozen=True, slots=True)
class KafkaSourceSettings:
    """The source `kafka`: which topics, in which group, and how fast. `kafka_checks.py` says what does not fit."""

    topics: tuple[str, ...] = _several("the topics that carry the changes")
    group: str = _text("", "the consumer group, where offsets are committed; by default named as the consumer")
    client: str = _text("kafka-python", "the client library, each an extra", among=("kafka-python", "confluent"))
    format: str = _text(
        "detect", "what records are", among=("detect", "relay", "debezium", "flattened", "outbox-router")
    )
    formats: tuple[str, ...] = _several("what those of single topics are, each as TOPIC=FORMAT")
    decimals: str = _text(
        "precise",
        "the connector's decimal.handling.mode, for topics without schemas",
        among=("precise", "string", "double"),
    )
    binaries: str = _text(
        "bytes", "its binary.handling.mode, likewise", among=("bytes", "base64", "base64-url-safe", "hex")
    )
    dates: str = _text("days", "likewise; iso where its time.precision.mode is isostring", among=("days", "iso"))
    home: tuple[str, ...] = _texts(
        "public", "schemas whose tables are called by their bare names; of MySQL and MariaDB the application's database"
    )
    full: tuple[str, ...] = _several("tables that have REPLICA IDENTITY FULL, since before their topic began")
    snapshots: str = _text("ignore", "rows that a connector only read, as it began", among=("ignore", "apply"))
    instance: str = _text("", "this member's own name (static membership): its restart causes no rebalance")
    assignment: str = _text("range", "how the group shares out partitions", among=("range", "cooperative"))
    session_s: float = _duration("10s", "a member silent for so long is given up by the group", 1000, 1_800_000)
    hostnames: str = _text("check", "whether brokers must have their certificates' names", among=("check", "ignore"))
    token_file: str = _text("", "for OAUTHBEARER: a file that holds the token, read again at each login")
    connect_s: float = _duration("4s", "how long to try to reach a broker before saying that none answers", 500, 60_000)
    request_s: float = _duration("12s", "how long one request may take", 1000, 300_000)
    commit_timeout_s: float = _duration("10s", "how long saving the offsets may take", 100, 300_000)
    flush_s: float = _duration("500ms", "how long giving up partitions waits for what is in hand", 0, 10_000)
    metadata_s: float = _duration("5s", "how often to look for new partitions and leaders", 500, 3_600_000)
    check_s: float = _duration("10s", "how often to ask whether the topics still are the same", 500, 3_600_000)
    stalled_s: float = _duration("15s", "connect anew after so long without progress where there is more", 1000)
    rebuild_max_s: float = _duration("10s", "the longest pause between two tries to connect anew", 100, 600_000)
    fetch_bytes: int = _number(4 << 20, "the most that is fetched of a partition at once", 1 << 10, 1 << 30)
    buffer_records: int = _number(20_000, "records kept for slow caches; beyond, fetching pauses", 1, 10_000_000)
    buffer_bytes: int = _number(64 << 20, "bytes of such records; beyond, fetching pauses", 1 << 10, 1 << 36)


@dataclass(frozen=True, slots=True)
class DeadLetterSettings:
    """Where changes go that cannot be read. They are invalidated all the same, as widely as is safe."""

    topic: str = _text("", "a Kafka topic for them")
    file: str = _text("", "or a file for them, one JSON object a line")
    unknown_tables: str = _text(
        "count", "changes of tables that no entity depends on: only counted, or kept as well", among=("count", "keep")
    )
    pending_max: int = _number(1000, "so many may wait to be kept; reading pauses beyond", 1, 100_000)
    tries: int = _number(5, "after so many failures to keep them /readyz fails; it is tried on", 1, 1000)
    bytes_max: int = _number(100_000_000, "the file is begun anew beyond this; one older one is kept", 10_000, 10**12)


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """`invalidator relay`: the store's change log into a Kafka topic."""

    topic: str = _text("", "the topic that the relay fills")
    consumer: str = _text("relay", "under which name the relay's position is kept in the store")
    format: str = _text("msgpack", "the form of its records", among=("msgpack", "json"))
    heartbeat_s: float = _duration("250ms", "how often each partition is told how far the log is in it", 20, 60_000)
    batch: int = _number(1000, "changes sent before their acknowledgement is waited for", 1, 100_000)
    partitions: int = _number(0, "create the topic with so many partitions where it is missing; 0: do not", 0, 10_000)
    replicas: int = _number(0, "and so many replicas; 0: as the brokers are told", 0, 100)


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """`invalidator verify`: what is asked of the caches after a change, and of the store about it."""

    after: tuple[str, ...] = _texts("1s 10s 1m 5m", "at which ages of a change every node is asked for its keys")
    sample: int = _number(100, "the most changes chosen a second", 1, 100_000)
    loads: int = _number(10, "the most keys asked of the store a second", 1, 100_000)
    hot: int = _number(100, "so many of the keys that change most are compared with the store in turn", 0, 100_000)
    tolerate_s: float = _duration("10s", "a node that is merely late for longer is an alarm", 0)
    absent_after_s: float = _duration("10s", "absence of a row is held against the store only from this age on", 0)
    poll_s: float = _duration("200ms", "how long a poll waits for something new", 10, 10_000)
    batch: int = _number(1000, "the most changes read by one poll", 1, 100_000)
    pending_max: int = _number(100_000, "keys that wait to be asked for; beyond, changes are not chosen", 1, 10_000_000)
    suspects_max: int = _number(10_000, "answers that wait for the store; beyond, they stay open", 1, 1_000_000)
    report_s: float = _duration("1m", "how often the log says how it stands", 1000)
    said_max: int = _number(20, "alarms that are logged one by one; page and report have the last ones", 1, 1000)

    def __post_init__(self) -> None:
        self.ages()

    def ages(self) -> dict[str, float]:
        """Each age as it is written, and in seconds. Raises `ConfigError`."""
        found = {text: duration_ms("verify.after", text, least_ms=1, most_ms=86_400_000) / 1000 for text in self.after}
        if not found or list(found.values()) != sorted(set(found.values())):
            raise ConfigError(f"verify.after is {' '.join(self.after)!r}: give durations that rise, such as 1s 10s 1m")
        return found


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Probes, metrics and status."""

    host: str = _text("127.0.0.1", "where to listen; 0.0.0.0 in a container")
    port: int = _number(8625, "0 for any free port, -1 for no server", -1, 65_535)
    stalled_after_s: float = _duration("30s", "/healthz fails when the loop has not turned for so long", 1000)


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is said on standard error."""

    format: str = _text("console", "one JSON object a line, or text for people", among=("json", "console"))
    level: str = _text("info", "the least that is said", among=("debug", "info", "warning", "error"))


@dataclass(frozen=True, slots=True)
class Settings:
    """All of them."""

    namespace: str = _text("lc", "what names of items begin with; the same as the clients'")
    consumer: str = _text("invalidator", "under which name the committed offset is kept in the store")
    caches: tuple[str, ...] = _several("the cache nodes' URLs (in the environment: separated by spaces)", secret=True)
    caches_file: str = _text("", "a file that holds the cache nodes' URLs, one a line")
    entities: tuple[str, ...] = _several('what is cached, such as "shop.caching:entities" or "shop.caching"')
    rules: tuple[Mapping[str, Any], ...] = _several("the same as TOML tables [[rules]]; see the README")
    store: StoreSettings = field(default_factory=StoreSettings)
    source: SourceSettings = field(default_factory=SourceSettings)
    apply: ApplySettings = field(default_factory=ApplySettings)
    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    kafka_source: KafkaSourceSettings = field(default_factory=KafkaSourceSettings)
    dead_letters: DeadLetterSettings = field(default_factory=DeadLetterSettings)
    relay: RelaySettings = field(default_factory=RelaySettings)
    verify: VerifySettings = field(default_factory=VerifySettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    log: LogSettings = field(default_factory=LogSettings)

    def store_url(self) -> str:
        """The store's URL, from where it is kept. Raises `ConfigError` where there is none."""
        url = self.store.url or (_contents("store.url_file", self.store.url_file)[:1] or [""])[0]
        if not url:
            raise ConfigError("no store is given: set [store] url, INVALIDATOR_STORE__URL or --store")
        return url

    def cache_urls(self) -> tuple[str, ...]:
        """The nodes' URLs, each node once; `memcached://a,b` are two. Raises `ConfigError`."""
        given = [*self.caches, *_contents("caches_file", self.caches_file)]
        urls = tuple(dict.fromkeys(one for url in given for one in _each_node(url)))
        if not urls:
            raise ConfigError("no cache is given: set caches, INVALIDATOR_CACHES or --cache")
        return urls


def _contents(setting: str, path: str) -> list[str]:
    if not path:
        return []
    try:
        return [line.strip() for line in Path(path).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{setting} names {path}, which cannot be read: {error}") from error


def _each_node(url: str) -> Iterator[str]:
    scheme, separator, rest = url.partition("://")
    if scheme == "memcached" and separator:
        yield from (f"memcached://{host.strip()}" for host in rest.split(",") if host.strip())
    else:
        yield url
