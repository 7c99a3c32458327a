"""kafka-python, imported without its warning.

It reads its own files by a function that Python 3.11 calls deprecated, and warnings are errors in tests.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "(read_text|open_text) is deprecated", DeprecationWarning)
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.admin import KafkaAdminClient, NewTopic

__all__ = ["KafkaAdminClient", "KafkaConsumer", "KafkaProducer", "NewTopic", "TopicPartition"]
