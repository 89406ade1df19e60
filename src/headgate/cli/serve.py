"""`headgate serve`: the supervisor, which starts the node, the edges, control and the local model."""

import asyncio
import contextlib
import functools
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from headgate import __version__, config, output
from headgate.cli.greeting import greet, kept_usage, report_recovered
from headgate.cli.local import offer as offer_local_model
from headgate.cli.options import DataUnusable
from headgate.config import addresses, loading
from headgate.config.addresses import base_url
from headgate.local.model import LocalModel, LocalModelMissing
from headgate.storage.errors import StoreError, StoreFault
from headgate.storage.postgres.database import check_installed
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.process_lock import AlreadyServed, ServeLock
from headgate.supervisor import activation, commands, notify
from headgate.supervisor.activation import ActivationError
from headgate.supervisor.control import STOP_S, Control
from headgate.supervisor.operations import Operations, Places, Started, common_options
from headgate.supervisor.sockets import Listeners, listen_unix
from headgate.supervisor.stand_in import LOOK_S, StandIn
from headgate.supervisor.supervise import NotReady, Supervisor
from headgate.supervisor.upgrade import Predecessor, adopt
from headgate.tasks import Tasks
from headgate.web import socket_path

CANNOT_LISTEN, ALREADY_SERVED = 4, 5  # exit codes
LISTEN_TRIES, LISTEN_AGAIN_S = 20, 0.05
GIVE_UP_S = 1.8  # after a second signal, whatever still runs
LOG_LEVELS = ("debug", "info", "warning", "error", "off")


class _AlreadyServed(click.ClickException):
    exit_code = ALREADY_SERVED


class _CannotListen(click.ClickException):
    exit_code = CANNOT_LISTEN


@click.command("serve")
@click.option("--host", help="Address to listen on; 127.0.0.1 unless the config says otherwise.")
@click.option("--port", type=int, help="Port; 8787 unless the config says otherwise, 0 for any.")
@click.option("--data", help="Directory for keys and the ledger.")
@click.option("--config", "config_file", help="Path of headgate.toml.")
@click.option("--log", type=click.Choice(LOG_LEVELS), help="How much to log, as JSON on stderr.")
@click.option("--edges", help="Processes that relay: a number, or `auto` for one per usable core.")
@click.option("--take-over-from", type=int, hidden=True)
def command(
    host: str | None,
    port: int | None,
    data: str | None,
    config_file: str | None,
    log: str | None,
    edges: str | None,
    take_over_from: int | None,
) -> None:
    """Start the gateway; prints `headgate ready URL` when it accepts requests.

    SIGTERM, SIGINT and SIGQUIT end it when the running requests have, for up to drain_s; a second one at
    once. SIGHUP reads the configuration anew, as `headgate reload` does; SIGUSR2 has the program as it is
    installed now take over, as `headgate upgrade` does. Sockets of systemd (LISTEN_FDS) are used. Exit
    codes: 0 ended in good order; 1 a mistake in the configuration, or rows of the ledger were lost; 2 a
    mistake on the command line; 3 the data directory cannot be used; 4 the address cannot be listened on;
    5 another gateway serves the data directory.
    """
    # Its default is to kill, and one that means the gateway before may come now.
    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    given = {"host": host, "port": port, "data": data, "log": log, "edges": edges}
    overrides = {k: v for k, v in given.items() if v is not None}
    predecessor = None
    if take_over_from is not None:
        try:
            predecessor = Predecessor(take_over_from)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise click.ClickException(f"nothing can be taken over: {error}.") from None
    with output.guard() as out:
        try:
            code = _run(config_file, overrides, predecessor, out)
        except click.ClickException as error:
            if predecessor is not None:
                predecessor.failed(error.message)
            raise
    sys.exit(code)


def _run(
    config_file: str | None,
    overrides: dict[str, Any],
    predecessor: Predecessor | None,
    out: output.Output,
) -> int:
    """Serve until the end; the exit code.  Any: as the command line has it."""
    try:
        settings = loading.load(config_file, os.environ, **overrides)
        if predecessor is None:
            lock = ServeLock(settings.data)  # before anything is written there
        elif Path(predecessor.given.data).resolve() != Path(settings.data).resolve():
            raise config.ConfigError("`data` cannot change while the gateway runs; restart it.")
        else:
            lock = ServeLock.inherited(predecessor.given.lock)
        if settings.database:
            check_installed()
        sockets = activation.passed(os.environ)
        found = activation.assign(sockets, addresses.of_settings(settings))
        store = Store(settings.data, database=settings.database, pepper_file=settings.pepper_file)
        _follow(settings, store)
    except AlreadyServed as error:
        raise _AlreadyServed(str(error)) from None
    except (config.ConfigError, ActivationError) as error:
        raise click.ClickException(str(error)) from None
    except StoreError as error:
        raise DataUnusable(str(error)) from None
    if predecessor is None and _needs_local(settings, store):
        offer_local_model(settings.data)
    started = Started(config_file, overrides, lock, out)
    try:
        return asyncio.run(_serve(settings, started, store, found, predecessor))
    except StoreError as error:
        raise DataUnusable(str(error)) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise DataUnusable(f"{where}{error.strerror or error}.") from None
    finally:
        store.close()
        lock.release()


