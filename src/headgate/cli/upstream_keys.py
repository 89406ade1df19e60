"""`headgate upstream-keys` manages upstream keys of owners, entered without showing them, listed, removed."""

import time

import click
import msgspec

from headgate.admin import upstream_keys as operations
from headgate.cli.group import CommandGroup
from headgate.cli.options import (
    as_json,
    asked_key,
    joined_of,
    operator_of,
    places,
    print_json,
    print_table,
    settings_of,
    store_of,
    when,
)
from headgate.policy.upstream_keys import OwnerKind


@click.group(cls=CommandGroup)
def command() -> None:
    """Let requests of a gateway key or an account be sent with an upstream key of its own.

    Changes take effect in a running gateway within a second.
    """


def _owner(key: str | None, account: str | None) -> tuple[OwnerKind, str]:
    if (key is None) == (account is None):
        raise click.UsageError("name the owner: either --key ID or --account ID.")
    return ("key", key) if key is not None else ("account", str(account))


_KEY = click.option("--key", help="The id of the gateway key that owns it, with its rotations.")
_ACCOUNT = click.option("--account", help="The id of the account that owns it.")


@command.command("set")
@click.argument("upstream")
@_KEY
@_ACCOUNT
@click.option(
    "--fallback", is_flag=True, help="Use the gateway's keys when this one is used up or refused."
)
@places
@as_json
def set_(
    upstream: str,
    key: str | None,
    account: str | None,
    fallback: bool,
    config_file: str | None,
    data: str | None,
    json_: bool,
) -> None:
    """Enter an owner's key for UPSTREAM, in place of the one before.

    The key is asked for without showing it; where there is no terminal it is a line of standard input.
    """
    kind, owner = _owner(key, account)
    settings = settings_of(config_file, data=data)
    upstreams = joined_of(settings).settings.upstreams
    secret = asked_key("-")
    with operator_of(settings) as operator:
        found = operations.put(
            operator, upstreams, kind, owner, upstream, secret, fallback=fallback, now_s=time.time()
        )
    if json_:
        print_json(msgspec.to_builtins(found))
    else:
        click.echo(f"Kept the key ending in {found.hint} for {upstream}, of {kind} {found.owner}.")


@command.command("list")
@_KEY
@_ACCOUNT
@places
@as_json
def list_(
    key: str | None,
    account: str | None,
    config_file: str | None,
    data: str | None,
    json_: bool,
) -> None:
    """List the upstream keys of owners: their last four characters only."""
    with store_of(settings_of(config_file, data=data)) as store:
        found, keys = store.upstream_keys(), store.keys()
        if key is not None:
            owner = next((k.owner for k in keys if k.id == key), key)
            found = [f for f in found if (f.kind, f.owner) == ("key", owner)]
        if account is not None:
            found = [f for f in found if (f.kind, f.owner) == ("account", account)]
    if json_:
        print_json(msgspec.to_builtins(found))
        return
    rows = [
        (
            f"{f.kind} {f.owner}",
            f.upstream,
            f"...{f.hint}",
            f.fingerprint,
            "yes" if f.fallback else "no",
            when(f.changed_s),
        )
        for f in found
    ]
    print_table(("owner", "upstream", "key", "fingerprint", "fallback", "entered"), rows)


@command.command()
@click.argument("upstream")
@_KEY
@_ACCOUNT
@places
def remove(
    upstream: str, key: str | None, account: str | None, config_file: str | None, data: str | None
) -> None:
    """Delete an owner's key for UPSTREAM; the gateway's keys are used again."""
    kind, owner = _owner(key, account)
    settings = settings_of(config_file, data=data)
    with operator_of(settings) as operator:
        if not operations.remove(operator, kind, owner, upstream):
            raise click.ClickException(
                f"{kind} {owner[:64]} has no key for `{upstream[:64]}`; see: headgate upstream-keys list"
            )
    click.echo(f"Removed the key of {kind} {owner} for {upstream}.")
