-- What is masked in the requests of a key before they leave, as `email,card`; empty: nothing.
alter table keys add column mask text not null default '';
