"""SQL that both databases understand, and how generated SQL is run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, TextClause, text
from sqlalchemy.engine import CursorResult

from cachelib.stores.names import for_text

PURGED_THROUGH = "purged_through"


def run(conn: Connection, sql: str) -> CursorResult[Any]:
    """Run generated SQL that has no parameters: nothing in it is taken for a placeholder."""
    return conn.exec_driver_sql(sql, execution_options={"no_parameters": True})


@dataclass(frozen=True, slots=True)
class Companions:
    """Statements on the small tables beside the log. `home` is their prefix, quoted."""

    read_layout: TextClause
    first_layout: TextClause
    next_layout: TextClause
    save_consumer: TextClause
    load_consumer: TextClause
    drop_consumer: TextClause
    slowest_consumer: TextClause
    read_meta: TextClause
    raise_meta: TextClause
    read_table: TextClause
    write_table: TextClause
    log_size: TextClause


@cache
def companions(home: str) -> Companions:
    """The statements for companions that live behind this prefix."""

    def made(sql: str) -> TextClause:
        return text(sql.replace("@", for_text(home) + "leasecache_"))

    return Companions(
        read_layout=made("select document from @layout where one = 1"),
        first_layout=made("insert into @layout (one, document) values (1, :document) on conflict (one) do nothing"),
        next_layout=made("update @layout set document = :document where one = 1 and document = :expected"),
        save_consumer=made(
            "insert into @consumers (name, position) values (:name, :position) on conflict (name)"
            " do update set position = excluded.position, saved_at = current_timestamp"
        ),
        load_consumer=made("select position from @consumers where name = :name"),
        drop_consumer=made("delete from @consumers where name = :name"),
        slowest_consumer=made("select name, position from @consumers order by position, name limit 1"),
        read_meta=made("select value from @meta where name = :name"),
        raise_meta=made(
            "insert into @meta (name, value) values (:name, :value)"
            " on conflict (name) do update set value = excluded.value where excluded.value > leasecache_meta.value"
        ),
        read_table=made("select spec, digest from @tables where name = :name"),
        write_table=made(
            "insert into @tables (name, spec, digest) values (:name, :spec, :digest)"
            " on conflict (name) do update set spec = excluded.spec, digest = excluded.digest"
        ),
        log_size=made("select count(*) from @changes"),
    )
