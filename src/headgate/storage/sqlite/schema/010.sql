-- The ledger's columns, and other names, as they stay: request_id, key_id, started_at, input_tokens
-- and so on; intents; on_disconnect; audit_log.  Times are Unix seconds, money is nano-dollars (10^-9 USD).
drop trigger ledger_keeps_rows;
drop trigger ledger_keeps_figures;
drop trigger ledger_sums;
drop trigger ledger_pruned;
drop trigger by_hour_begins;
drop trigger changes_stay;
drop trigger changes_stay_so;

alter table by_hour rename column key to key_id;
alter table by_hour rename column input to input_tokens;
alter table by_hour rename column cached to cached_tokens;
alter table by_hour rename column cache_write to cache_write_tokens;
alter table by_hour rename column output to output_tokens;
alter table by_hour rename column reasoning to reasoning_tokens;
alter table by_hour rename column cost_nano to cost_nano_usd;
alter table by_hour rename column first_token_ms to ttft_ms;
alter table pruned_hour rename column key to key_id;
alter table pruned_hour rename column input to input_tokens;
alter table pruned_hour rename column cached to cached_tokens;
alter table pruned_hour rename column cache_write to cache_write_tokens;
alter table pruned_hour rename column output to output_tokens;
alter table pruned_hour rename column reasoning to reasoning_tokens;
alter table pruned_hour rename column cost_nano to cost_nano_usd;
alter table pruned_hour rename column first_token_ms to ttft_ms;
alter table by_session rename column key to key_id;
alter table by_session rename column input to input_tokens;
alter table by_session rename column cached to cached_tokens;
alter table by_session rename column cache_write to cache_write_tokens;
alter table by_session rename column output to output_tokens;
alter table by_session rename column reasoning to reasoning_tokens;
alter table by_session rename column cost_nano to cost_nano_usd;
alter table pruned_session rename column key to key_id;
alter table pruned_session rename column input to input_tokens;
alter table pruned_session rename column cached to cached_tokens;
alter table pruned_session rename column cache_write to cache_write_tokens;
alter table pruned_session rename column output to output_tokens;
alter table pruned_session rename column reasoning to reasoning_tokens;
alter table pruned_session rename column cost_nano to cost_nano_usd;
alter table balance rename column key to key_id;
alter table balance rename column spent_nano to spent_nano_usd;
alter table pruned_balance rename column key to key_id;
alter table pruned_balance rename column spent_nano to spent_nano_usd;
alter table keys rename column on_hang_up to on_disconnect;
alter table keys rename column family to rotation_group;
alter table changes rename to audit_log;

create table renamed (
    seq integer primary key, -- without gaps; rows go only as `retention` allows
    request_id text not null unique,
    key_id text not null,
    account text not null,
    session text not null,
    user text not null, -- the end user that the client named
    tags text not null check (json_valid(tags)),
    dialect text not null,
    model text not null,
    upstream text not null,
    upstream_model text not null,
    stream integer not null check (stream in (0, 1)),
    outcome text not null,
    basis text not null check (basis in ('upstream', 'disputed', 'partial', 'estimated', 'none', 'recovered')),
    status integer not null,
    started_at real not null,
    ended_at real not null,
    ttft_ms integer, -- time to the first token; null: there was none
    input_tokens integer not null check (input_tokens >= 0), -- includes cached and cache writes
    cached_tokens integer not null check (cached_tokens >= 0),
    cache_write_tokens integer not null check (cache_write_tokens >= 0),
    output_tokens integer not null check (output_tokens >= 0), -- includes reasoning
    reasoning_tokens integer not null check (reasoning_tokens >= 0),
    cost_nano_usd integer check (cost_nano_usd >= 0), -- null: no price is known
    price_version text not null,
    service_tier text not null,
    attempts text not null check (json_valid(attempts)),
    warnings text not null check (json_valid(warnings))
) strict;
insert into renamed
    select seq, id, key, account, session, '', '[]', dialect, model, upstream, upstream_model, stream,
        outcome, basis, status, began_s, began_s + total_ms / 1000.0, first_token_ms, input, cached,
        cache_write, output, reasoning, cost_nano, price_version, service_tier, attempts, warnings
    from ledger order by seq;
drop table ledger;
alter table renamed rename to ledger;
create index ledger_started on ledger (started_at);
create index ledger_session on ledger (session) where session <> '';
create index ledger_log on ledger (seq, account, key_id, model, upstream, outcome);

-- Exchanges that may have reached an upstream and have no row yet; of which process (its instance).
create table intents (
    request_id text primary key,
    instance_id text not null,
    intent text not null check (json_valid(intent))
) strict, without rowid;
insert into intents
    select id, boot, json_object(
        'request_id', id, 'key_id', mark ->> 'key', 'account', mark ->> 'account',
        'session', mark ->> 'session', 'dialect', mark ->> 'dialect', 'model', mark ->> 'model',
        'upstream', mark ->> 'upstream', 'upstream_model', mark ->> 'upstream_model',
        'stream', json(mark -> 'stream'), 'started_at', mark ->> 'began_s',
        'input_tokens', mark ->> 'input', 'output_tokens', mark ->> 'output',
        'cost_nano_usd', mark ->> 'cost_nano', 'price_version', mark ->> 'price_version',
        'service_tier', mark ->> 'service_tier',
        'owner', coalesce(mark ->> 'payer', ''), 'reserved_nano', coalesce(mark ->> 'reserved_nano', 0))
    from open_mark;
