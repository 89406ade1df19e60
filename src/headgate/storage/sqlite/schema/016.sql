-- Upstreams that the operator has entered in the console or the admin API; `settings` is JSON with the
-- fields of `[upstreams.NAME]` in headgate.toml, and its key is encrypted (catalog/sealed_keys.py).
create table own_upstreams (
    id text primary key not null check (id <> ''),
    settings text not null,
    changed_s real not null
) strict;
create trigger own_upstreams_made after insert on own_upstreams begin update key_changes set n = n + 1; end;
create trigger own_upstreams_changed after update on own_upstreams begin update key_changes set n = n + 1; end;
create trigger own_upstreams_gone after delete on own_upstreams begin update key_changes set n = n + 1; end;
