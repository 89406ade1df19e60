"""`headgate admin` manages the console's people and the admin API's keys from the machine itself.

Note: whoever can read the data directory can make themselves an admin with it; that is
who this is for.
"""

import sys
import time
from typing import Any
from urllib.parse import urlsplit

import click

from headgate.admin import people as operations
from headgate.cli.group import CommandGroup
from headgate.cli.options import (
    Duration,
    as_json,
    operator_of,
    places,
    print_json,
    print_table,
    settings_of,
    when,
)
from headgate.cli.served import as_served
from headgate.config import Settings, addresses
from headgate.config.addresses import own_url
from headgate.policy import access


@click.group("admin", cls=CommandGroup)
def command() -> None:
    """Make the first admin's link, users of the console, and keys of the admin API."""


@command.command("link")
@places
def link(data: str | None, config_file: str | None) -> None:
    """Print a link that makes the first admin; valid for 30 minutes, once."""
    settings = settings_of(config_file, data=data)
    with operator_of(settings, create=True) as operator:
        token = operator.people.setup_link(now_s=time.time())
    if token is None:
        raise click.ClickException(
            "There are users already. `headgate admin create NAME` makes another admin."
        )
    click.echo(f"{_console_url(settings)}/setup/{token}")


def _console_url(settings: Settings) -> str:
    if settings.admin.listen:
        return addresses.console_url(settings, "")
    return console_url(settings.public_url, own_url(as_served(settings)))


def console_url(public: str, base: str) -> str:
    """Where people can sign in: over https, or on this very machine (web/auth/sign_in.py)."""
    parts = urlsplit(public)
    near = parts.hostname in ("localhost", "127.0.0.1", "::1")
    return public.rstrip("/") if parts.scheme == "https" or near else base


def _new_password(name: str, from_stdin: bool) -> str:
    """Return a password that somebody gave for that user, hashed."""
    from headgate.web.auth import passwords

    if from_stdin:
        password = sys.stdin.readline().rstrip("\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    if problem := passwords.problem(password, name):
        raise click.ClickException(problem)
    return passwords.hash(password)


@command.command("create")
@click.argument("name")
@click.option("--role", type=click.Choice(access.ROLES), default="admin", show_default=True)
@click.option("--account", default="", help="Whose keys and figures they see.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@places
def create(
    name: str,
    role: Any,
    account: str,
    password_stdin: bool,
    data: str | None,
    config_file: str | None,
) -> None:
    """Make a user of the console; asks for a password."""
    kept = _new_password(name, password_stdin)
    with operator_of(settings_of(config_file, data=data), create=True) as operator:
        user = operations.create(operator, name, kept, role, account, now_s=time.time())
    click.echo(
        f"{user.name} can sign in at {_console_url(settings_of(config_file, data=data))}/sign-in"
    )


@command.command("list")
@places
@as_json
def list_(data: str | None, config_file: str | None, json_: bool) -> None:
    """List the users of the console."""
    with operator_of(settings_of(config_file, data=data)) as operator:
        users = operator.people.users()
    if json_:
        print_json(users)
        return
    print_table(
        ("ID", "NAME", "ROLE", "ACCOUNT", "LAST SIGN-IN", "STATE"),
        [
            (u.id, u.name, u.role, u.account, when(u.seen_s), "closed" if u.closed_s else "open")
            for u in users
        ],
    )


@command.command("password")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@places
def password_(name: str, password_stdin: bool, data: str | None, config_file: str | None) -> None:
    """Set a user's password; their sessions end."""
    kept = _new_password(name, password_stdin)
    with operator_of(settings_of(config_file, data=data)) as operator:
        found = operator.people.sign_in(name)
        if found is None:
            raise click.ClickException(f"There is no open user {name}.")
        operations.change(operator, found[0].id, password=kept, now_s=time.time())
    click.echo("Changed.")


@command.group("keys")
def keys() -> None:
    """Make, list and revoke keys of the admin API; they call no model."""


@keys.command("create")
@click.argument("name")
@click.option("--role", type=click.Choice(("admin", "viewer")), default="admin", show_default=True)
@click.option("--expires", type=Duration(), help="After what time it ends: 30d, 12h.")
@places
@as_json
def create_key(
    name: str,
    role: Any,
    expires: float | None,
    data: str | None,
    config_file: str | None,
    json_: bool,
) -> None:
    """Make a management key; its text is shown only now."""
    now_s = time.time()
    with operator_of(settings_of(config_file, data=data), create=True) as operator:
        until = None if expires is None else now_s + expires
        key, text = operations.create_management_key(operator, name, role, until, now_s=now_s)
    if json_:
        print_json({"id": key.id, "name": key.name, "role": key.role, "key": text})
    else:
        click.echo(text)


@keys.command("list")
@places
@as_json
def list_keys(data: str | None, config_file: str | None, json_: bool) -> None:
    """List the management keys."""
    with operator_of(settings_of(config_file, data=data)) as operator:
        found = operator.people.management_keys()
    if json_:
        print_json(found)
        return
    now_s = time.time()
    print_table(
        ("ID", "NAME", "ROLE", "CREATED", "EXPIRES", "STATE"),
        [
            (
                k.id,
                k.name,
                k.role,
                when(k.created_s),
                when(k.expires_s),
                "active" if k.good(now_s) else "ended",
            )
            for k in found
        ],
    )


@keys.command("revoke")
@click.argument("id")
@places
def revoke_key(id: str, data: str | None, config_file: str | None) -> None:
    """Close a management key for good."""
    now_s = time.time()
    with operator_of(settings_of(config_file, data=data)) as operator:
        open_ids = {k.id for k in operator.people.management_keys()}
        if id not in open_ids or not operations.revoke_management_key(operator, id, now_s=now_s):
            raise click.ClickException(f"There is no open management key {id}.")
    click.echo("Revoked.")
