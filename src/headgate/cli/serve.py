"""`headgate serve`: the edge, control beside it, and the local model when no upstream is configured."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from urllib.parse import urlsplit

import click

from headgate import config
from headgate.catalog import catalog as catalogs
from headgate.cli.admin import console_url
from headgate.cli.common import base_url
from headgate.cli.supervise import Control
from headgate.control import place
from headgate.edge.app import App
from headgate.edge.forward import Forward
from headgate.edge.gate import Gate
from headgate.edge.log import LEVELS, Log
from headgate.local.model import LocalModel, LocalModelMissing
from headgate.net import descriptors
from headgate.net.server import Limits, Server
from headgate.store import retention
from headgate.store.books import Books
from headgate.store.ledger import Ledger
from headgate.store.people import People
from headgate.store.sqlite import Store, StoreError


@click.command("serve")
@click.option("--host", help="Address to listen on; 127.0.0.1 unless the config says otherwise.")
@click.option("--port", type=int, help="Port; 8787 unless the config says otherwise, 0 for any.")
@click.option("--data", help="Directory for keys and the ledger.")
@click.option("--config", "config_file", help="Path of headgate.toml.")
@click.option("--log", type=click.Choice(list(LEVELS)), help="How much to log, as JSON on stderr.")
def command(
    host: str | None, port: int | None, data: str | None, config_file: str | None, log: str | None
) -> None:
    """Start the gateway; prints `headgate ready URL` when it accepts requests."""
    given = {"host": host, "port": port, "data": data, "log": log}
    overrides = {k: v for k, v in given.items() if v is not None}
    try:
        settings = config.load(config_file, os.environ, **overrides)
        store = Store(settings.data)
    except (config.ConfigError, StoreError) as error:
        raise click.ClickException(str(error)) from None
    try:
        import uvloop

        loop_factory = uvloop.new_event_loop
    except ImportError:  # Windows has none
        loop_factory = None
    # What was imported lives for ever; looking through it again and again costs 3 % of a stream.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        try:
            code = runner.run(_serve(settings, store, config_file))
        except config.ConfigError as error:  # what only the catalog or the gate could see
            raise click.ClickException(str(error)) from None
    sys.exit(code)


async def _serve(settings: config.Settings, store: Store, config_file: str | None) -> int:
    local = LocalModel() if any(u.preset == "local" for u in settings.upstreams.values()) else None
    if local is not None:
        try:
            url = await local.start()
        except LocalModelMissing as error:
            store.close()
            click.echo(f"Error: {error}", err=True)
            return 1
        settings = config.with_local_url(settings, url)
    log = Log(settings.log)
    catalog = catalogs.load(settings, os.environ)
    ledger, books = Ledger(settings.data), Books(settings.data)
    recovered = ledger.recover()
    if recovered:
        click.echo(f"note: {recovered} exchanges of a run that died are in the ledger.", err=True)
    gate = Gate(settings, catalog, store, ledger, books, log)
    place.sweep(settings.data)
    socket = place.fresh_socket(settings.data)
    app = App(gate, Forward(socket))
    server = Server(app, _limits(settings, descriptors.raise_limit()), app.refuse_early, log.report)
    try:
        port = await server.listen(settings.host, settings.port)
    except OSError as error:
        click.echo(
            f"Error: cannot listen on {settings.host}:{settings.port}: {error.strerror or error}. "
            "Choose another with --port.",
            err=True,
        )
        if local is not None:
            await local.stop()
        place.clear(socket, settings.data)
        store.close()
        return 1
    base = base_url(settings.host, port)
    public = settings.public_url.rstrip("/") or base
    arguments = ["--socket", socket, "--base-url", public, "--edge-url", base]
    arguments += ["--data", settings.data, *(("--config", config_file) if config_file else ())]
    control = Control(arguments)
    control.start()
    watch = asyncio.create_task(gate.watch())
    pruning = asyncio.create_task(retention.daily(settings.data, settings.retention.requests_days))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, stop.set)
    _greet(base, public, gate, local is not None)
    await stop.wait()

    gate.draining = True
    server.stop_accepting()
    await server.drain(settings.drain_s)
    for task in (watch, pruning):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await control.stop()
    place.clear(socket, settings.data)
    await app.close()
    await gate.client.close()
    if local is not None:
        await local.stop()
    log.flush()
    books.close()
    lost = ledger.close()
    store.close()
    if lost:
        click.echo(f"Error: the disk did not take {lost} rows of the ledger.", err=True)
    return 1 if lost else 0


def _limits(settings: config.Settings, open_files: int) -> Limits:
    """The bounds of the listener, with `open_files` descriptors for everything."""
    most = descriptors.most_connections(open_files)
    wanted = settings.connections or most
    if wanted > most:
        click.echo(
            f"note: `connections` is {wanted}, but {open_files} open files allow {most}; raise the limit"
            " of open files (`ulimit -n`, LimitNOFILE=) for more.",
            err=True,
        )
    connections = min(wanted, most)
    per_peer = settings.connections_per_peer or max(1, connections // 2)
    return Limits(
        body_bytes=settings.body_bytes,
        connections=connections,
        connections_per_peer=per_peer,
        trusted_proxies=settings.trusted_proxies,
    )


def _greet(base: str, public: str, gate: Gate, local: bool) -> None:
    """What a stranger needs next, then the one line that scripts wait for."""
    say = click.echo
    for note in gate.settings.notes:
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
    people = People(gate.store, gate.settings.data)
    token = people.setup_link(now_s=time.time())
    people.close()
    console = console_url(public, base)
    if token is None:
        say(f"  console    {console}/usage")
    else:
        say(f"  console    {console}/setup/{token}")
        say("             makes the first admin: valid for 30 minutes, once")
    names = ", ".join(gate.settings.upstreams)
    if local:
        say("  upstream   none configured: SmolLM2-135M on this machine answers for every model.")
        say(
            "             Set MINIMAX_API_KEY (or RUNAPI_TOKEN, HEADGATE_UPSTREAM_URL) for the real ones."
        )
    else:
        say(f"  upstream   {names}")
    key = "$HEADGATE_API_KEY"
    if not gate.store.keys():
        _, key = gate.store.create_key("first", now_s=time.time())
        gate.ring = gate.store.ring()
        say(f"  first key  {key}   (shown only now)")
    say("")
    say(f"  curl {base}/v1/chat/completions -H 'Authorization: Bearer {key}' \\")
    say(
        """    -d '{"model": "MiniMax-M2", "max_tokens": 40, "messages": [{"role": "user", "content": "Say hello."}]}'"""
    )
    say("")
    say(f"headgate ready {base}")
    sys.stdout.flush()
