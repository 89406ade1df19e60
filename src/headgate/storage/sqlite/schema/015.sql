-- With `database`: through which database the rows of keys, accounts, people and the audit log are shared
-- with other nodes, and how new the copy of them here is.  No row: they are this directory's own.
create table shared (
    one integer primary key check (one = 1),
    cluster text not null,
    version integer not null
) strict;
