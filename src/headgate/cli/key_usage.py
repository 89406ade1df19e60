"""`headgate keys usage`: what each key has used, and how much of its budget is left."""

import time

import click
import msgspec

from headgate.cli.ledgers import Ledgers, ledgers, which_ledger
from headgate.cli.options import (
    Duration,
    as_json,
    places,
    print_json,
    print_table,
    settings_of,
    store_of,
)
from headgate.policy import periods
from headgate.policy.keys import KEY_STATES, Key, KeyState
from headgate.policy.pricing import usd
from headgate.storage.figures import Spent, Where

_TITLES = (
    *("id", "name", "state", "requests", "input", "output", "cost (USD)"),
    *("budget (USD)", "left (USD)"),
)


class KeyUsage(msgspec.Struct, frozen=True):
    """Holds what one key has used; the budget is that of the key together with its rotations."""

    id: str
    name: str
    state: KeyState
    requests: int
    unpriced: int
    input_tokens: int
    output_tokens: int
    cost_usd: str
    budget_usd: str | None  # None: it has none of its own
    budget_period: str | None
    budget_left_usd: str | None  # in the present period


@click.command("usage")
@click.argument("id", required=False)
@click.option("--since", type=Duration(), help="How far back: 7d, 12h; everything without it.")
@which_ledger
@places
@as_json
def command(
    id: str | None,
    since: float | None,
    all_nodes: bool,
    this_node: bool,
    config_file: str | None,
    data: str | None,
    json_: bool,
) -> None:
    """Show what each key has used, and what is left of its budget; with ID, of one key.

    What is left is that of the present period, whatever --since is. By model, day or session:
    headgate usage --key ID --by model.
    """
    settings = settings_of(config_file, data=data)
    now_s = time.time()
    with store_of(settings) as store:
        keys, accounts = store.keys(), {a.id: a for a in store.accounts()}
    shown = [k for k in keys if id in (None, k.id)]
    if id is not None and not shown:
        raise click.ClickException(f"no key has the id `{id}`; see: headgate keys list")
    if not shown:
        click.echo("No keys yet: headgate keys create NAME", err=True)
        if json_:
            print_json([])
        else:
            print_table(_TITLES, [])
        return
    with ledgers(settings, all_nodes, this_node) as ledger:
        since_s = now_s - since if since is not None else 0.0
        sums = {s.name: s for s in ledger.reports.usage("key", since_s, where=Where(key_id=id))}
        left = _left(ledger, keys, shown, now_s)
    rows = [
        _usage(k, k.state(accounts.get(k.account), now_s), sums.get(k.id), left[k.id])
        for k in shown
    ]
    if json_:
        print_json(rows)
    else:
        print_table(_TITLES, [_cells(r) for r in rows])


def _left(
    ledger: Ledgers, keys: list[Key], shown: list[Key], now_s: float
) -> dict[str, int | None]:
    """Return the nano-dollars that are left of each budget; None where there is no budget."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(key.owner, []).append(key.id)
    budgets = {k.id: periods.written_on(k) for k in shown}
    begins = {id: periods.begins_s(b, now_s) for id, b in budgets.items() if b is not None}
    spent = ledger.reports.spent([("key", at_s) for at_s in sorted(set(begins.values()))])
    left: dict[str, int | None] = {}
    for key in shown:
        budget = budgets[key.id]
        if budget is None:
            left[key.id] = None
            continue
        since_begin = spent["key", begins[key.id]]
        left[key.id] = max(0, budget.nano - sum(since_begin.get(id, 0) for id in groups[key.owner]))
    return left


def _usage(key: Key, state: KeyState, sums: Spent | None, left: int | None) -> KeyUsage:
    return KeyUsage(
        key.id,
        key.name,
        state,
        sums.requests if sums else 0,
        sums.unpriced if sums else 0,
        sums.input_tokens if sums else 0,
        sums.output_tokens if sums else 0,
        usd(sums.cost_nano_usd if sums else 0),
        None if key.budget_nano is None else usd(key.budget_nano),
        None if key.budget_nano is None else key.budget_period,
        None if left is None else usd(left),
    )


def _cells(row: KeyUsage) -> tuple[str, ...]:
    per = "" if row.budget_period in (None, "total") else f" a {row.budget_period}"
    return (
        row.id,
        row.name,
        KEY_STATES[row.state],
        *(f"{n:,}" for n in (row.requests, row.input_tokens, row.output_tokens)),
        row.cost_usd,
        "" if row.budget_usd is None else row.budget_usd + per,
        row.budget_left_usd or "",
    )
