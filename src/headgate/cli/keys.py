"""`headgate keys`: who may use the gateway. The only commands that ever show a secret, once."""

import time

import click
import msgspec

from headgate.cli.common import (
    Duration,
    as_json,
    catalog_of,
    places,
    print_json,
    print_table,
    settings_of,
    store_of,
    when,
)
from headgate.policy.keys import Key


@click.group()
def command() -> None:
    """Make, list, revoke and rotate API keys.

    They take effect in a running gateway within a second.
    """


@command.command()
@click.argument("name")
@click.option("--models", help="Models it may use, separated by commas; all without it.")
@click.option("--expires", type=Duration(), help="When it ends: 30d, 12h.")
@places
@as_json
def create(
    name: str,
    models: str | None,
    expires: float | None,
    config_file: str | None,
    data: str | None,
    json_: bool,
) -> None:
    """Make a key and print it: the only time it can be seen."""
    settings = settings_of(config_file, data=data)
    ids: list[str] = []
    if models is not None:  # also when empty: an empty list would mean all
        catalog = catalog_of(settings)
        for said in models.split(","):
            model = catalog.find(said)
            if model is None:
                near = ", ".join(catalog.near(said)) or ", ".join(m.id for m in catalog.models)
                raise click.BadParameter(
                    f"no model `{said}`. Near it: {near}.", param_hint="--models"
                )
            ids.append(model.id)
    now = time.time()
    with store_of(settings) as store:
        key, text = store.create_key(
            name, tuple(dict.fromkeys(ids)), now + expires if expires else None, now_s=now
        )
    _print_new(key, text, json_)


@command.command("list")
@places
@as_json
def list_(config_file: str | None, data: str | None, json_: bool) -> None:
    """List the keys, without their secrets."""
    with store_of(settings_of(config_file, data=data)) as store:
        keys = store.keys()
    if json_:
        print_json([_plain(k) for k in keys])
        return
    if not keys:
        click.echo("No keys yet: headgate keys create NAME", err=True)
    rows = [
        (
            k.id,
            k.name,
            _state(k),
            when(k.created_s),
            when(k.expires_s),
            ", ".join(k.models) or "all",
        )
        for k in keys
    ]
    print_table(("id", "name", "state", "created (UTC)", "expires", "models"), rows)


@command.command()
@click.argument("id")
@places
@as_json
def revoke(id: str, config_file: str | None, data: str | None, json_: bool) -> None:
    """Close a key for good."""
    with store_of(settings_of(config_file, data=data)) as store:
        if not store.revoke(id, now_s=time.time()):
            raise click.ClickException(f"no open key has the id `{id}`; see: headgate keys list")
    if json_:
        print_json({"id": id, "revoked": True})
    else:
        click.echo(f"Revoked {id}.")


@command.command()
@click.argument("id")
@click.option(
    "--overlap", type=Duration(), default=0.0, help="How long the old one still works: 1h."
)
@places
@as_json
def rotate(id: str, overlap: float, config_file: str | None, data: str | None, json_: bool) -> None:
    """Replace a key by a new one with the same rights, and print that."""
    with store_of(settings_of(config_file, data=data)) as store:
        made = store.rotate(id, now_s=time.time(), overlap_s=overlap)
    if made is None:
        raise click.ClickException(f"no open key has the id `{id}`; see: headgate keys list")
    _print_new(*made, json_)


def _print_new(key: Key, text: str, json_: bool) -> None:
    if json_:
        print_json({**_plain(key), "key": text})
        return
    click.echo(text)
    click.echo(f"Key {key.id} ({key.name}). It is shown only now: keep it.", err=True)


def _plain(key: Key) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(key)
    return {**fields, "state": _state(key)}


def _state(key: Key) -> str:
    now = time.time()
    if key.good(now):
        return "ends soon" if key.revoked_s is not None else "open"
    return "revoked" if key.revoked_s is not None and key.revoked_s <= now else "expired"
