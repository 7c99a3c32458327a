"""A secret of the wrong kind was printed by the error that refuses it, and by whatever shows a settings object.

A person writes a password without quotes, or the URLs of caches as a table · the error shows what was given · the log
of the pod has the password.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from cachelib.errors import ConfigError
from invalidator.config import load
from invalidator.logs import open_log
from invalidator.settings import KafkaSettings, LogSettings, Settings, StoreSettings
from invalidator.sources.kafka_logs import ClientLogs

URL = "postgresql://shop:s3cret@here/shop"


@pytest.mark.parametrize(
    ("given", "environment", "said"),
    [
        ({"kafka": {"password": 4711}}, {}, "kafka.password is of type int: give text"),
        ({"store": {"url": [URL]}}, {}, "store.url is of type list: give text"),
        ({"caches": [URL, 5]}, {}, "caches is of type list: give a list of texts"),
        ({"caches": {"a": URL}}, {}, "caches is of type dict: give a list of texts"),
        ({}, {"INVALIDATOR_CACHES__X": URL}, "caches is of type dict: give a list of texts"),
        ({}, {"INVALIDATOR_STORE__URL__X": URL}, "store.url is of type dict: give text"),
    ],
)
def test_secret_of_the_wrong_kind_is_refused_without_being_shown(
    given: Mapping[str, Any], environment: Mapping[str, str], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, environment, given)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "4711" not in str(caught.value)


@pytest.mark.parametrize(
    "environment",
    [
        {"INVALIDATOR_STORE": URL, "INVALIDATOR_STORE__URL": URL},
        {"INVALIDATOR_STORE__URL": URL, "INVALIDATOR_STORE": URL},
        {"INVALIDATOR_STORE__URL": URL, "INVALIDATOR_STORE__URL__X": URL},
    ],
)
def test_variables_that_contradict_each_other_are_one_sentence(environment: Mapping[str, str]) -> None:
    """It was a TypeError, and no usage error by its exit code."""
    with pytest.raises(ConfigError, match="INVALIDATOR_STORE") as caught:
        load(None, environment, {})
    assert "s3cret" not in str(caught.value)


def test_settings_that_are_shown_have_no_secrets() -> None:
    settings = Settings(
        store=StoreSettings(url=URL), kafka=KafkaSettings(password="s3cret", user="shop"), caches=(URL,)
    )
    assert "s3cret" not in repr(settings)
    assert "user='shop'" in repr(settings)
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_password_is_hidden_as_a_library_escapes_it(capsys: pytest.CaptureFixture[str]) -> None:
    password = "s3\\cret'\""
    logs = ClientLogs(open_log(replace(LogSettings(), format="json")), [password])
    said = logging.LogRecord("kafka", logging.WARNING, "f", 1, "options %r and %s", ([password], password), None)
    logs.emit(said)
    shown = "".join(capsys.readouterr())
    assert "options ['(hidden)'] and (hidden)" in shown
    assert "cret" not in shown
