-- Upstream keys of the owners of gateway keys: `kind` is 'key' (with all rotations of it) or 'account'.
-- `sealed` is the key, encrypted under the pepper; `hint` its last characters, and `fingerprint` an HMAC of it.
create table upstream_keys (
    kind text not null check (kind in ('key', 'account')),
    owner text not null check (owner <> ''),
    upstream text not null check (upstream <> ''),
    sealed blob not null,
    hint text not null,
    fingerprint text not null,
    fallback integer not null check (fallback in (0, 1)), -- the gateway's keys may follow it
    changed_s real not null,
    primary key (kind, owner, upstream)
) strict, without rowid;
create trigger upstream_keys_made after insert on upstream_keys begin update key_changes set n = n + 1; end;
create trigger upstream_keys_changed after update on upstream_keys begin update key_changes set n = n + 1; end;
create trigger upstream_keys_gone after delete on upstream_keys begin update key_changes set n = n + 1; end;
