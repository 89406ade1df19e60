-- What the reports of all nodes are made of: times and places in the sums by hour, sums by session, and sums
-- over all time by everything that has few values, of which the names are read too.
alter table by_hour
    add column ttft_ms bigint not null default 0, -- of those requests that had a first token
    add column first_tokens bigint not null default 0, -- how many had
    add column stream_ms bigint not null default 0, -- from the first token to the end
    add column first_seq bigint not null default 0, -- in which part of the ledger they are
    add column last_seq bigint not null default 0;
alter table pruned_hour
    add column ttft_ms bigint not null default 0,
    add column first_tokens bigint not null default 0,
    add column stream_ms bigint not null default 0,
    add column first_seq bigint not null default 0,
    add column last_seq bigint not null default 0;
update by_hour b set ttft_ms = r.ttft_ms, first_tokens = r.first_tokens, stream_ms = r.stream_ms,
        -- Of rows that were deleted before, neither times nor places are known.
        first_seq = case when exists (select from pruned_hour p
            where (p.hour, p.node_id, p.account, p.key_id, p.model, p.upstream, p.outcome)
                = (b.hour, b.node_id, b.account, b.key_id, b.model, b.upstream, b.outcome))
            then 0 else r.first_seq end,
        last_seq = r.last_seq
    from (
        select date_trunc('hour', started_at, 'UTC') as hour, node_id, account, key_id, model, upstream, outcome,
            sum(coalesce(ttft_ms, 0)) as ttft_ms, count(ttft_ms) as first_tokens,
            sum(coalesce(greatest(round(extract(epoch from ended_at - started_at) * 1000)::bigint - ttft_ms, 0), 0))
                as stream_ms,
            min(seq) as first_seq, max(seq) as last_seq
        from ledger group by 1, 2, 3, 4, 5, 6, 7
    ) r
    where (b.hour, b.node_id, b.account, b.key_id, b.model, b.upstream, b.outcome)
        = (r.hour, r.node_id, r.account, r.key_id, r.model, r.upstream, r.outcome);
-- Without defaults: a node of an older version, which would leave the new sums out, is refused, and its rows
-- wait in its data directory until it is upgraded.
alter table by_hour
    alter column ttft_ms drop default, alter column first_tokens drop default, alter column stream_ms drop default,
    alter column first_seq drop default, alter column last_seq drop default;
alter table pruned_hour
    alter column ttft_ms drop default, alter column first_tokens drop default, alter column stream_ms drop default,
    alter column first_seq drop default, alter column last_seq drop default;

create table by_session (
    hour timestamptz not null,
    node_id text not null,
    session text not null, -- '': the client named none
    account text not null,
    key_id text not null,
    requests bigint not null,
    unpriced bigint not null,
    input_tokens bigint not null,
    cached_tokens bigint not null,
    cache_write_tokens bigint not null,
    output_tokens bigint not null,
    reasoning_tokens bigint not null,
    cost_nano_usd numeric(30) not null,
    primary key (hour, node_id, session, account, key_id)
);
create table pruned_session (like by_session including all);
insert into by_session
    select date_trunc('hour', started_at, 'UTC'), node_id, session, account, key_id, count(*),
        count(*) - count(cost_nano_usd), sum(input_tokens), sum(cached_tokens), sum(cache_write_tokens),
        sum(output_tokens), sum(reasoning_tokens), coalesce(sum(cost_nano_usd), 0)
    from ledger group by 1, 2, 3, 4, 5;

create table totals (
    node_id text not null,
    account text not null,
    key_id text not null,
    model text not null,
    upstream text not null,
    outcome text not null,
    requests bigint not null,
    unpriced bigint not null,
    cost_nano_usd numeric(30) not null,
    primary key (node_id, account, key_id, model, upstream, outcome)
);
insert into totals
    select node_id, account, key_id, model, upstream, outcome, sum(requests), sum(unpriced), sum(cost_nano_usd)
    from by_hour group by 1, 2, 3, 4, 5, 6;

-- The log is read from its end, filtered by one of these.
create index ledger_key on ledger (key_id, seq);
create index ledger_account on ledger (account, seq);
create index ledger_model on ledger (model, seq);
create index ledger_upstream on ledger (upstream, seq);
create index ledger_outcome on ledger (outcome, seq);
create index ledger_node on ledger (node_id, seq);

-- What each node is called, also when it was forgotten: its rows stay.
create table node_names (
    node_id text primary key,
    name text not null
);
insert into node_names select node_id, name from nodes;
-- How far the node's clock is ahead of the database's, so that pages can say it.
alter table nodes add column clock_ahead_s double precision not null default 0;
