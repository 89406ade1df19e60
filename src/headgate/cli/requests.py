"""`headgate requests`: single rows of the ledger, as a table, JSON or CSV."""

import time
from collections.abc import Iterator, Sequence

import click
import msgspec

from headgate import csv_export
from headgate.cli.ledgers import Ledgers, ledgers, which_ledger
from headgate.cli.options import Duration, as_json, places, print_table, settings_of, when
from headgate.money import dollars
from headgate.storage.figures import Only, Where
from headgate.storage.interface import Reports
from headgate.storage.rows import COLUMNS, LedgerRow, csv_cells, shown

NEWEST = 100  # rows without --all
BATCH = 1000  # rows that are read at a time
POLL_S = 1.0  # of --follow
_TITLES = (
    "started (UTC)",
    "request",
    "key",
    "model",
    "upstream",
    "outcome",
    "status",
    "input",
    "output",
    "cost (USD)",
    "ms",
)


@click.command()
@click.option("--since", type=Duration(), help="How far back: 7d, 12h.")
@click.option("--account", help="Of one account only, by its id.")
@click.option("--key", help="Of one key only, by its id.")
@click.option("--model", help="Of one model only, by the catalog's name.")
@click.option("--upstream", help="Answered by one upstream only, by its name.")
@click.option("--session", help="Of one session only.")
@click.option("--user", help="Of one end user only, as the client named them.")
@click.option("--outcome", help="With this outcome only: stop, rate_limit, upstream.")
@click.option("--errors", is_flag=True, help="Without an answer only, but for clients that left.")
@click.option("--all", "all_", is_flag=True, help=f"All of them, not only the newest {NEWEST}.")
@click.option("--follow", is_flag=True, help="Go on with new ones as they end, until interrupted.")
@click.option("--node", help="Answered by one node only, by its name; see: headgate nodes list.")
@which_ledger
@places
@as_json
@click.option("--csv", "csv_", is_flag=True, help="Print CSV, with a line of titles.")
def command(
    since: float | None,
    account: str | None,
    key: str | None,
    model: str | None,
    upstream: str | None,
    session: str | None,
    user: str | None,
    outcome: str | None,
    errors: bool,
    all_: bool,
    follow: bool,
    node: str | None,
    all_nodes: bool,
    this_node: bool,
    config_file: str | None,
    data: str | None,
    json_: bool,
    csv_: bool,
) -> None:
    """List requests as the ledger has them, the oldest first: a line each.

    Where nodes share a database, these are the requests of all of them, in the order in which it got them.

    --json prints one JSON object a line. Neither prompts nor replies are in the ledger.
    """
    if json_ and csv_:
        raise click.UsageError("--json and --csv exclude each other.")
    if follow and all_:
        raise click.UsageError("--follow does not go with --all.")
    where = Where(
        account=account,
        key_id=key,
        model=model,
        upstream=upstream,
        session=session,
        user=user,
        outcome=outcome,
    )
    only: tuple[Only, ...] = ("errors",) if errors else ()
    since_s = time.time() - since if since is not None else 0.0
    settings = settings_of(config_file, data=data)
    with ledgers(settings, all_nodes, this_node) as ledger:
        if node is not None:
            where = msgspec.structs.replace(where, node_id=_node(ledger, node))
        reader, printed = ledger.reports, _Printed(ledger, json_, csv_)
        last = 0
        if all_:
            for rows in _everything(reader, where, only, since_s):
                printed.add(rows)
        else:
            newest = reader.requests(where, since_s=since_s, most=NEWEST, only=only)[::-1]
            last = newest[-1][0] if newest else reader.last_seq()
            printed.add([row for _, row in newest])
        if not printed.any and not follow:
            stated = where.stated().items()
            asked = " ".join([f"--{name.removesuffix('_id')} {value}" for name, value in stated])
            click.echo(f"No request matches{': ' if asked else '.'}{asked}", err=True)
        while follow:
            time.sleep(POLL_S)
            fresh = reader.requests_after(last, where, most=BATCH, only=only)
            last = fresh[-1][0] if fresh else last
            printed.add([row for _, row in fresh])


def _node(ledger: Ledgers, name: str) -> str:
    """Return the id of a node."""
    names = ledger.reports.node_names()
    if name in names:
        return name
    found = [id for id, each in names.items() if each == name]
    if not found:
        known = (
            f" there are: {', '.join(names.values())}." if names else " see: headgate nodes list"
        )
        raise click.BadParameter(f"no node is called `{name[:64]}`;{known}", param_hint="--node")
    return found[0]


def _everything(
    reader: Reports, where: Where, only: Sequence[Only], since_s: float
) -> Iterator[list[LedgerRow]]:
    last = 0
    while found := reader.requests_after(last, where, since_s=since_s, most=BATCH, only=only):
        yield [row for _, row in found]
        last = found[-1][0]


class _Printed:
    """Prints rows, with the names of their nodes."""

    def __init__(self, ledger: Ledgers, json_: bool, csv_: bool) -> None:
        self._reports, self._keys = ledger.reports, ledger.key_names
        self._json, self._csv = json_, csv_
        self.any = False
        self._nodes = ledger.reports.node_names()
        if csv_:
            _csv([(*COLUMNS, "cost_usd", "key_name", "node")])

    def add(self, rows: list[LedgerRow]) -> None:
        if not rows:
            return
        goes_on, self.any = self.any, True
        of = self._reports.nodes_of([row.request_id for row in rows])
        if any(id not in self._nodes for id in of.values()):
            self._nodes = self._reports.node_names()  # of a node that has come since
        nodes = {request: self._nodes.get(id, id) for request, id in of.items()}
        if self._json:
            for row in rows:
                click.echo(
                    msgspec.json.encode({**shown(row), "node": nodes.get(row.request_id, "")})
                )
        elif self._csv:
            names = ((row, self._keys.get(row.key_id, "")) for row in rows)
            _csv([(*csv_cells(r), name, nodes.get(r.request_id, "")) for r, name in names])
        elif self._nodes:
            cells = [(*_cells(row), nodes.get(row.request_id, "")) for row in rows]
            print_table((*_TITLES, "node"), cells, goes_on=goes_on)
        else:
            print_table(_TITLES, [_cells(row) for row in rows], goes_on=goes_on)


def _csv(rows: list[tuple[csv_export.Cell, ...]]) -> None:
    for line in csv_export.lines(rows):
        click.echo(line, nl=False)


def _cells(row: LedgerRow) -> tuple[str, ...]:
    cost = row.cost_nano_usd
    return (
        when(row.started_at),
        row.request_id,
        row.key_id,
        row.model,
        row.upstream,
        row.outcome,
        str(row.status),
        f"{row.input_tokens:,}",
        f"{row.output_tokens:,}",
        "unknown" if cost is None else dollars(cost, 2),
        f"{row.total_ms:,}",
    )
