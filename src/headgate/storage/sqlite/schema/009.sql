-- From which networks a key may be used, as a JSON list of CIDRs; empty: from any.
alter table keys add column allowed_cidrs text not null default '[]';
