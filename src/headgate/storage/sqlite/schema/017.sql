-- Views of the log that people of the console have saved: the query of a page, by a name of their own.
create table views (
    user_id text not null,
    name text not null check (name <> ''),
    query text not null,
    primary key (user_id, name)
) strict, without rowid;
