"""The JSON Schemas of the records, as files that other programs can read; a test keeps them true.

`python -m loadgen.schemas` writes them anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from loadgen.result import RunResult
from loadgen.searched import SearchResult

FOLDER = Path(__file__).parent
RECORDS: dict[str, type[msgspec.Struct]] = {"run": RunResult, "search": SearchResult}


def schema_of(name: str) -> dict[str, Any]:
    """As the code has it."""
    return msgspec.json.schema(RECORDS[name])


def text_of(name: str) -> str:
    """The text of the file."""
    return json.dumps(schema_of(name), indent=1, sort_keys=True) + "\n"


def file_of(name: str) -> Path:
    """The committed file."""
    return FOLDER / f"{name}.schema.json"
