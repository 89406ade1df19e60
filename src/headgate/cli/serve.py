"""`headgate serve`: the edge, control beside it, and the local model when no upstream is configured."""

import asyncio
import contextlib
import functools
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import click

from headgate import config, output
from headgate.catalog import catalog as catalogs
from headgate.cli.admin import console_url
from headgate.cli.options import DataUnusable
from headgate.config import base_url
from headgate.diagnostics.internal_api import InternalApi
from headgate.edge import listeners
from headgate.edge.context import EdgeContext
from headgate.edge.log import LEVELS, Log, LogLine, places
from headgate.edge.log import now as log_now
from headgate.edge.overload import SWITCH_INTERVAL_S
from headgate.local.model import LocalModel, LocalModelMissing
from headgate.net import descriptors
from headgate.net.server import Limits
from headgate.storage.sqlite import retention
from headgate.storage.sqlite.database import Store, StoreError
from headgate.storage.sqlite.ledger import Ledger
from headgate.storage.sqlite.people import People
from headgate.storage.sqlite.process_lock import AlreadyServed, ServeLock
from headgate.storage.sqlite.reports import UsageReader
from headgate.supervisor.control import STOP_S, Control
from headgate.web import socket_path

CANNOT_LISTEN, ALREADY_SERVED = 4, 5  # exit codes
PATIENCE_S = 5.0  # at the end, for a disk that takes no rows
GIVE_UP_S = 1.8  # after a second signal, whatever still runs


class _AlreadyServed(click.ClickException):
    exit_code = ALREADY_SERVED


@click.command("serve")
@click.option("--host", help="Address to listen on; 127.0.0.1 unless the config says otherwise.")
@click.option("--port", type=int, help="Port; 8787 unless the config says otherwise, 0 for any.")
@click.option("--data", help="Directory for keys and the ledger.")
@click.option("--config", "config_file", help="Path of headgate.toml.")
@click.option("--log", type=click.Choice(list(LEVELS)), help="How much to log, as JSON on stderr.")
def command(
    host: str | None, port: int | None, data: str | None, config_file: str | None, log: str | None
) -> None:
    """Start the gateway; prints `headgate ready URL` when it accepts requests.

    SIGTERM, SIGINT, SIGHUP and SIGQUIT end it when the running requests have, for up to drain_s; a second
    one (but SIGHUP) at once. Exit codes: 0 ended in good order; 1 a mistake in the configuration, or
    rows of the ledger were lost; 2 a mistake on the command line; 3 the data directory cannot be used;
    4 the address cannot be listened on; 5 another gateway serves the data directory.
    """
    with output.guard() as out:
        given = {"host": host, "port": port, "data": data, "log": log}
        overrides = {k: v for k, v in given.items() if v is not None}
        try:
            settings = config.load(config_file, os.environ, **overrides)
            lock = ServeLock(settings.data)  # before anything is written there
            store = Store(settings.data)
        except AlreadyServed as error:
            raise _AlreadyServed(str(error)) from None
        except config.ConfigError as error:
            raise click.ClickException(str(error)) from None
        except StoreError as error:
            raise DataUnusable(str(error)) from None
        try:
            import uvloop

            loop_factory = uvloop.new_event_loop
        except ImportError:  # Windows has none
            loop_factory = None
        # What was imported lives for ever; looking through it again and again costs 3 % of a stream.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        # A thread that works on a large body must let the loop go on soon.
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            try:
                code = runner.run(_serve(settings, store, config_file, out))
            except config.ConfigError as error:  # what only the catalog or the gate could see
                raise click.ClickException(str(error)) from None
            except StoreError as error:
                raise DataUnusable(str(error)) from None
            except OSError as error:
                where = f"{error.filename}: " if error.filename else ""
                raise DataUnusable(f"{where}{error.strerror or error}.") from None
            finally:
                store.close()
                lock.release()
    sys.exit(code)


class _Stopping:
    """What signals ask for: first to end when the running requests have, then to end at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has only some
            if number is None or signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup: a terminal that hangs up is not for us
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, self._heard, name)
        for name in ("SIGUSR1", "SIGUSR2"):  # their default is to kill; other daemons reopen logs
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)

    def _heard(self, name: str) -> None:
        if not self.asked.is_set():
            self.asked.set()
        elif name != "SIGHUP":  # systemd's SendSIGHUP and shells send one beside the first
            self.hurry.set()
            # Whatever may hang: a disk, a child, a library.
            give_up = threading.Timer(GIVE_UP_S, os._exit, (1,))
            give_up.daemon = True
            give_up.start()

    async def wait(self, seconds: float) -> None:
        """Wait for so long, or until there is no time for it."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.hurry.wait(), seconds)


