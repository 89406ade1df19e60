-- Which pepper the keys were hashed with, so that another one is refused and not taken for wrong keys.
create table pepper (
    one integer primary key check (one = 1),
    fingerprint blob not null check (length(fingerprint) = 32) -- an HMAC; the pepper is not in it
) strict;
