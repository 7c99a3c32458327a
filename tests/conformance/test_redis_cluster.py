"""The Redis Cluster backend over three real masters: the same as one node, as far as the item machine goes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from cachelib.backends.redis import AsyncRedisCluster, RedisCluster
from cachelib.testing.conformance import CHECKS, Subject, on_a_loop, run_refinement
from tests.conformance.test_fakeredis import subject_over
from tests.servers.redis_cluster import RedisClusterServers


@pytest.fixture
def subject(redis_cluster: RedisClusterServers) -> Iterator[Subject]:
    yield from over(redis_cluster, RedisCluster(redis_cluster.url))


@pytest.fixture
def awaited(redis_cluster: RedisClusterServers) -> Iterator[Subject]:
    yield from over(redis_cluster, on_a_loop(AsyncRedisCluster(redis_cluster.url)))


def over(cluster: RedisClusterServers, backend) -> Iterator[Subject]:
    behind = redis.RedisCluster(host="127.0.0.1", port=cluster.masters[0].port)
    yield subject_over(backend, behind)
    backend.close()
    behind.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_redis_cluster_passes(subject: Subject, check) -> None:
    check(subject)


def test_a_redis_cluster_refines_the_item_machine(subject: Subject) -> None:
    run_refinement(subject, examples=4)


def test_a_redis_cluster_refines_it_on_an_event_loop(awaited: Subject) -> None:
    run_refinement(awaited, examples=3)
