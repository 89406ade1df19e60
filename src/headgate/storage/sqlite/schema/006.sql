-- Accounts, of which keys are part; sums by account and outcome, with times; the request log's
-- indices; and rows that may go while their sums stay.  Times are Unix seconds.
create table accounts (
    id text primary key check (id <> '' and id not glob '*[^a-z0-9-]*'),
    name text not null,
    created_s real not null,
    closed_s real, -- its keys open nothing from then on
    budget_nano integer check (budget_nano >= 0), -- of all its keys together; null: none
    budget_period text not null default 'total' check (budget_period in ('total', 'day', 'month')),
    budget_zone text not null default 'UTC'
) strict;
create trigger accounts_made after insert on accounts begin update key_changes set n = n + 1; end;
create trigger accounts_changed after update on accounts begin update key_changes set n = n + 1; end;
create trigger accounts_gone after delete on accounts begin update key_changes set n = n + 1; end;
alter table keys add column account text not null default ''; -- '': of none

-- What the request log is filtered by, in the order of the ledger: it only ever grows at its end, where
-- an index of each column would write a page of each for every row.
create index ledger_log on ledger (seq, account, key, model, upstream, outcome);

drop trigger ledger_sums;
drop table by_hour;
create table by_hour (
    hour integer not null, -- Unix seconds / 3600
    account text not null,
    key text not null,
    model text not null,
    upstream text not null,
    outcome text not null, -- so that what an error is need not be decided here
    requests integer not null,
    unpriced integer not null, -- of the requests: those without a known price
    input integer not null,
    cached integer not null,
    cache_write integer not null,
    output integer not null,
    reasoning integer not null,
    cost_nano integer not null,
    first_token_ms integer not null, -- of those requests that had a first token
    first_tokens integer not null, -- how many had
    stream_ms integer not null, -- from the first token to the end
    first_seq integer not null, -- in which part of the ledger they are
    last_seq integer not null,
    primary key (hour, account, key, model, upstream, outcome)
) strict, without rowid;
-- The names there are, also of rows that have gone; an hour's sums begin seldom.
create table known (
    what text not null check (what in ('model', 'upstream', 'outcome')),
    name text not null,
    primary key (what, name)
) strict, without rowid;
create trigger by_hour_begins after insert on by_hour begin
    insert into known values
        ('model', new.model), ('upstream', new.upstream), ('outcome', new.outcome)
        on conflict do nothing;
end;
drop table by_session;
create table by_session (
    hour integer not null,
    session text not null, -- '': the client named none
    account text not null,
    key text not null,
    requests integer not null,
    unpriced integer not null,
    input integer not null,
    cached integer not null,
    cache_write integer not null,
    output integer not null,
    reasoning integer not null,
    cost_nano integer not null,
    primary key (hour, session, account, key)
) strict, without rowid;

insert into by_hour
    select cast(began_s as integer) / 3600, account, key, model, upstream, outcome,
        count(*), sum(cost_nano is null), sum(input), sum(cached), sum(cache_write), sum(output),
        sum(reasoning), sum(coalesce(cost_nano, 0)), sum(coalesce(first_token_ms, 0)),
        count(first_token_ms), sum(coalesce(max(total_ms - first_token_ms, 0), 0)),
        min(seq), max(seq)
    from ledger group by 1, 2, 3, 4, 5, 6;
insert into by_session
    select cast(began_s as integer) / 3600, session, account, key,
        count(*), sum(cost_nano is null), sum(input), sum(cached), sum(cache_write), sum(output),
        sum(reasoning), sum(coalesce(cost_nano, 0))
    from ledger group by 1, 2, 3, 4;

