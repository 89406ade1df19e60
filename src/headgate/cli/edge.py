"""`headgate edge`: one process that relays requests; `serve` starts it and gives it its sockets."""

import asyncio
import contextlib
import functools
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import click
import msgspec

from headgate import config, output
from headgate.catalog import building
from headgate.cli.options import DataUnusable
from headgate.config import addresses, loading
from headgate.diagnostics.internal_api import PLAN_ROUND_S, InternalApi
from headgate.edge import listeners
from headgate.edge.context import EdgeContext
from headgate.edge.log import LEVELS, Log, LogLine, places
from headgate.edge.log import now as log_now
from headgate.edge.overload import SWITCH_INTERVAL_S
from headgate.edge.upstream_kind import DONE_S, Detection
from headgate.net import descriptors
from headgate.net.server_limits import Limits
from headgate.storage.errors import StoreError
from headgate.storage.interface import Reports
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.ledger import Ledger
from headgate.storage.sqlite.reports import UsageReader
from headgate.supervisor.child import Channel

PATIENCE_S = 5.0  # at the end, for a disk that takes no rows
GREETED_S = 5.0  # for the node to say what the other edges know
GIVE_UP_S = 1.8  # once it has to hurry, whatever still runs


@click.command("edge")
@click.option("--data", required=True, help="Directory for keys and the ledger.")
@click.option("--config", "config_file", help="Path of headgate.toml.")
@click.option("--log", type=click.Choice(list(LEVELS)), help="How much to log.")
@click.option("--listen", multiple=True, help="NAME=FD,FD: the sockets of one address.")
@click.option("--node", required=True, help="Path of the node's socket.")
@click.option("--control", required=True, help="Path of control's socket.")
@click.option("--local-url", default="", help="Where the embedded model answers.")
@click.option("--number", type=int, default=0, help="Which of the edges this is.")
@click.option("--edges", type=int, default=1, help="How many edges there are.")
@click.option("--generation", type=int, default=1, help="Of which configuration it is.")
def command(
    data: str,
    config_file: str | None,
    log: str | None,
    listen: tuple[str, ...],
    node: str,
    control: str,
    local_url: str,
    number: int,
    edges: int,
    generation: int,
) -> None:
    """Accept requests at inherited sockets and relay them, until the supervisor says so or is gone."""
    with output.guard() as out:
        overrides = {"data": data, **({"log": log} if log else {})}
        try:
            settings = loading.load(config_file, os.environ, **overrides)
            if local_url:
                settings = addresses.with_local_url(settings, local_url)
            elif addresses.stands_in(
                settings
            ):  # stored upstreams answer, and the model does not run
                settings = msgspec.structs.replace(settings, upstreams={})
            store = Store(settings.data, create=False)
        except config.ConfigError as error:
            raise click.ClickException(str(error)) from None
        except StoreError as error:
            raise DataUnusable(str(error)) from None
        try:
            import uvloop

            loop_factory = uvloop.new_event_loop
        except ImportError:  # Windows has none
            loop_factory = None
        # What was imported stays; looking through it again and again costs 3 % of a stream.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        # A thread that works on a large body must let the loop go on soon.
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        sockets: dict[str, list[socket.socket]] = {}
        for each in listen:
            name, _, fds = each.partition("=")
            sockets[name] = [socket.socket(fileno=int(fd)) for fd in fds.split(",")]
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            try:
                edge = Edge(settings, store, out, number, edges)
                code = runner.run(edge.run(sockets, node, control))
            except config.ConfigError as error:  # what only the catalog could see
                raise click.ClickException(str(error)) from None
            except StoreError as error:
                raise DataUnusable(str(error)) from None
            finally:
                store.close()
    sys.exit(code)