def _follow(settings: config.Settings, store: Store) -> None:
    """Read what other nodes have changed while this one was not there, or note why that must wait."""
    if not settings.database:
        return
    if not store.shares:
        click.echo(
            "note: keys, accounts and budgets of this data directory are its own: only its ledger goes to"
            " `database`. To share them with other nodes, stop the gateway and run `headgate migrate`.",
            err=True,
        )
        return
    try:
        store.pull()
    except StoreFault as error:
        click.echo(f"note: keys and accounts are as they were last, for now: {error}", err=True)


class _Stopping:
    """What signals ask for: first to end when the running requests have, then to end at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.hurry = asyncio.Event()
        self.kill: Callable[[], None] = lambda: None  # ends the children
        self.reload: Callable[[], object] = lambda: None
        self.upgrade: Callable[[], object] = lambda: None

    def listen(self) -> None:
        loop = asyncio.get_running_loop()
        for name in ("SIGTERM", "SIGINT", "SIGQUIT"):
            number = getattr(signal, name, None)  # Windows has only some
            if number is None or signal.getsignal(number) == signal.SIG_IGN:
                continue  # whoever started us wants it so
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, self._heard, name)
        hangup = getattr(signal, "SIGHUP", None)
        if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
            # nohup: the end of the terminal is ignored
            loop.add_signal_handler(hangup, lambda: self.reload())
        if hasattr(signal, "SIGUSR1"):  # its default is to kill; other daemons reopen logs
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        if hasattr(signal, "SIGUSR2"):
            loop.add_signal_handler(signal.SIGUSR2, lambda: self.upgrade())

    def _heard(self, name: str) -> None:
        if not self.asked.is_set():
            self.asked.set()
        else:
            self.hurry.set()
            # Whatever may hang: a disk, a child, a library.
            give_up = threading.Timer(GIVE_UP_S, self._give_up)
            give_up.daemon = True
            give_up.start()

    def _give_up(self) -> None:
        self.kill()
        os._exit(1)


async def _serve(
    settings: config.Settings,
    started: Started,
    store: Store,
    found: dict[addresses.AddressName, Listeners],
    predecessor: Predecessor | None,
) -> int:
    """Run until a signal; the exit code.  `found`: sockets that systemd has opened."""
    config_file, overrides = started.config_file, started.overrides
    async with contextlib.AsyncExitStack() as stack:
        stopping = _Stopping()
        if predecessor is not None:
            predecessor.attach(lambda: os._exit(1))  # its children end by themselves then
        local, local_url = LocalModel(settings.data), ""
        stack.push_async_callback(local.stop)
        if _needs_local(settings, store):
            try:
                local_url = await local.start()
            except LocalModelMissing as error:
                raise click.ClickException(str(error)) from None
        listeners = await _all_listeners(settings, found, predecessor, stack)
        scheme = "https" if settings.tls.cert else "http"
        base = base_url(settings.host, listeners["api"].port, scheme)
        public = settings.public_url.rstrip("/") or base
        socket_path.sweep(settings.data)
        control_socket = socket_path.fresh_socket(settings.data)
        stack.callback(socket_path.clear, control_socket, settings.data)
        ours = _Ours(settings.data)
        stack.callback(ours.clear)
        if predecessor is None:
            node_path = ours.node_path = socket_path.node_socket(settings.data)
            node_socket = listen_unix(node_path)
        else:
            node_path = predecessor.given.node_path
            node_socket = socket.socket(fileno=predecessor.given.node)
        stack.callback(node_socket.close)

        places = Places(node_path, control_socket, local_url)
        stopping.listen()
        generation = 1 if predecessor is None else predecessor.given.generation + 1
        plan = places.plan(settings, config_file, overrides, generation)
        supervisor = Supervisor(plan, listeners, node_socket, asyncio.Event())
        supervisor.recovered = report_recovered
        stopping.kill = supervisor.kill
        try:
            if predecessor is not None:
                await predecessor.release_node()
            await supervisor.start()
        except NotReady as error:
            if predecessor is None:
                supervisor.kill()
                return error.code or 1  # it has said itself why
            supervisor.kill(ready=False)
            raise click.ClickException(str(error)) from None
        if predecessor is None:
            console = addresses.console_url(settings, public)
            greet(base, public, console, settings, store, bool(local_url))
        else:
            await predecessor.ready(__version__)
        tasks = Tasks()
        arguments = ["--socket", control_socket, "--base-url", public, "--edge-url", base]
        arguments += common_options(settings, config_file)
        control = Control(arguments, lambda count: supervisor.notify_exits("control", count))
        control.start(tasks)
        fd = node_socket.fileno()
        operations = Operations(
            settings, started, fd, supervisor, listeners, places, control, predecessor, tasks
        )
        keep_local = kept_usage(local, supervisor)
        if local_url:
            tasks.every("local_model", 0.0, keep_local)
        else:
            kept = functools.partial(tasks.every, "local_model", 0.0, keep_local)
            tasks.every("stand_in", LOOK_S, StandIn(store, operations, local.start, kept).round)
        stopping.reload = lambda: tasks.once("reload", operations.asked())
        stopping.upgrade = lambda: tasks.once("upgrade", operations.upgrade_for_signal())
        path = commands.path_of(settings.data)
        if path is not None:
            answering = await commands.serve(listen_unix(str(path)), operations.answer)
            ours.commands_path = path
            stack.callback(answering.close)
        if predecessor is not None:
            ours.node_path = node_path
            started.lock.claim()
        click.echo(f"headgate ready {base}")
        sys.stdout.flush()
        notify.ready()
        if predecessor is not None:
            predecessor.serving()
        tasks.once("handed over", _after(operations.handed_over, stopping.asked.set))
        await stopping.asked.wait()

        settings = operations.settings
        delay_s = settings.drain_delay_s
        if operations.successor is not None:
            delay_s, ours.handed_over = 0.0, True
            if path is not None:
                answering.close()
            stopping.asked.clear()  # a signal from now on is for what still runs here
            tasks.once("hurry", _after(operations.successor.hurry, stopping.hurry.set))
            await operations.leave(stopping.asked)
            stopping.asked.set()
        else:
            operations.cancel_upgrade()
            notify.stopping()
        others_ended = None
        if predecessor is not None:
            predecessor.drain()
            tasks.once("hurry", _after(stopping.hurry, predecessor.hurry))
            others_ended = predecessor.ended
        code = await supervisor.stop(settings.drain_s, delay_s, stopping.hurry, others_ended)
        await tasks.stop()
        await control.stop(0.2 if stopping.hurry.is_set() else STOP_S)
    return code


async def _after(event: asyncio.Event, then: Callable[[], None]) -> None:
    await event.wait()
    then()


class _Ours:
    """The sockets in the data directory that are to be taken away when this supervisor ends."""

    def __init__(self, data: str) -> None:
        self._data = data
        self.node_path = ""
        self.commands_path: Path | None = None
        self.handed_over = False  # another supervisor uses them

    def clear(self) -> None:
        if self.handed_over:
            return
        if self.node_path:
            socket_path.clear(self.node_path, self._data)
        if self.commands_path is not None:
            self.commands_path.unlink(missing_ok=True)


async def _all_listeners(
    settings: config.Settings,
    found: dict[addresses.AddressName, Listeners],
    predecessor: Predecessor | None,
    stack: contextlib.AsyncExitStack,
) -> dict[addresses.AddressName, Listeners]:
    """Listen on all addresses that are configured; _CannotListen."""
    given = predecessor.given.addresses if predecessor is not None else ()
    taken: set[addresses.AddressName] = set()
    out: dict[addresses.AddressName, Listeners] = {}
    for address in addresses.of_settings(settings):
        listeners = found.get(address.name) or adopt(address, given, taken)
        if listeners is None:
            try:
                listeners = await _listeners(address)
            except (OSError, OverflowError) as error:
                why = getattr(error, "strerror", None) or error
                raise _CannotListen(
                    f"cannot listen on {address.host}:{address.port}: {why}."
                    f" Choose another with {address.setting}."
                ) from None
        out[address.name] = listeners
        stack.callback(listeners.close)
    return out


async def _listeners(address: addresses.Address) -> Listeners:
    """Listen there; the edges of a gateway that was killed a moment ago are still leaving it."""
    for _ in range(LISTEN_TRIES):
        with contextlib.suppress(OSError):
            return Listeners(address.host, address.port)
        await asyncio.sleep(LISTEN_AGAIN_S)
    return Listeners(address.host, address.port)


def _needs_local(settings: config.Settings, store: Store) -> bool:
    """Whether the embedded model answers: it is configured, or nothing else is, here or in the database."""
    wanted = any(u.preset == "local" for u in settings.upstreams.values())
    return wanted and not (addresses.stands_in(settings) and store.own_upstreams())
