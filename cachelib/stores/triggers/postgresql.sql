-- Versions and change log of one table, on PostgreSQL. `postgresql_triggers.py` fills it in.
--
-- The rule to keep: of two changes of one key, the one that commits later has the higher
-- version. An update draws under its row's lock and a delete draws while it holds the row,
-- so both are in order. An insert is not: it draws (10), pauses, and meanwhile somebody
-- else updates (11) and deletes (12) that key and commits; only then does the unique index
-- let the insert in. So an insert draws BEFORE, which costs no second copy of the row, and
-- looks at the sequence AFTER the index has taken the row: where nobody has drawn since,
-- nobody can have drawn in between for this key. Else it draws again, by an update.
-- An update that changes the key always draws again after the index.
--
-- The functions run as their owner (security definer), because a role that may only insert
-- could neither draw again nor write the log. Hence every name and operator in them is
-- qualified: the caller's search_path must decide nothing. A SET clause would do that
-- too, but costs 10 to 30 us a call.

-- @function draw
begin
    new.{{version}} := pg_catalog.nextval({{sequence}});
    return new;
end

-- @function undraw
begin
    new.{{version}} := null;  -- `rekeyed` draws, once the index has taken the new key
    return new;
end

-- @function created
declare
    n bigint;
    lowest bigint;
    highest bigint;
    drawn bigint;
begin
    select pg_catalog.count(*), pg_catalog.min(n.{{version}}), pg_catalog.max(n.{{version}})
    into n, lowest, highest from leasecache_new n;
    if pg_catalog.int8eq(n, 0) then
        return null;
    end if;
    if pg_catalog.int8eq(pg_catalog.int8mi(highest, lowest), pg_catalog.int8mi(n, 1))
        and pg_catalog.int8eq(pg_catalog.pg_sequence_last_value({{sequence}}), highest)
    then
        insert into {{log}} (version, tbl, op, key, after)
        select n.{{version}}, {{name}}, 'create', {{key_of_n}}, {{watched_of_n}}
        from leasecache_new n;
    elsif pg_catalog.int8eq(n, 1) then
        update {{table}} t set {{version}} = null from leasecache_new n
        where {{t_is_n}} returning t.{{version}} into drawn;
        -- What `draw` and `updated` made of that is an update; it is where the row begins.
        update {{log}} c set op = 'create', before = null
        where c.tx operator(pg_catalog.=) pg_catalog.pg_current_xact_id()
            and c.version operator(pg_catalog.=) drawn;
    else
        -- The same, planned anew each time (execute): a plan cached for one row is ruinous for many.
        execute {{redraw}};
        execute {{amend}};
    end if;
    {{notify}}
    return null;
end

-- @function updated
{{log_updates}}

-- @function rekeyed
declare
    drawn bigint;
begin
    insert into {{log}} (version, tbl, op, key, before)
    values (pg_catalog.nextval({{sequence}}), {{name}}, 'delete', {{key_of_old}}, {{watched_of_old}});
    -- `draw` draws for it and `updated` logs it, as an update of the new key ...
    update {{table}} t set {{version}} = null where {{t_is_new}} returning t.{{version}} into drawn;
    -- ... which it is not: for the new key a row begins here.
    update {{log}} c set op = 'create', before = null
    where c.tx operator(pg_catalog.=) pg_catalog.pg_current_xact_id()
        and c.version operator(pg_catalog.=) drawn;
    return null;
end

-- @function deleted
begin
    insert into {{log}} (version, tbl, op, key, before)
    select pg_catalog.nextval({{sequence}}), {{name}}, 'delete', {{key_of_o}}, {{watched_of_o}}
    from leasecache_old o;
    {{notify}}
    return null;
end

-- @function truncated
begin
    insert into {{log}} (version, tbl, op, key)
    values (pg_catalog.nextval({{sequence}}), {{name}}, 'truncate', '{}');
    {{notify}}
    return null;
end

-- The names sort behind an application's own triggers, which fire in the order of their names:
-- what those still change in the row is in it when the version is drawn.

-- @trigger draw_insert draw
before insert on {{table}} for each row
-- @trigger draw_update draw
before update on {{table}} for each row when (not ({{rekeyed}}))
-- @trigger undraw undraw
before update on {{table}} for each row when ({{rekeyed}})
-- @trigger created created
after insert on {{table}} referencing new table as leasecache_new for each statement
-- @trigger updated updated
after update on {{table}} {{referencing_updates}} for each statement
-- @trigger rekeyed rekeyed
after update on {{table}} for each row when ({{rekeyed}})
-- @trigger deleted deleted
after delete on {{table}} referencing old table as leasecache_old for each statement
-- @trigger truncated truncated
after truncate on {{table}} for each statement
