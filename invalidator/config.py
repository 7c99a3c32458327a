"""The daemon's settings: what there is, and where a value comes from.

A TOML file, then the environment (`INVALIDATOR_STORE__URL`, two underscores go down one level), then
flags; the later wins. Everything is checked when it is built. In a field's name `_s` says that it
holds seconds; outside it is a duration such as "250ms", under the name without `_s`.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cachelib.errors import ConfigError
from cachelib.policy import duration_ms, one_of, refuse_unknown

ENVIRONMENT = "INVALIDATOR_"
T = TypeVar("T")


def _text(default: str, doc: str, *, secret: bool = False, among: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"doc": doc, "secret": secret, "among": among})


def _number(default: int, doc: str, least: int, most: int) -> Any:
    return field(default=default, metadata={"doc": doc, "range": (least, most)})


def _duration(default: str, doc: str, least_ms: int, most_ms: int = 86_400_000) -> Any:
    seconds = duration_ms("default", default) / 1000
    return field(default=seconds, metadata={"doc": doc, "range": (least_ms, most_ms), "text": default})


def _several(doc: str, *, secret: bool = False) -> Any:
    return field(default=(), metadata={"doc": doc, "secret": secret})


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The database: its change log, and the layout that all clients read."""

    url: str = _text("", "the store, such as sqlite:///shop.db or postgresql+psycopg://user@host/db", secret=True)
    url_file: str = _text("", "a file that holds the URL, where it must not stand in the configuration")


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Where changes are read from."""

    kind: str = _text("outbox", "the source of changes: the store's own change log", among=("outbox",))
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
    settle_delay_s: float = _duration(
        "1s", "when to look a second time, for sources that may show a commit before it can be read", 0
    )
    pending_max: int = _number(100_000, "changes that wait for their second look, at most", 1000, 10_000_000)
    node_dead_after_s: float = _duration("1m", "a node that fails for so long no longer holds up the others", 1000)
    retry_first_s: float = _duration("50ms", "the first pause after a failure; it doubles, with jitter", 1, 10_000)
    retry_max_s: float = _duration("2s", "the longest pause between two tries", 10, 60_000)
    drain_s: float = _duration("10s", "at a stop: how long to wait for nodes that are behind", 0, 600_000)


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


# --- building --------------------------------------------------------------------------------


def load(path: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Settings from all three places. Raises `ConfigError`: one sentence that names the setting."""
    layers: list[tuple[str, Mapping[str, Any]]] = []
    if path is not None:
        layers.append((str(path), _read(path)))
    layers.append(("the environment", _nested(environment)))
    layers.append(("the command line", flags))
    merged: dict[str, Any] = {}
    for origin, layer in layers:
        _merge(merged, layer, Settings(), origin)
    settings = _build(Settings, merged, "")
    for name, value, most in (("namespace", settings.namespace, 32), ("consumer", settings.consumer, 64)):
        if not re.fullmatch(rf"[A-Za-z0-9_.-]{{1,{most}}}", value):  # it becomes part of names on the nodes
            raise ConfigError(f"{name} is {value!r}: it takes 1 to {most} letters, digits and -_.")
    return settings


def _merge(into: dict[str, Any], layer: Mapping[str, Any], known: Any, origin: str, section: str = "") -> None:
    names = {_outside(one.name): one.name for one in dataclasses.fields(known)}
    refuse_unknown(f"{origin}{f', section [{section}],' if section else ''}", sorted(set(layer) - set(names)), names)
    for name, value in layer.items():
        default = getattr(known, names[name])
        if dataclasses.is_dataclass(default):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{origin}: {name!r} is a section, give [{name}] with settings in it")
            _merge(into.setdefault(name, {}), value, default, origin, name)
        else:
            into[name] = value


def _build(kind: type[T], given: Mapping[str, Any], section: str) -> T:
    values: dict[str, Any] = {}
    for one in dataclasses.fields(kind):  # type: ignore[arg-type]
        name = _outside(one.name)
        if name not in given:
            continue
        dotted = f"{section}.{name}" if section else name
        default = one.default_factory() if callable(one.default_factory) else one.default
        if dataclasses.is_dataclass(default):
            values[one.name] = _build(type(default), given[name], name)
        else:
            values[one.name] = _value(dotted, given[name], default, one.metadata)
    return kind(**values)


def _value(name: str, given: Any, default: Any, rules: Mapping[str, Any]) -> Any:
    if "text" in rules:
        least, most = rules["range"]
        return duration_ms(name, given, least_ms=least, most_ms=most) / 1000
    if isinstance(default, int):
        return _whole(name, given, *rules["range"])
    if isinstance(default, tuple):
        return _items(name, given)
    if not isinstance(given, str):
        raise ConfigError(f"{name} is {given!r}: give text")
    if rules["among"]:
        one_of(name, given, rules["among"])
    return given


def _items(name: str, given: Any) -> tuple[Any, ...]:
    items = tuple(given.split() if isinstance(given, str) else given if isinstance(given, list | tuple) else ())
    kind = Mapping if name == "rules" else str
    if given and not (items and all(isinstance(item, kind) for item in items)):
        raise ConfigError(f"{name} is {given!r}: give a list of {'tables, [[rules]]' if name == 'rules' else 'texts'}")
    return items


def _whole(name: str, given: Any, least: int, most: int) -> int:
    try:
        number = int(given) if not isinstance(given, bool | float) else None
    except (ValueError, TypeError):
        number = None
    if number is None or not least <= number <= most:
        raise ConfigError(f"{name} is {given!r}: give a whole number between {least} and {most}")
    return number


def _read(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {path} is not TOML: {error}") from error


def _nested(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT):
            continue
        *sections, name = variable.removeprefix(ENVIRONMENT).lower().split("__")
        place = found
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return found


def _outside(name: str) -> str:
    return name.removesuffix("_s")


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


# --- showing ---------------------------------------------------------------------------------


def redacted(url: str) -> str:
    """The URL without the password and without what follows a "?": fit for a log."""
    scheme, separator, rest = url.partition("://")
    head = rest.partition("?")[0]
    if not separator or ("@" in rest and "@" not in head):
        return f"{scheme}://(hidden)" if separator else "(not a URL)"  # perhaps a password with a "?" in it
    user, at, place = head.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{place}"


def node_name(url: str) -> str:
    """What a node is called in the store, in metrics and in logs: its URL without user and password."""
    scheme, separator, rest = redacted(url).partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def listing() -> Sequence[tuple[str, str, str]]:
    """Every setting as (name, default, meaning), for `--help` and the README."""
    rows: list[tuple[str, str, str]] = []
    for one in dataclasses.fields(Settings):
        default = one.default_factory() if callable(one.default_factory) else one.default
        if dataclasses.is_dataclass(default):
            rows += [
                (f"{one.name}.{_outside(inner.name)}", _shown(inner.default, inner.metadata), inner.metadata["doc"])
                for inner in dataclasses.fields(default)
            ]
        else:
            rows.append((one.name, _shown(default, one.metadata), one.metadata["doc"]))
    return rows


def _shown(default: Any, rules: Mapping[str, Any]) -> str:
    return str(rules.get("text", default or ("" if isinstance(default, str | tuple) else default)))