async def _serve(
    settings: config.Settings, store: Store, config_file: str | None, out: output.Output
) -> int:
    """Run until a signal; the exit code."""
    async with contextlib.AsyncExitStack() as stack:
        local = None
        if any(u.preset == "local" for u in settings.upstreams.values()):
            local = LocalModel()
            try:
                url = await local.start()
            except LocalModelMissing as error:
                click.echo(f"Error: {error}", err=True)
                return 1
            stack.push_async_callback(local.stop)
            settings = config.with_local_url(settings, url)
        log = Log(settings.log, out.err)
        stack.callback(log.flush)
        _report_stray_errors(log)
        catalog = catalogs.load(settings, os.environ)
        ledger = Ledger(settings.data)
        stack.callback(ledger.close)  # a second time changes nothing
        books = UsageReader(settings.data)
        stack.callback(books.close)
        recovered = ledger.recover()
        if recovered:
            click.echo(
                f"note: {recovered} exchanges of a run that died are in the ledger.", err=True
            )
        gate = EdgeContext(settings, catalog, store, ledger, books, log)
        stack.push_async_callback(gate.close)
        gate.metrics.log_lines_dropped = lambda: out.dropped
        socket_path.sweep(settings.data)
        socket = socket_path.fresh_socket(settings.data)
        stack.callback(socket_path.clear, socket, settings.data)
        certificates = listeners.certificates_of(settings.tls)
        limits = _limits(settings, descriptors.raise_limit())
        internal = InternalApi(gate)
        found = listeners.listeners(gate, limits, socket, internal.answer, log.report, certificates)
        ports = []
        for each in found:
            for app in each.apps:
                stack.push_async_callback(app.close)
            try:
                ports.append(await each.server.listen(each.host, each.port))
            except (OSError, OverflowError) as error:
                why = getattr(error, "strerror", None) or error
                click.echo(
                    f"Error: cannot listen on {each.host}:{each.port}: {why}."
                    f" Choose another with {each.setting}.",
                    err=True,
                )
                return CANNOT_LISTEN
            stack.callback(each.server.stop_accepting)
        base = base_url(settings.host, ports[0], "https" if certificates else "http")
        public = settings.public_url.rstrip("/") or base
        stopping = _Stopping()
        stopping.listen()
        if certificates is not None:
            for note in listeners.notes(certificates, time.time()):
                click.echo(f"note: {note}", err=True)
        console = config.console_url(settings, public)
        _greet(
            base, public, console, gate, local is not None
        )  # before the watch: the store is one thread's
        arguments = ["--socket", socket, "--base-url", public, "--edge-url", base]
        arguments += ["--data", settings.data, *(("--config", config_file) if config_file else ())]
        control = Control(arguments, gate.metrics.child_exits)
        control.start(gate.tasks)
        gate.watch()
        if certificates is not None:
            listeners.watch(gate, certificates, [each.server for each in found])
        if settings.upstream_check_s:
            gate.tasks.every("upstream_checks", settings.upstream_check_s, internal.check)
        days = settings.retention.requests_days
        if days:
            prune = functools.partial(retention.daily, settings.data, days)
            gate.tasks.every("retention", retention.ROUND_S, prune, retention.RETRY_S)
        if local is not None:
            gate.tasks.every("local_model", 0.0, _kept(local, gate))
        click.echo(f"headgate ready {base}")
        sys.stdout.flush()
        await stopping.asked.wait()

        gate.draining = True  # /readyz says so, while requests are still accepted
        server, *others = [each.server for each in found]
        server.stopping = True
        await stopping.wait(settings.drain_delay_s)
        server.stop_accepting()
        await server.drain(settings.drain_s, stopping.hurry)
        for other in others:  # they answer until the end: who looks sees how it drains
            other.stop_accepting()
            await other.drain(0)
        await gate.tasks.stop()
        hurry = stopping.hurry.is_set()
        await control.stop(0.2 if hurry else STOP_S)
        log.flush()
        ledger.detach()
        # In a thread, so that a second signal is heard.
        lost = await asyncio.to_thread(ledger.close, 0.5 if hurry else PATIENCE_S)
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


def _kept(local: LocalModel, gate: EdgeContext) -> Callable[[], Awaitable[None]]:
    async def again() -> None:
        try:
            await local.again()
        finally:
            gate.metrics.child_exits["local"] = local.exits

    return again


def _report_stray_errors(log: Log) -> None:
    """Errors that no task awaited are logged by their places, as their texts may quote requests."""

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # Any: as asyncio has it
        error = context.get("exception")
        where = places(error) if error is not None else str(context.get("message", ""))[:200]
        log.write(LogLine(log_now(), "error", "stray_error", where=where))

    asyncio.get_running_loop().set_exception_handler(report)


def _greet(base: str, public: str, console: str, gate: EdgeContext, local: bool) -> None:
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
    if not gate.settings.admin.listen:
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
