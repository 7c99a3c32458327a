-- What all tables of a PostgreSQL store share. Statements are split at lines of one semicolon.

-- The order of versions is the order of draws only while no session draws ahead (cache 1).
-- It starts at 2: rows that are there when a table is installed have version 1.
create sequence {{schema}}.leasecache_version as bigint start 2 cache 1 no cycle
;
-- Until when (seconds since 1970) a reader of the log is asleep and wants to be notified. A
-- sequence, because it is read and set outside transactions, and without a lock. NOTIFY
-- makes commits wait for each other, so it is for an idle store: a busy reader never sleeps.
create sequence {{schema}}.leasecache_waiting as bigint
;
-- `tx` first: a reader goes on behind the last transaction that surely has ended, and a
-- transaction finds its own rows; identity order would not be commit order.
create table {{schema}}.leasecache_changes (
    tx xid8 not null default pg_catalog.pg_current_xact_id(),
    version bigint not null,
    tbl text not null,
    op text not null,
    key text not null,
    before text,
    after text,
    at timestamptz not null default pg_catalog.clock_timestamp(),
    primary key (tx, version)
)
;
create table {{schema}}.leasecache_tables (
    name text primary key,
    spec text not null,
    digest text not null
)
;
create table {{schema}}.leasecache_meta (
    name text primary key,
    value text not null
)
;
create table {{schema}}.leasecache_consumers (
    name text primary key,
    position text not null,
    saved_at timestamptz not null default pg_catalog.now()
)
;
create table {{schema}}.leasecache_layout (
    one integer primary key check (one = 1),
    document bytea not null
)
;
insert into {{schema}}.leasecache_meta (name, value) values ('store', pg_catalog.gen_random_uuid()::text)
