"""Read the SQL templates in `triggers/`: sections that start with `-- @kind title`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

_SECTION = re.compile(r"^-- @(\w+) (.*)$", re.MULTILINE)
_HOLE = re.compile(r"\{\{(\w+)\}\}")


@cache
def template(name: str) -> str:
    """The text of one template."""
    return files("cachelib.stores").joinpath("triggers").joinpath(name).read_text(encoding="utf-8")


def sections(name: str) -> list[tuple[str, str, str]]:
    """Kind, title and text of every section, in order."""
    parts = _SECTION.split(template(name))
    return [
        (kind, title.strip(), _without_notes(text))
        for kind, title, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    ]


def statements(name: str, holes: Mapping[str, str]) -> list[str]:
    """A file of plain statements, split at its lines of one semicolon."""
    return [fill(part, holes).strip() for part in re.split(r"^;$", template(name), flags=re.MULTILINE)]


def fill(text: str, holes: Mapping[str, str]) -> str:
    """Put a value into every {{hole}}; a hole without one is a mistake in the template."""
    return _HOLE.sub(lambda match: holes[match[1]], text)


def _without_notes(text: str) -> str:
    """Comments at the left margin are about the file, not about the function above them."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip()
