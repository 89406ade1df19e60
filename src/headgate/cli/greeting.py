"""What `headgate serve` prints once it is ready."""

import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import urlsplit

import click

from headgate import config
from headgate.admin import keys as key_operations
from headgate.admin.operator import Operator
from headgate.cli.admin import console_url
from headgate.cli.options import actor
from headgate.config import addresses, explain
from headgate.local.model import LocalModel
from headgate.storage.errors import StoreFault
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.people import People
from headgate.supervisor.supervise import Supervisor

T = TypeVar("T")


def report_recovered(count: int) -> None:
    click.echo(f"note: {count} exchanges of a run that died are in the ledger.", err=True)


def kept_usage(local: LocalModel, supervisor: Supervisor) -> Callable[[], Awaitable[None]]:
    async def again() -> None:
        try:
            await local.again()
        finally:
            supervisor.notify_exits("local", local.exits)

    return again


def _first_key(operator: Operator) -> str:
    _, token = key_operations.create(operator, "first", terms={}, now_s=time.time())
    return token


def _created(store: Store, create: Callable[[], T]) -> T | None:
    """Return what was created; None while the database of all nodes is away."""
    try:
        return create()
    except StoreFault as error:
        if not store.shares:
            raise
        click.echo(f"note: nothing can be created for now: {error}", err=True)
        return None


def greet(
    base: str, public: str, console: str, settings: config.Settings, store: Store, local: bool
) -> None:
    """What a stranger needs next, then the one line that scripts wait for."""
    say = click.echo
    for note in (*settings.notes, *explain.unknown_variables(os.environ)):
        say(f"note: {note}", err=True)
    if urlsplit(public).path:
        say(
            f"note: public_url has a path, {urlsplit(public).path}: the API can be there, if a proxy takes"
            " it off; the console's pages must be at the root of a host.",
            err=True,
        )
    say(f"  OpenAI     {base}/v1")
    say(f"  Anthropic  {base}")
    say(f"  Gemini     {base}")
    say(f"  pages      {base}/models")
    people = People(store, settings.data)
    token = None
    if not people.anybody():
        token = _created(store, lambda: people.setup_link(now_s=time.time()))
    first = ""
    if not store.keys():
        operator = Operator(actor(), "cli", store, people)
        first = _created(store, lambda: _first_key(operator)) or ""
    people.close()
    if not settings.admin.listen:
        console = console_url(public, base)
    if token is None:
        say(f"  console    {console}/usage")
    else:
        say(f"  console    {console}/setup/{token}")
        say("             creates the first admin account; valid once, for 30 minutes")
    names = ", ".join((*addresses.configured(settings), *store.own_upstreams()))
    if local:
        say("  upstream   none configured: SmolLM2-135M on this machine answers for every model.")
        say("             Add a provider in the console, or set MINIMAX_API_KEY (RUNAPI_TOKEN,")
        say("             HEADGATE_UPSTREAM_URL) for the real ones.")
    else:
        say(f"  upstream   {names}")
    say(f"  data       {settings.data}")
    if settings.host in ("127.0.0.1", "::1", "localhost"):
        say("  listening  on this machine only; `--host 0.0.0.0` accepts connections from others")
    if first:
        say(f"  first key  {first}   (shown only now)")
    say("")
    say("  A sample request, in another terminal:")
    say("")
    if first:
        say(f"  export HEADGATE_API_KEY={first}")
    else:
        say("  export HEADGATE_API_KEY=...   # your key; `headgate keys create NAME` makes another")
    say(f'  curl {base}/v1/chat/completions -H "Authorization: Bearer $HEADGATE_API_KEY" \\')
    say(
        """    -d '{"model": "MiniMax-M2", "max_tokens": 40, "messages": [{"role": "user", "content": "Say hello."}]}'"""
    )
    say("")