class Edge:
    """One edge from its start to its end."""

    def __init__(
        self, settings: config.Settings, store: Store, out: output.Output, number: int, edges: int
    ) -> None:
        self._number, self._edges = number, edges
        self._settings = settings
        self._store = store
        self._out = out
        self._asked = asyncio.Event()  # to accept no more, or soon
        self._drain = asyncio.Event()  # to end the running requests in time
        self._hurry = asyncio.Event()
        self._orphaned = False
        self._context: EdgeContext | None = None

    def _heard(self, stated: dict[str, Any]) -> None:
        """Do what the supervisor says; Any: its words are JSON."""
        match stated.get("word"):
            case "retire":
                self._asked.set()
            case "drain":
                self._asked.set()
                self._drain.set()
            case "hurry":
                self._asked.set()
                self._drain.set()
                self._hurry.set()
                # Whatever may hang: a disk, a library.
                give_up = threading.Timer(GIVE_UP_S, os._exit, (1,))
                give_up.daemon = True
                give_up.start()
            case "exits" if self._context is not None:
                self._context.reporting.metrics.child_exits.update(stated["exits"])

    def _orphan(self) -> None:
        """Drain, and leave the address at once to the supervisor that comes next."""
        self._orphaned = True
        self._drained()

    def _drained(self) -> None:
        self._asked.set()
        self._drain.set()

    def _listen_to_signals(self) -> None:
        """Drain on SIGTERM; the others are for the supervisor, and stay blocked."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(signal.SIGTERM, self._drained)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    async def run(self, sockets: Mapping[str, list[socket.socket]], node: str, control: str) -> int:
        """Serve until the supervisor drains it; return the exit code.  `sockets`: by the name of their address."""
        settings, store = self._settings, self._store
        async with contextlib.AsyncExitStack() as stack:
            self._listen_to_signals()
            channel = Channel(self._heard, self._orphan)
            log = Log(settings.log, self._out.err)
            stack.callback(log.flush)
            _report_stray_errors(log)
            try:
                catalog = building.load(settings, os.environ)
                certificates = listeners.certificates_of(settings.tls)
            except config.ConfigError as error:
                channel.notify("failed", why=str(error))
                raise
            ledger = Ledger(settings.data, node=node)
            stack.callback(ledger.close)  # a second time changes nothing
            usage = UsageReader(settings.data)
            stack.callback(usage.close)
            everywhere: Reports | None = None
            if settings.database and store.shares:
                from headgate.storage.postgres.usage_reader import of_all_nodes

                everywhere = of_all_nodes(settings.database)
                stack.callback(everywhere.close)
            context = self._context = EdgeContext(
                settings, catalog, store, ledger, usage, log, self._edges, everywhere
            )
            stack.push_async_callback(context.close)
            context.reporting.metrics.log_lines_dropped = lambda: self._out.dropped
            if certificates is not None and not self._number:
                for note in listeners.notes(certificates, time.time()):
                    click.echo(f"note: {note}", err=True)
            limits = _limits(settings, descriptors.raise_limit())
            internal = InternalApi(context)
            found = listeners.listeners(
                context, limits, control, internal.answer, log.report, certificates
            )
            for each in found:
                for app in each.apps:
                    stack.push_async_callback(app.close)
                for sock in sockets[each.name]:
                    await each.server.listen("", 0, sock)
                stack.callback(each.server.stop_accepting)
            ledger.connect()
            with contextlib.suppress(TimeoutError):  # else it begins with what it will hear later
                await asyncio.wait_for(context.admissions.news.greeted.wait(), GREETED_S)
            context.watch()
            if certificates is not None:
                listeners.watch(context, certificates, [each.server for each in found])
            if settings.upstream_check_s:
                context.tasks.every("upstream_checks", settings.upstream_check_s, internal.check)
                context.tasks.every("plan_checks", PLAN_ROUND_S, internal.check_plans)
                context.tasks.every("upstream_kinds", DONE_S, Detection(context).round)
            channel.notify("ready")
            await self._asked.wait()

            server, *others = [each.server for each in found]
            if not self._drain.is_set():  # another generation accepts from now on
                for each in found:
                    each.server.stop_accepting()
                await asyncio.gather(*[each.server.retire(self._drain) for each in found])
                self._orphaned = True
            context.draining = True  # /readyz says so, while requests are still accepted
            server.stopping = True
            with contextlib.suppress(TimeoutError):
                delay_s = 0.0 if self._orphaned else settings.drain_delay_s
                await asyncio.wait_for(self._hurry.wait(), delay_s)
            server.stop_accepting()
            await server.drain(settings.drain_s, self._hurry)
            for other in others:  # they answer until the end: who looks sees how it drains
                other.stop_accepting()
                await other.drain(0)
            await context.tasks.stop()
            context.last_report()
            log.flush()
            ledger.detach()
            # In a thread, so that the supervisor is heard.
            patience_s = 0.5 if self._hurry.is_set() else PATIENCE_S
            lost = await asyncio.to_thread(functools.partial(ledger.close, patience_s))
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
        forwarded_header=settings.forwarded_header,
    )


def _report_stray_errors(log: Log) -> None:
    """Errors that no task awaited are logged by their places, as their texts may quote requests."""

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # Any: as asyncio has it
        error = context.get("exception")
        where = places(error) if error is not None else str(context.get("message", ""))[:200]
        log.write(LogLine(log_now(), "error", "stray_error", where=where))

    asyncio.get_running_loop().set_exception_handler(report)
