-- What one writes first, kept to show that the race tests can fail: the version of an insert,
-- and of an update that changes the key, is drawn BEFORE the unique index has taken the row.
create function naive_draw() returns trigger language plpgsql as $$
begin
    new.row_version := nextval('leasecache_version');
    return new;
end $$;

create function naive_log() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' then
        insert into leasecache_changes (version, tbl, op, key)
        values (nextval('leasecache_version'), tg_table_name, 'delete', json_build_object('id', old.id)::text);
    elsif tg_op = 'INSERT' then
        insert into leasecache_changes (version, tbl, op, key)
        values (new.row_version, tg_table_name, 'create', json_build_object('id', new.id)::text);
    elsif old.id is distinct from new.id then
        insert into leasecache_changes (version, tbl, op, key)
        values (nextval('leasecache_version'), tg_table_name, 'delete', json_build_object('id', old.id)::text),
            (new.row_version, tg_table_name, 'create', json_build_object('id', new.id)::text);
    else
        insert into leasecache_changes (version, tbl, op, key)
        values (new.row_version, tg_table_name, 'update', json_build_object('id', new.id)::text);
    end if;
    return null;
end $$;

alter table items add column row_version bigint;
create trigger naive_draw before insert or update on items for each row execute function naive_draw();
create trigger naive_log after insert or update or delete on items for each row execute function naive_log();
