-- One basis more: `disputed`, of an upstream's report above what its request allowed.
-- A check that only allows more needs no copy of the table: "Making changes to CHECK constraints ...
-- that do not affect the on-disk content" may be done in the schema itself (sqlite.org/lang_altertable.html,
-- section 7, read 2026-11-30).  The table that comes and goes changes the schema's version, so that other
-- connections read it anew; the reset makes this one do so.
create table schema_turn (one integer) strict;
pragma writable_schema = on;
update sqlite_schema
    set sql = replace(sql, '''upstream'', ''partial''', '''upstream'', ''disputed'', ''partial''')
    where type = 'table' and name = 'ledger';
pragma writable_schema = reset;
drop table schema_turn;
