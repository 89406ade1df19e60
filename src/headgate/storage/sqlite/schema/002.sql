-- The ledger: one row per exchange, for ever.  Money is whole nano-dollars, times are Unix seconds.
create table ledger (
    seq integer primary key, -- without gaps: nothing is ever deleted
    id text not null unique,
    account text not null,
    key text not null,
    session text not null,
    dialect text not null,
    model text not null,
    upstream text not null,
    upstream_model text not null,
    stream integer not null check (stream in (0, 1)),
    outcome text not null,
    basis text not null check (basis in ('upstream', 'partial', 'estimated', 'none', 'recovered')),
    status integer not null,
    began_s real not null,
    first_token_ms integer, -- null: there was none
    total_ms integer not null,
    input integer not null check (input >= 0), -- includes cached and cache_write
    cached integer not null check (cached >= 0),
    cache_write integer not null check (cache_write >= 0),
    output integer not null check (output >= 0), -- includes reasoning
    reasoning integer not null check (reasoning >= 0),
    cost_nano integer check (cost_nano >= 0), -- null: no price is known
    price_version text not null,
    service_tier text not null,
    attempts text not null check (json_valid(attempts)),
    warnings text not null check (json_valid(warnings))
) strict;
create index ledger_began on ledger (began_s);
create index ledger_session on ledger (session) where session <> '';

create trigger ledger_keeps_rows before delete on ledger begin
    select raise(abort, 'the ledger is append-only');
end;
create trigger ledger_keeps_figures before update on ledger begin
    select raise(abort, 'the ledger is append-only');
end;

-- Exchanges that may have reached an upstream and have no row yet.  `boot` is the process.
create table open_mark (
    id text primary key,
    boot text not null,
    mark text not null check (json_valid(mark))
) strict, without rowid;

-- Sums over the ledger, kept by its trigger and so never apart from it; `audit` recomputes them.
create table by_hour (
    hour integer not null, -- Unix seconds / 3600
    key text not null,
    model text not null,
    upstream text not null,
    requests integer not null,
    unpriced integer not null, -- of the requests: those without a known price
    input integer not null,
    cached integer not null,
    cache_write integer not null,
    output integer not null,
    reasoning integer not null,
    cost_nano integer not null,
    primary key (hour, key, model, upstream)
) strict, without rowid;
create table by_session (
    hour integer not null,
    session text not null, -- '': the client named none
    key text not null,
    requests integer not null,
    unpriced integer not null,
    input integer not null,
    cached integer not null,
    cache_write integer not null,
    output integer not null,
    reasoning integer not null,
    cost_nano integer not null,
    primary key (hour, session, key)
) strict, without rowid;
create table balance (
    account text not null,
    key text not null,
    requests integer not null,
    unpriced integer not null,
    spent_nano integer not null,
    primary key (account, key)
) strict, without rowid;

create trigger ledger_sums after insert on ledger begin
    insert into by_hour values (
        cast(new.began_s as integer) / 3600, new.key, new.model, new.upstream,
        1, new.cost_nano is null, new.input, new.cached, new.cache_write, new.output,
        new.reasoning, coalesce(new.cost_nano, 0)
    ) on conflict do update set
        requests = requests + 1,
        unpriced = unpriced + excluded.unpriced,
        input = input + excluded.input,
        cached = cached + excluded.cached,
        cache_write = cache_write + excluded.cache_write,
        output = output + excluded.output,
        reasoning = reasoning + excluded.reasoning,
        cost_nano = cost_nano + excluded.cost_nano;
    insert into by_session values (
        cast(new.began_s as integer) / 3600, new.session, new.key,
        1, new.cost_nano is null, new.input, new.cached, new.cache_write, new.output,
        new.reasoning, coalesce(new.cost_nano, 0)
    ) on conflict do update set
        requests = requests + 1,
        unpriced = unpriced + excluded.unpriced,
        input = input + excluded.input,
        cached = cached + excluded.cached,
        cache_write = cache_write + excluded.cache_write,
        output = output + excluded.output,
        reasoning = reasoning + excluded.reasoning,
        cost_nano = cost_nano + excluded.cost_nano;
    insert into balance values (
        new.account, new.key, 1, new.cost_nano is null, coalesce(new.cost_nano, 0)
    ) on conflict do update set
        requests = requests + 1,
        unpriced = unpriced + excluded.unpriced,
        spent_nano = spent_nano + excluded.spent_nano;
end;

-- Counts the changes of keys, so that a gateway reads them anew then, and not with every row.
create table key_changes (n integer not null) strict;
insert into key_changes values (0);
create trigger keys_made after insert on keys begin update key_changes set n = n + 1; end;
create trigger keys_changed after update on keys begin update key_changes set n = n + 1; end;
create trigger keys_gone after delete on keys begin update key_changes set n = n + 1; end;
