"""What several commands share: their options, how they open the store, how they print."""

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import click
import msgspec

from headgate.admin.operator import Operator, Refused
from headgate.catalog import stored
from headgate.catalog.catalog import Catalog
from headgate.catalog.detection import Detected
from headgate.catalog.stored import Joined, Stored
from headgate.config import ConfigError, Settings, loading
from headgate.storage.errors import StoreError, StoreFault
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.people import People

F = TypeVar("F", bound=Callable[..., Any])
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_LONGEST_S = 100 * 365 * 86400


def places(command: F) -> F:
    """The options that say which installation is meant."""
    command = click.option("--data", help="Directory for keys and the ledger.")(command)
    return click.option("--config", "config_file", help="Path of headgate.toml.")(command)


def as_json(command: F) -> F:
    return click.option("--json", "json_", is_flag=True, help="Print JSON.")(command)


def settings_of(config_file: str | None, **given: object) -> Settings:
    """Return the settings; a mistake in them ends the command with exit code 1 and one line."""
    try:
        return loading.load(
            config_file, os.environ, **{k: v for k, v in given.items() if v is not None}
        )
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


def catalog_of(settings: Settings) -> Catalog:
    return joined_of(settings).catalog


def joined_of(settings: Settings, detected: Mapping[str, Detected] = {}) -> Joined:
    """The settings and the catalog with what is stored, where there is a database.

    `detected` has what upstreams answered that they are, by name.
    """
    found = Stored()
    # A database that is not there or cannot be read is the business of commands that need it.
    with contextlib.suppress(StoreError), contextlib.ExitStack() as stack:
        if _exists(settings.data):
            store = Store(settings.data, create=False)
            stack.callback(store.close)
            found = stored.read(store)
    try:
        return stored.joined(settings, os.environ, found, detected)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


class DataUnusable(click.ClickException):
    """`serve` cannot use the data directory: full, locked, damaged, of another version or pepper."""

    exit_code = 3


@contextmanager
def store_of(settings: Settings, *, create: bool = False) -> Iterator[Store]:
    """The store; `create`: also where there is none yet, for commands that create something.

    For the others an installation that does not exist is an empty one, made in a temporary directory
    (`store.directory`), so that a look at it leaves nothing behind.
    """
    try:
        with ExitStack() as stack:
            data = settings.data
            if not create and not _exists(data):
                click.echo(f"note: there is no Headgate data in {data} yet.", err=True)
                data = stack.enter_context(tempfile.TemporaryDirectory(prefix="headgate-"))
                create = True
            shared = {"database": settings.database, "pepper_file": settings.pepper_file}
            store = Store(data, create=create, **(shared if data == settings.data else {}))
            stack.callback(store.close)
            yield store
    except StoreError as error:
        raise click.ClickException(str(error)) from None


def _exists(data: str) -> bool:
    """Whether there is a database; StoreFault when one cannot even look."""
    try:
        os.stat(os.path.join(data, "headgate.db"))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreFault(f"{error.filename or data}: {error.strerror}.") from None
    return True


@contextmanager
def operator_of(settings: Settings, *, create: bool = False) -> Iterator[Operator]:
    """Return whoever runs the command, for the operations of admin/; a refusal ends the command."""
    with store_of(settings, create=create) as store:
        people = People(store, store.directory)
        try:
            yield Operator(actor(), "cli", store, people)
        except Refused as refused:
            hint = " See: headgate accounts list" if refused.field == "account" else ""
            raise click.ClickException(f"{refused}{hint}") from None
        finally:
            people.close()


@contextmanager
def open_one(kind: str, id: str) -> Iterator[None]:
    """Say where the ids are listed, when there is no open key or account with this one."""
    try:
        yield
    except Refused as refused:
        if refused.reason in ("absent", "closed"):
            raise none_open(kind, id) from None
        raise


def none_open(kind: str, id: str) -> click.ClickException:
    """Return the error for an id that no open key or account has."""
    return click.ClickException(f"no open {kind} has the id `{id}`; see: headgate {kind}s list")


def actor() -> str:
    """Who ran the command, as the system knows them."""
    return os.environ.get("SUDO_USER") or os.environ.get("USER") or "cli"


def asked_key(text: str, *, needed: bool = False) -> str:
    """Return the key of `--key`; `-` asks for it, so that it stands in no shell's history.

    On a terminal it is asked for without showing it, elsewhere it is a line of standard input.  `needed`:
    on a terminal an absent one is asked for too.
    """
    if text != "-" and (text or not needed or not sys.stdin.isatty()):
        return text
    if sys.stdin.isatty():
        found = click.prompt("API key", hide_input=True, err=True)
    else:
        found = sys.stdin.readline()
    key = str(found).strip()
    if not key:
        raise click.UsageError("no key came on standard input.")
    return key


def print_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], *, goes_on: bool = False
) -> None:
    """Print a table for a person on a terminal; for everything else lines of cells between tabs.

    Those begin with a line of titles too, also where there are no rows.  `goes_on`: the rows follow others of
    the same table, whose titles stand above.
    """
    lines = [[_printable(cell) for cell in row] for row in (titles, *rows)]
    if not sys.stdout.isatty():
        for line in lines[goes_on:]:
            click.echo("\t".join(line))
        return
    widths = [max(len(line[n]) for line in lines) for n in range(len(titles))]
    for n, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo(click.style(text.rstrip(), bold=True) if not n else text.rstrip())


def _printable(cell: str) -> str:
    """Names are the operator's; what a terminal would act on is shown as what it is."""
    return "".join(c if c.isprintable() else "?" for c in cell)


class Duration(click.ParamType[float]):
    """Reads `30d`, `12h` or `90s` as seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        number, unit = value[:-1], value[-1:]
        if unit in _UNITS and number.isdecimal() and len(number) <= 10:
            seconds = int(number) * _UNITS[unit]
            if 0 < seconds <= _LONGEST_S:
                return float(seconds)
        self.fail(f"invalid duration `{value[:20]}`; write 30d, 12h, 15m or 90s.", param, ctx)


def when(seconds: float | None) -> str:
    """Return a moment for a person, in UTC."""
    if seconds is None:
        return ""
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
