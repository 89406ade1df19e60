-- What becomes of an exchange whose client hangs up: its upstream is left, or heard to the end.
alter table keys add column on_hang_up text not null default 'cancel'
    check (on_hang_up in ('cancel', 'drain'));
