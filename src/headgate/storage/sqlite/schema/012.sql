-- Which routes the requests of a key may take, as `sort=price; only=a,b; ignore=c; regions=own`; empty: any.
alter table keys add column routing text not null default '';
