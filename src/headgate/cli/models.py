"""`headgate models`: what is offered and where it goes; models of one's own, added, removed, checked."""

import os
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime

import click
import msgspec

from headgate.admin import models as operations
from headgate.catalog.advice import advice
from headgate.catalog.catalog import Catalog
from headgate.cli.group import CommandGroup
from headgate.cli.options import (
    as_json,
    joined_of,
    operator_of,
    places,
    print_json,
    print_table,
    settings_of,
)
from headgate.config import ConfigError, Settings
from headgate.dialects.capabilities import EFFORTS


@click.group(invoke_without_command=True, cls=CommandGroup)
@places
@as_json
@click.pass_context
def command(ctx: click.Context, config_file: str | None, data: str | None, json_: bool) -> None:
    """List the models, the names that stand for them, and where their requests go."""
    if ctx.invoked_subcommand is None:
        both = joined_of(settings_of(config_file, data=data))
        _print(both.settings, both.catalog, json_)


@command.command("list")
@places
@as_json
def list_models(config_file: str | None, data: str | None, json_: bool) -> None:
    """List the models, as `headgate models` does."""
    both = joined_of(settings_of(config_file, data=data))
    _print(both.settings, both.catalog, json_)


def _print(settings: Settings, catalog: Catalog, json_: bool) -> None:
    routes = {
        m.id: [f"{r.upstream.name}/{r.name}" for r in catalog.routes(m.id)] for m in catalog.models
    }
    own = {name.lower(): to for name, to in settings.aliases.items()}
    names = [(name, to, "aliases") for name, to in own.items()]
    names += [(name, m.id, "models") for m in catalog.models for name in m.aliases]
    names += [
        (name, to, "default_aliases")
        for name, to in catalog.default_aliases().items()
        if name not in own
    ]
    if json_:
        print_json(
            [
                {
                    **msgspec.to_builtins(m),
                    "routes": routes[m.id],
                    "aliases": [
                        {"name": name, "from": setting} for name, to, setting in names if to == m.id
                    ],
                }
                for m in catalog.models
            ]
        )
        return
    rows = [
        (
            m.id,
            f"{m.context_window:,}",
            f"{m.max_output:,}",
            ", ".join(m.input),
            ", ".join(routes[m.id]) or "none",
            ", ".join(name for name, to, _ in names if to == m.id),
        )
        for m in catalog.models
    ]
    print_table(("model", "context", "max output", "input", "routes", "other names"), rows)


def _route(text: str) -> dict[str, str]:
    """`UPSTREAM` or `UPSTREAM/MODEL`, whose model may have slashes of its own."""
    upstream, _, model = text.partition("/")
    return {"upstream": upstream, "model": model}


@command.command()
@click.argument("name")
@click.option(
    "--route",
    "routes",
    multiple=True,
    required=True,
    help="UPSTREAM or UPSTREAM/MODEL; again for each fallback.",
)
@click.option(
    "--price", help="US dollars per million tokens: INPUT,OUTPUT[,CACHE_READ[,CACHE_WRITE]]."
)
@click.option("--free", is_flag=True, help="It costs nothing.")
@click.option("--context", type=int, help="Context window in tokens.")
@click.option("--max-output", type=int, help="Longest output in tokens.")
@click.option("--input", "inputs", help="What it takes: text,image,video.")
@click.option("--alias", "aliases", multiple=True, help="Another name of it.")
@click.option("--display-name", default="")
@click.option("--description", default="")
@click.option("--effort", type=click.Choice(EFFORTS), help="For requests that name none.")
@click.option(
    "--capabilities", default="{}", help='JSON, as {"stop": true, "efforts": ["low", "high"]}.'
)
@places
@as_json
def add(
    name: str,
    routes: tuple[str, ...],
    price: str | None,
    free: bool,
    context: int | None,
    max_output: int | None,
    inputs: str | None,
    aliases: tuple[str, ...],
    display_name: str,
    description: str,
    effort: str | None,
    capabilities: str,
    config_file: str | None,
    data: str | None,
    json_: bool,
) -> None:
    """Add a model of your own, or replace it; a running gateway serves it within a second."""
    settings = settings_of(config_file, data=data)
    if name in settings.models:
        raise click.ClickException(f"`models.{name}` is in headgate.toml; change it there.")
    fields: dict[str, object] = {
        "routes": [_route(r) for r in routes],
        "free": free,
        "context_window": context,
        "max_output": max_output,
        "aliases": aliases,
        "display_name": display_name,
        "description": description,
        "effort": effort or "",
        "prices": _prices(price),
    }
    if inputs:
        fields["input"] = [i.strip() for i in inputs.split(",")]
    try:
        fields["capabilities"] = msgspec.json.decode(capabilities, type=dict[str, object])
        with operator_of(settings, create=True) as operator:
            both = operations.put(operator, settings, os.environ, name, fields, now_s=time.time())
    except msgspec.MsgspecError:
        raise click.ClickException("--capabilities is not a JSON object.") from None
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    found = [a for a in advice(both.catalog, both.settings, _today()) if a.model == name]
    if json_:
        print_json({"id": name, "advice": msgspec.to_builtins(found)})
        return
    click.echo(f"{name} added.")
    for each in found:
        click.echo(f"{each.level}: {each.model}: {each.text}. {each.fix}", err=True)


def _prices(text: str | None) -> Sequence[dict[str, str]]:
    if text is None:
        return []
    given = [part.strip() for part in text.split(",")]
    if not 2 <= len(given) <= 4:
        raise click.UsageError("--price takes INPUT,OUTPUT[,CACHE_READ[,CACHE_WRITE]].")
    return [dict(zip(("input", "output", "cache_read", "cache_write"), given, strict=False))]


@command.command()
@click.argument("name")
@places
def remove(name: str, config_file: str | None, data: str | None) -> None:
    """Remove a model of your own; its rows stay in the ledger."""
    settings = settings_of(config_file, data=data)
    with operator_of(settings) as operator:
        if not operations.remove(operator, name):
            hint = " It is in headgate.toml: take it out there." if name in settings.models else ""
            raise click.ClickException(f"there is no stored model `{name[:128]}`.{hint}")
    click.echo(f"{name} removed.")


@command.command()
@click.argument("name", required=False)
@places
@as_json
def check(name: str | None, config_file: str | None, data: str | None, json_: bool) -> None:
    """Say what is missing of the models: prices, sizes, routes, ends; exit code 1 on a warning."""
    both = joined_of(settings_of(config_file, data=data))
    if name is not None and both.catalog.find(name) is None and name not in both.faults:
        raise click.ClickException(f"no model `{name[:128]}`. {both.catalog.hint(name)}")
    found = [a for a in advice(both.catalog, both.settings, _today()) if name in (None, a.model)]
    faults = {id: f for id, f in both.faults.items() if name in (None, id)}
    if json_:
        print_json({"left_out": faults, "advice": msgspec.to_builtins(found)})
    else:
        for id, fault in faults.items():
            click.echo(f"left out: {id}: {fault}")
        for each in found:
            click.echo(f"{each.level}: {each.model}: {each.text}. {each.fix}")
        if not found and not faults:
            click.echo("OK: nothing is missing.")
    if faults or any(a.level == "warning" for a in found):
        raise click.exceptions.Exit(1)


def _today() -> date:
    return datetime.now(UTC).date()
