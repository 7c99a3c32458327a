-- Versions and change log of one table, on SQLite. `sqlite_triggers.py` fills it in.
--
-- SQLite has one writer at a time, so every change may draw when it is made: the version of
-- a change is the id of its row in the log (AUTOINCREMENT: rising, never used again).
-- A trigger cannot change the row that it sees, so it updates it afterwards. That fires
-- `updated` again, where another trigger did it (or recursive_triggers is on); `not_ours`
-- tells: our own update sets just the version that the log gave last, and gave for this key.
--
-- REPLACE deletes the rows in its way, and without `pragma recursive_triggers` it does so
-- without firing their triggers. Before a row goes in, those in its way are noted; what the
-- statement will do with them is not known yet (fail, ignore, update). Once the row is in,
-- they must be gone, and the notes go to the log.

-- @trigger noting_insert
before insert on {{table}} begin
    delete from leasecache_replaced where tbl is not null;  -- left by one that was ignored
    insert into leasecache_replaced (tbl, key, before)
    select {{name}}, {{key_of_gone}}, {{watched_of_gone}} from {{table}} as gone where {{in_the_way}};
end

-- @trigger noting_update
before update on {{table}} when {{unique_changed}} begin
    delete from leasecache_replaced where tbl is not null;
    insert into leasecache_replaced (tbl, key, before)
    select {{name}}, {{key_of_gone}}, {{watched_of_gone}} from {{table}} as gone
    where ({{in_the_way}}) and not ({{gone_is_old}});
end

-- @trigger created
after insert on {{table}} begin
    insert into leasecache_changes (tbl, op, key, before)
    select tbl, 'delete', key, before from leasecache_replaced;
    insert into leasecache_changes (tbl, op, key, after)
    values ({{name}}, 'create', {{key_of_new}}, {{watched_of_new}});
    update {{table}} set {{version}} = last_insert_rowid() where {{this_row}};
end

-- @trigger updated
after update on {{table}} when not ({{rekeyed}}) and {{not_ours}} begin
    insert into leasecache_changes (tbl, op, key, before)
    select tbl, 'delete', key, before from leasecache_replaced where {{unique_changed}};
    insert into leasecache_changes (tbl, op, key, before, after)
    values ({{name}}, 'update', {{key_of_new}}, {{watched_of_old}}, {{watched_of_new}});
    update {{table}} set {{version}} = last_insert_rowid() where {{this_row}};
end

-- @trigger rekeyed
after update on {{table}} when ({{rekeyed}}) and {{not_ours}} begin
    insert into leasecache_changes (tbl, op, key, before)
    select tbl, 'delete', key, before from leasecache_replaced;
    insert into leasecache_changes (tbl, op, key, before)
    values ({{name}}, 'delete', {{key_of_old}}, {{watched_of_old}});
    insert into leasecache_changes (tbl, op, key, after)
    values ({{name}}, 'create', {{key_of_new}}, {{watched_of_new}});
    update {{table}} set {{version}} = last_insert_rowid() where {{this_row}};
end

-- @trigger deleted
after delete on {{table}} begin
    delete from leasecache_replaced where key = {{key_of_old}};  -- this tells it already
    insert into leasecache_changes (tbl, op, key, before)
    values ({{name}}, 'delete', {{key_of_old}}, {{watched_of_old}});
end
