-- Budgets over all nodes.  A node may spend and reserve up to its lease of an owner's period, in which what
-- is spent counts too; the leases of a period are never more than its budget.  Money is nano-dollars.
create table allowances (
    what text not null check (what in ('key', 'account')),
    owner text not null,
    period text not null, -- its kind, zone and first day
    since timestamptz not null,
    until timestamptz, -- null: it never ends
    primary key (what, owner, period)
);
create table leases (
    what text not null,
    owner text not null,
    period text not null,
    node_id text not null,
    granted bigint not null check (granted >= used),
    used bigint not null check (used >= spent), -- spent and reserved, as the node last reported
    spent bigint not null check (spent >= 0),
    renewed_at timestamptz not null default now(),
    primary key (what, owner, period, node_id),
    foreign key (what, owner, period) references allowances on delete cascade
);
create index leases_of_node on leases (node_id);

-- Which process speaks for a node: a later one takes the place of the one before, which is refused from then on.
create table leasing_nodes (
    node_id text primary key,
    process text not null
);

-- What each node has spent of an owner's budget, as far as its rows are here.
create function spent_by_node(what text, owner text, since timestamptz, until timestamptz)
returns table (node_id text, nano bigint) language sql stable as $$
    with mine as (
        select id from headgate.shared_rows
        where what = 'key' and kind = 'keys' and (id = owner or "row" ->> 'rotation_group' = owner)
    ), hours as (
        select date_trunc('hour', since + interval '59 minutes 59.999999 seconds', 'UTC') as first,
            coalesce(date_trunc('hour', until, 'UTC'), 'infinity') as last
    ), parts as (
        select b.node_id, b.cost_nano_usd as cost from headgate.by_hour b, hours
        where b.hour >= hours.first and b.hour < hours.last
            and (what = 'account' and b.account = owner or b.key_id in (select id from mine))
        union all
        select l.node_id, coalesce(l.cost_nano_usd, 0) from headgate.ledger l, hours
        where (l.started_at >= since and l.started_at < least(hours.first, coalesce(until, 'infinity'))
                or l.started_at >= greatest(hours.last, since) and l.started_at < until)
            and (what = 'account' and l.account = owner or l.key_id in (select id from mine))
    )
    select parts.node_id, sum(parts.cost)::bigint from parts group by 1
$$;
