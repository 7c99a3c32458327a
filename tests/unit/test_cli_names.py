"""Names that a person on call types: entities of several modules are found, and a slip is pointed out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cachelib.cli import commands, entities_of
from cachelib.errors import ConfigError
from tests.integration.client_world import sqlite_template

MODULES = {
    "oncall_orders": "from cachelib import Entity\norders = Entity('orders:{id}')\nentities = [orders]\n",
    "oncall_bare": "from cachelib import Entity\npages = Entity('pages:{id}')\nLIMIT = 7\n",
    "oncall_none": "LIMIT = 7\n",
}
BOTH = "oncall_orders:entities oncall_bare"


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)


def test_entities_of_several_places_are_found() -> None:
    assert [entity.name for entity in entities_of(BOTH)] == ["orders", "pages"]
    assert [entity.name for entity in entities_of("oncall_orders:orders")] == ["orders"]


def test_a_place_without_entities_is_an_error() -> None:
    for place in ("oncall_none", "oncall_orders:nothing", "oncall_bare:LIMIT"):
        with pytest.raises(ConfigError):
            entities_of(place)


def mode(store_url: str, name: str, entities: str = BOTH) -> Result:
    line = ["mode", name, "bypass", "--store", store_url, "--entities", entities]
    return CliRunner().invoke(commands, line, catch_exceptions=False)


def test_a_name_that_no_entity_has_is_pointed_out(tmp_path: Path) -> None:
    store_url = f"sqlite:///{sqlite_template(tmp_path)}"
    slip = mode(store_url, "order")
    assert slip.exit_code == 0  # it may be declared elsewhere
    assert "declares no entity 'order': did you mean 'orders'?" in slip.output
    for name, entities in [("pages", BOTH), ("*", BOTH), ("order", "")]:
        assert "declares no" not in mode(store_url, name, entities).output
