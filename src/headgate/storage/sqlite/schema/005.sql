-- People of the console, their sessions, keys of the admin API, and who changed what.
-- Times are Unix seconds; of every secret only an HMAC under the pepper is kept.
create table users (
    id text primary key,
    name text not null unique collate nocase, -- what they sign in with
    email text not null default '',
    password text not null default '', -- argon2id, PHC form; '': they come by OIDC
    issuer text not null default '',
    subject text not null default '', -- the provider's name of them
    role text not null check (role in ('admin', 'member', 'viewer')),
    account text not null default '', -- whose keys and figures they see; '' of an admin: all
    created_s real not null,
    closed_s real,
    seen_s real -- last sign-in
) strict;
create unique index users_subject on users (issuer, subject) where subject <> '';

create table sessions (
    mac blob primary key check (length(mac) = 32),
    user text not null references users (id),
    began_s real not null,
    seen_s real not null,
    ends_s real not null
) strict, without rowid;
create index sessions_user on sessions (user);

-- The link that makes the first admin: at most one is open, and it works once.
create table setup (
    one integer primary key check (one = 1),
    mac blob not null check (length(mac) = 32),
    expires_s real not null
) strict;

-- Keys of the admin API.  They call no model, and keys of models manage nothing.
create table management_keys (
    id text primary key,
    name text not null,
    mac blob not null check (length(mac) = 32),
    role text not null check (role in ('admin', 'viewer')),
    created_s real not null,
    expires_s real,
    revoked_s real
) strict;

create table changes (
    seq integer primary key,
    at_s real not null,
    actor text not null, -- a user's name, a management key's id, or 'cli'
    via text not null check (via in ('console', 'api', 'cli', 'setup', 'oidc')),
    action text not null, -- 'key.create'
    subject text not null, -- the id of what was changed
    account text not null default '', -- whose it is
    detail text not null default '{}' check (json_valid(detail)) -- never a secret
) strict;
create trigger changes_stay before delete on changes begin
    select raise(abort, 'the record of changes is append-only');
end;
create trigger changes_stay_so before update on changes begin
    select raise(abort, 'the record of changes is append-only');
end;
