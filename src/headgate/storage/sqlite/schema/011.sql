-- Models that the operator has entered in the console, the admin API or the command line; `settings` is
-- JSON with the fields of `[models.NAME]` in headgate.toml.
create table own_models (
    id text primary key not null check (id <> ''),
    settings text not null,
    changed_s real not null
) strict;
create trigger own_models_made after insert on own_models begin update key_changes set n = n + 1; end;
create trigger own_models_changed after update on own_models begin update key_changes set n = n + 1; end;
create trigger own_models_gone after delete on own_models begin update key_changes set n = n + 1; end;
-- How much models think for requests of this key that name no effort; empty: as the model says.
alter table keys add column effort text not null default '';
