-- What all tables of a SQLite store share. Statements are split at lines of one semicolon.
create table if not exists leasecache_changes (
    id integer primary key autoincrement,
    tbl text not null,
    op text not null,
    key text not null,
    before text,
    after text,
    at_us integer not null default (cast(round((julianday('now') - 2440587.5) * 86400000.0) as integer) * 1000)
)
;
-- Empty between statements, or nearly: see sqlite.sql on REPLACE.
create table if not exists leasecache_replaced (
    tbl text not null,
    key text not null,
    before text
)
;
create table if not exists leasecache_tables (
    name text primary key,
    spec text not null,
    digest text not null
)
;
create table if not exists leasecache_meta (
    name text primary key,
    value text not null
)
;
create table if not exists leasecache_consumers (
    name text primary key,
    position text not null,
    saved_at text not null default current_timestamp
)
;
create table if not exists leasecache_layout (
    one integer primary key check (one = 1),
    document blob not null
)
;
-- Rows that are there when a table is installed have version 1.
insert into sqlite_sequence (name, seq)
select 'leasecache_changes', 1 where not exists (select 1 from sqlite_sequence where name = 'leasecache_changes')
;
insert or ignore into leasecache_meta (name, value) values ('store', lower(hex(randomblob(16))))
