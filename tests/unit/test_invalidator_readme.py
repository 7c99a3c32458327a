"""What the invalidator's README says is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from invalidator.config import listing, load
from invalidator.metrics import Metrics
from invalidator.rules import rules_from
from invalidator.sources.kafka_login import check, formats

README = (Path(__file__).parents[2] / "invalidator" / "README.md").read_text()


def test_every_metric_is_in_the_readme_and_every_one_there_in_the_code() -> None:
    assert set(re.findall(r"^\| `(invalidator_\w+)`", README, re.MULTILINE)) == set(Metrics().names())


def test_every_metric_says_what_it_means() -> None:
    assert all(meaning.endswith(".") for meaning in Metrics().names().values())


def test_the_configuration_in_the_readme_is_one(tmp_path: Path) -> None:
    text, _ = _configurations()
    (tmp_path / "invalidator.toml").write_text(text)
    settings = load(tmp_path / "invalidator.toml", {}, {})
    assert settings.http.port == 8625
    assert [entity.name for entity in rules_from([], settings.rules).entities] == ["places", "orders-of"]
    assert tomllib.loads(text)


def test_the_configuration_for_kafka_is_one(tmp_path: Path) -> None:
    _, text = _configurations()
    for path in ("/run/secrets/kafka", "/etc/kafka/ca.pem"):
        file = tmp_path / Path(path).name
        file.write_text("x")
        text = text.replace(path, str(file))
    (tmp_path / "invalidator.toml").write_text(text)
    settings = load(tmp_path / "invalidator.toml", {}, {})
    check(settings)
    assert formats(settings.kafka_source)["shop-changes"] == "relay"


def _configurations() -> list[str]:
    return re.findall(r"```toml\n(.*?)```", README, re.DOTALL)


def test_settings_that_the_readme_explains_exist() -> None:
    known = {name for name, _, _ in listing()}
    named = set(re.findall(r"\*\*`([a-z_.]+)`\*\*", README))
    assert named
    assert named <= known