drop table open_mark;

create trigger audit_log_keeps_rows before delete on audit_log begin
    select raise(abort, 'the audit log is append-only');
end;
create trigger audit_log_keeps_entries before update on audit_log begin
    select raise(abort, 'the audit log is append-only');
end;
create trigger by_hour_begins after insert on by_hour begin
    insert into known values
        ('model', new.model), ('upstream', new.upstream), ('outcome', new.outcome)
        on conflict do nothing;
end;
create trigger ledger_keeps_figures before update on ledger begin
    select raise(abort, 'the ledger is append-only');
end;
create trigger ledger_keeps_rows before delete on ledger
when old.started_at >= coalesce((select before_s from retention), 0)
    or old.seq = (select max(seq) from ledger) -- or its number would be given again
begin
    select raise(abort, 'the ledger is append-only');
end;
create trigger ledger_sums after insert on ledger begin
    insert into by_hour values (
        cast(new.started_at as integer) / 3600, new.account, new.key_id, new.model, new.upstream, new.outcome,
        1, new.cost_nano_usd is null, new.input_tokens, new.cached_tokens,
        new.cache_write_tokens, new.output_tokens, new.reasoning_tokens, coalesce(new.cost_nano_usd, 0),
        coalesce(new.ttft_ms, 0), new.ttft_ms is not null,
        coalesce(max(cast(round((new.ended_at - new.started_at) * 1000) as integer) - new.ttft_ms, 0), 0),
        new.seq, new.seq
    ) on conflict do update set
        requests = requests + excluded.requests,
        unpriced = unpriced + excluded.unpriced,
        input_tokens = input_tokens + excluded.input_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens,
        cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        cost_nano_usd = cost_nano_usd + excluded.cost_nano_usd,
        ttft_ms = ttft_ms + excluded.ttft_ms,
        first_tokens = first_tokens + excluded.first_tokens,
        stream_ms = stream_ms + excluded.stream_ms,
        last_seq = excluded.last_seq; -- rows come in the order of seq
    insert into by_session values (
        cast(new.started_at as integer) / 3600, new.session, new.account, new.key_id,
        1, new.cost_nano_usd is null, new.input_tokens, new.cached_tokens,
        new.cache_write_tokens, new.output_tokens, new.reasoning_tokens, coalesce(new.cost_nano_usd, 0)
    ) on conflict do update set
        requests = requests + excluded.requests,
        unpriced = unpriced + excluded.unpriced,
        input_tokens = input_tokens + excluded.input_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens,
        cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        cost_nano_usd = cost_nano_usd + excluded.cost_nano_usd;
    insert into balance values (
        new.account, new.key_id, 1, new.cost_nano_usd is null, coalesce(new.cost_nano_usd, 0)
    ) on conflict do update set
        requests = requests + 1,
        unpriced = unpriced + excluded.unpriced,
        spent_nano_usd = spent_nano_usd + excluded.spent_nano_usd;
end;
create trigger ledger_pruned after delete on ledger begin
    insert into pruned_hour values (
        cast(old.started_at as integer) / 3600, old.account, old.key_id, old.model, old.upstream, old.outcome,
        1, old.cost_nano_usd is null, old.input_tokens, old.cached_tokens,
        old.cache_write_tokens, old.output_tokens, old.reasoning_tokens, coalesce(old.cost_nano_usd, 0),
        coalesce(old.ttft_ms, 0), old.ttft_ms is not null,
        coalesce(max(cast(round((old.ended_at - old.started_at) * 1000) as integer) - old.ttft_ms, 0), 0),
        old.seq, old.seq
    ) on conflict do update set
        requests = requests + excluded.requests,
        unpriced = unpriced + excluded.unpriced,
        input_tokens = input_tokens + excluded.input_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens,
        cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        cost_nano_usd = cost_nano_usd + excluded.cost_nano_usd,
        ttft_ms = ttft_ms + excluded.ttft_ms,
        first_tokens = first_tokens + excluded.first_tokens,
        stream_ms = stream_ms + excluded.stream_ms,
        first_seq = min(first_seq, excluded.first_seq),
        last_seq = max(last_seq, excluded.last_seq);
    insert into pruned_session values (
        cast(old.started_at as integer) / 3600, old.session, old.account, old.key_id,
        1, old.cost_nano_usd is null, old.input_tokens, old.cached_tokens,
        old.cache_write_tokens, old.output_tokens, old.reasoning_tokens, coalesce(old.cost_nano_usd, 0)
    ) on conflict do update set
        requests = requests + excluded.requests,
        unpriced = unpriced + excluded.unpriced,
        input_tokens = input_tokens + excluded.input_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens,
        cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,
        output_tokens = output_tokens + excluded.output_tokens,
        reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
        cost_nano_usd = cost_nano_usd + excluded.cost_nano_usd;
    insert into pruned_balance values (
        old.account, old.key_id, 1, old.cost_nano_usd is null, coalesce(old.cost_nano_usd, 0)
    ) on conflict do update set
        requests = requests + 1,
        unpriced = unpriced + excluded.unpriced,
        spent_nano_usd = spent_nano_usd + excluded.spent_nano_usd;
end;
