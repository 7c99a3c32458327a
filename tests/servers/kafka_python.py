"""kafka-python without its warnings, which are errors in tests.

It reads its own files by a function that Python 3.11 calls deprecated, and it leaves the sockets of connections
that failed to the garbage collector.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "(read_text|open_text) is deprecated", DeprecationWarning)
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.admin import KafkaAdminClient, NewTopic

__all__ = ["KafkaAdminClient", "KafkaConsumer", "KafkaProducer", "NewTopic", "TopicPartition", "closing"]


@contextmanager
def closing(make: Callable[..., Any], *args: Any, **options: Any) -> Iterator[Any]:
    """A client that is closed at the end, with all its sockets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        client = make(*args, **options)
        try:
            yield client
        finally:
            client.close()
            del client
            gc.collect()