create trigger ledger_sums after insert on ledger begin
    insert into by_hour values (
        cast(new.began_s as integer) / 3600, new.account, new.key, new.model, new.upstream,
        new.outcome, 1, new.cost_nano is null, new.input, new.cached, new.cache_write, new.output,
        new.reasoning, coalesce(new.cost_nano, 0), coalesce(new.first_token_ms, 0),
        new.first_token_ms is not null, coalesce(max(new.total_ms - new.first_token_ms, 0), 0),
        new.seq, new.seq
    ) on conflict do update set
        requests = requests + 1,
        unpriced = unpriced + excluded.unpriced,
        input = input + excluded.input,
        cached = cached + excluded.cached,
        cache_write = cache_write + excluded.cache_write,
        output = output + excluded.output,
        reasoning = reasoning + excluded.reasoning,
        cost_nano = cost_nano + excluded.cost_nano,
        first_token_ms = first_token_ms + excluded.first_token_ms,
        first_tokens = first_tokens + excluded.first_tokens,
        stream_ms = stream_ms + excluded.stream_ms,
        last_seq = excluded.last_seq; -- rows come in the order of seq
    insert into by_session values (
        cast(new.began_s as integer) / 3600, new.session, new.account, new.key,
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

-- Retention.  A row may be deleted only in a transaction that says how old it must be, and says
-- 0 again at its end; what is deleted is added to these, so that rows and these make the sums.
create table retention (
    one integer primary key check (one = 1),
    before_s integer not null check (before_s % 86400 = 0), -- whole days, UTC; 0: none may go
    gone_s integer not null check (gone_s % 86400 = 0) -- what began before this may have gone
) strict;
insert into retention values (1, 0, 0);
drop trigger ledger_keeps_rows;
create trigger ledger_keeps_rows before delete on ledger
when old.began_s >= coalesce((select before_s from retention), 0)
    or old.seq = (select max(seq) from ledger) -- or its number would be given again
begin
    select raise(abort, 'the ledger is append-only');
end;

create table pruned_hour (
    hour integer not null,
    account text not null,
    key text not null,
    model text not null,
    upstream text not null,
    outcome text not null,
    requests integer not null,
    unpriced integer not null,
    input integer not null,
    cached integer not null,
    cache_write integer not null,
    output integer not null,
    reasoning integer not null,
    cost_nano integer not null,
    first_token_ms integer not null,
    first_tokens integer not null,
    stream_ms integer not null,
    first_seq integer not null,
    last_seq integer not null,
    primary key (hour, account, key, model, upstream, outcome)
) strict, without rowid;
create table pruned_session (
    hour integer not null,
    session text not null,
    account text not null,
    key text not null,
    requests integer not null,
    unpriced integer not null,
    input integer not null,
    cached integer not null,
    cache_write integer not null,
    output integer not null,
    reasoning integer not null,
    cost_nano integer not null,
    primary key (hour, session, account, key)
) strict, without rowid;
create table pruned_balance (
    account text not null,
    key text not null,
    requests integer not null,
    unpriced integer not null,
    spent_nano integer not null,
    primary key (account, key)
) strict, without rowid;

create trigger ledger_pruned after delete on ledger begin
    insert into pruned_hour values (
        cast(old.began_s as integer) / 3600, old.account, old.key, old.model, old.upstream,
        old.outcome, 1, old.cost_nano is null, old.input, old.cached, old.cache_write, old.output,
        old.reasoning, coalesce(old.cost_nano, 0), coalesce(old.first_token_ms, 0),
        old.first_token_ms is not null, coalesce(max(old.total_ms - old.first_token_ms, 0), 0),
        old.seq, old.seq
    ) on conflict do update set
        requests = requests + 1,
        unpriced = unpriced + excluded.unpriced,
        input = input + excluded.input,
        cached = cached + excluded.cached,
        cache_write = cache_write + excluded.cache_write,
        output = output + excluded.output,
        reasoning = reasoning + excluded.reasoning,
        cost_nano = cost_nano + excluded.cost_nano,
        first_token_ms = first_token_ms + excluded.first_token_ms,
        first_tokens = first_tokens + excluded.first_tokens,
        stream_ms = stream_ms + excluded.stream_ms,
        first_seq = min(first_seq, excluded.first_seq),
        last_seq = max(last_seq, excluded.last_seq);
    insert into pruned_session values (
        cast(old.began_s as integer) / 3600, old.session, old.account, old.key,
        1, old.cost_nano is null, old.input, old.cached, old.cache_write, old.output,
        old.reasoning, coalesce(old.cost_nano, 0)
    ) on conflict do update set
        requests = requests + 1,
        unpriced = unpriced + excluded.unpriced,
        input = input + excluded.input,
        cached = cached + excluded.cached,
        cache_write = cache_write + excluded.cache_write,
        output = output + excluded.output,
        reasoning = reasoning + excluded.reasoning,
        cost_nano = cost_nano + excluded.cost_nano;
    insert into pruned_balance values (
        old.account, old.key, 1, old.cost_nano is null, coalesce(old.cost_nano, 0)
    ) on conflict do update set
        requests = requests + 1,
        unpriced = unpriced + excluded.unpriced,
        spent_nano = spent_nano + excluded.spent_nano;
end;
