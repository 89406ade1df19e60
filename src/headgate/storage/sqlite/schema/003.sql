-- Limits and budgets of keys.  null: no limit.  Money is whole nano-dollars.
alter table keys add column rpm integer check (rpm >= 0); -- requests a minute
alter table keys add column tpm integer check (tpm >= 0); -- tokens a minute
alter table keys add column concurrency integer check (concurrency >= 0);
alter table keys add column budget_nano integer check (budget_nano >= 0);
alter table keys add column budget_period text not null default 'total'
    check (budget_period in ('total', 'day', 'month'));
alter table keys add column budget_zone text not null default 'UTC'; -- where its days begin
-- The id of the first key of which this one is a rotation, and '' for a first one: what was spent
-- and how fast is counted for all of them together.
alter table keys add column family text not null default '';
