"""Fixtures of the chart's tests."""

from __future__ import annotations

import pytest

from tests.charts.image import Image, build


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The Containerfile's build stage, done in a folder."""
    return build(tmp_path_factory.mktemp("image"))
