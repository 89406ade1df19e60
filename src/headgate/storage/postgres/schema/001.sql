-- The ledger of all nodes in one place.  Money is whole nano-dollars (10^-9 USD).
create table nodes (
    node_id text primary key,
    name text not null,
    version text not null,
    last_seq bigint not null, -- of the node's own ledger: rows up to it are here
    last_request_id text not null, -- of that row, so that a restored data directory is noticed
    behind bigint not null, -- rows that the node had and this did not, when it last came
    seen_at timestamptz not null
);

create table ledger (
    seq bigint generated always as identity primary key,
    node_id text not null,
    request_id text not null unique,
    key_id text not null,
    account text not null,
    session text not null,
    "user" text not null,
    tags jsonb not null,
    dialect text not null,
    model text not null,
    upstream text not null,
    upstream_model text not null,
    stream boolean not null,
    outcome text not null,
    basis text not null,
    status integer not null,
    started_at timestamptz not null,
    ended_at timestamptz not null,
    ttft_ms bigint,
    input_tokens bigint not null check (input_tokens >= 0),
    cached_tokens bigint not null check (cached_tokens >= 0),
    cache_write_tokens bigint not null check (cache_write_tokens >= 0),
    output_tokens bigint not null check (output_tokens >= 0),
    reasoning_tokens bigint not null check (reasoning_tokens >= 0),
    cost_nano_usd bigint check (cost_nano_usd >= 0), -- null: no price is known
    price_version text not null,
    service_tier text not null,
    attempts jsonb not null,
    warnings jsonb not null
);
create index ledger_started on ledger (started_at);
create index ledger_session on ledger (session) where session <> '';

-- Sums of the rows by hour, moved in the transaction that inserts them; `headgate audit` recomputes them.
create table by_hour (
    hour timestamptz not null,
    node_id text not null,
    account text not null,
    key_id text not null,
    model text not null,
    upstream text not null,
    outcome text not null,
    requests bigint not null,
    unpriced bigint not null,
    input_tokens bigint not null,
    cached_tokens bigint not null,
    cache_write_tokens bigint not null,
    output_tokens bigint not null,
    reasoning_tokens bigint not null,
    cost_nano_usd numeric(30) not null,
    primary key (hour, node_id, account, key_id, model, upstream, outcome)
);
-- The same of rows that were deleted for their age, so that these and the rows make the sums.
create table pruned_hour (like by_hour including all);
