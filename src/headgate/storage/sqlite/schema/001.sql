-- API keys: public id and HMAC; the secret itself is nowhere.  Times are Unix seconds.
create table keys (
    id text primary key,
    name text not null,
    mac blob not null check (length(mac) = 32),
    created_s real not null,
    expires_s real,
    revoked_s real,
    models text not null default '[]' -- JSON list of catalog ids; empty: all
) strict;
