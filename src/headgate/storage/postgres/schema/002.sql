-- The rows that all nodes share: keys, accounts, people, their sessions, own models and the audit log.
-- Each node keeps a copy in its data directory and asks for what is above the version that it has.
create table shared_state (
    one integer primary key check (one = 1),
    cluster text not null, -- tells this database from another one
    version bigint not null, -- of the latest change
    fingerprint bytea -- of the pepper that keys are hashed with; null: no node has joined
);
insert into shared_state values (1, md5(random()::text || clock_timestamp()::text), 0, null);

create table shared_rows (
    kind text not null, -- a table of the data directory
    id text not null,
    version bigint not null unique, -- of its last change
    "row" jsonb, -- its columns; null: deleted
    primary key (kind, id)
);

-- For reports, without what is secret.
create view keys as select id, "row" ->> 'name' as name, "row" ->> 'account' as account,
    to_timestamp(("row" ->> 'created_s')::float8) as created_at,
    to_timestamp(("row" ->> 'expires_s')::float8) as expires_at,
    to_timestamp(("row" ->> 'revoked_s')::float8) as revoked_at,
    "row" ->> 'rotation_group' as rotation_group,
    ("row" ->> 'budget_nano')::bigint as budget_nano, "row" ->> 'budget_period' as budget_period
    from shared_rows where kind = 'keys' and "row" is not null;
create view accounts as select id, "row" ->> 'name' as name,
    to_timestamp(("row" ->> 'created_s')::float8) as created_at,
    to_timestamp(("row" ->> 'closed_s')::float8) as closed_at,
    ("row" ->> 'budget_nano')::bigint as budget_nano, "row" ->> 'budget_period' as budget_period
    from shared_rows where kind = 'accounts' and "row" is not null;
create view audit_log as select id::bigint as seq,
    to_timestamp(("row" ->> 'at_s')::float8) as at, "row" ->> 'actor' as actor,
    "row" ->> 'via' as via, "row" ->> 'action' as action, "row" ->> 'subject' as subject,
    "row" ->> 'account' as account, "row" ->> 'detail' as detail
    from shared_rows where kind = 'audit_log' and "row" is not null;
