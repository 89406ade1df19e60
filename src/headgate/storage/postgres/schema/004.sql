-- Limits over all nodes (policy/shared_rates.py, policy/shared_slots.py).  A row is locked while one node draws.
create table shared_limits (
    owner text not null, -- a key, by its rotation group
    kind text not null, -- "requests", "tokens", "concurrency"
    model text not null,
    most bigint not null,
    level numeric not null default 0, -- of the leaky bucket, in items times nanoseconds
    kept double precision not null default 0,
    epoch bigint not null default 0,
    at_us bigint not null default 0, -- by PostgreSQL's clock
    primary key (owner, kind, model)
);
create table shared_slots (
    owner text not null,
    kind text not null,
    model text not null,
    node_id text not null,
    held integer not null check (held >= used),
    used integer not null check (used >= 0), -- as the node last reported
    at timestamptz not null default now(),
    primary key (owner, kind, model, node_id)
);
