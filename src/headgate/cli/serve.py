"""`headgate serve`: the supervisor, which starts the node, the edges, control and the local model."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import click
import msgspec

from headgate import config, output
from headgate.cli.admin import console_url
from headgate.cli.local import offer as offer_local_model
from headgate.cli.options import DataUnusable
from headgate.config import base_url
from headgate.local.model import LocalModel, LocalModelMissing
from headgate.storage.errors import StoreError
from headgate.storage.postgres.database import check_installed
from headgate.storage.sqlite.database import Store
from headgate.storage.sqlite.people import People
from headgate.storage.sqlite.process_lock import AlreadyServed, ServeLock
from headgate.supervisor import commands, notify
from headgate.supervisor.control import STOP_S, Control
from headgate.supervisor.sockets import Listeners, listen_unix
from headgate.supervisor.supervise import NotReady, Plan, Supervisor, usable_cores
from headgate.tasks import Tasks
from headgate.web import socket_path

CANNOT_LISTEN, ALREADY_SERVED = 4, 5  # exit codes
LISTEN_TRIES, LISTEN_AGAIN_S = 20, 0.05
GIVE_UP_S = 1.8  # after a second signal, whatever still runs
LOG_LEVELS = ("debug", "info", "warning", "error", "off")


class _AlreadyServed(click.ClickException):
    exit_code = ALREADY_SERVED


@click.command("serve")
@click.option("--host", help="Address to listen on; 127.0.0.1 unless the config says otherwise.")
@click.option("--port", type=int, help="Port; 8787 unless the config says otherwise, 0 for any.")
@click.option("--data", help="Directory for keys and the ledger.")
@click.option("--config", "config_file", help="Path of headgate.toml.")
@click.option("--log", type=click.Choice(LOG_LEVELS), help="How much to log, as JSON on stderr.")
@click.option("--edges", help="Processes that relay: a number, or `auto` for one per usable core.")
def command(
    host: str | None,
    port: int | None,
    data: str | None,
    config_file: str | None,
    log: str | None,
    edges: str | None,
) -> None:
    """Start the gateway; prints `headgate ready URL` when it accepts requests.

    SIGTERM, SIGINT and SIGQUIT end it when the running requests have, for up to drain_s; a second one at
    once. SIGHUP reads the configuration anew, as `headgate reload` does. Exit codes: 0 ended in good order; 1 a mistake in the configuration, or
    rows of the ledger were lost; 2 a mistake on the command line; 3 the data directory cannot be used;
    4 the address cannot be listened on; 5 another gateway serves the data directory.
    """
    with output.guard():
        given = {"host": host, "port": port, "data": data, "log": log, "edges": edges}
        overrides = {k: v for k, v in given.items() if v is not None}
        try:
            settings = config.load(config_file, os.environ, **overrides)
            lock = ServeLock(settings.data)  # before anything is written there
            if settings.database:
                check_installed()
            store = Store(settings.data)
        except AlreadyServed as error:
            raise _AlreadyServed(str(error)) from None
        except config.ConfigError as error:
            raise click.ClickException(str(error)) from None
        except StoreError as error:
            raise DataUnusable(str(error)) from None
        if any(u.preset == "local" for u in settings.upstreams.values()):
            offer_local_model(settings.data)
        try:
            code = asyncio.run(_serve(settings, store, config_file, overrides))
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
        self.kill: Callable[[], None] = lambda: None  # ends the children
        self.reload: Callable[[], object] = lambda: None

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
            # nohup: a terminal that hangs up is not for us
            loop.add_signal_handler(hangup, lambda: self.reload())
        for name in ("SIGUSR1", "SIGUSR2"):  # their default is to kill; other daemons reopen logs
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)

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
    settings: config.Settings, store: Store, config_file: str | None, overrides: dict[str, Any]
) -> int:
    """Run until a signal; the exit code."""
    async with contextlib.AsyncExitStack() as stack:
        local, local_url = None, ""
        if any(u.preset == "local" for u in settings.upstreams.values()):
            local = LocalModel(settings.data)
            try:
                local_url = await local.start()
            except LocalModelMissing as error:
                click.echo(f"Error: {error}", err=True)
                return 1
            stack.push_async_callback(local.stop)
        listeners: dict[config.AddressName, Listeners] = {}
        for address in config.addresses(settings):
            try:
                listeners[address.name] = await _listeners(address)
            except (OSError, OverflowError) as error:
                why = getattr(error, "strerror", None) or error
                click.echo(
                    f"Error: cannot listen on {address.host}:{address.port}: {why}."
                    f" Choose another with {address.setting}.",
                    err=True,
                )
                return CANNOT_LISTEN
            stack.callback(listeners[address.name].close)
        scheme = "https" if settings.tls.cert else "http"
        base = base_url(settings.host, listeners["api"].port, scheme)
        public = settings.public_url.rstrip("/") or base
        socket_path.sweep(settings.data)
        control_socket = socket_path.fresh_socket(settings.data)
        stack.callback(socket_path.clear, control_socket, settings.data)
        node_path = socket_path.node_socket(settings.data)
        node_socket = listen_unix(node_path)
        stack.callback(socket_path.clear, node_path, settings.data)
        stack.callback(node_socket.close)

        places = _Places(node_path, control_socket, local_url)
        stopping = _Stopping()
        stopping.listen()
        plan = places.plan(settings, config_file, overrides, 1)
        supervisor = Supervisor(plan, listeners, node_socket, asyncio.Event())
        supervisor.recovered = _report_recovered
        stopping.kill = supervisor.kill
        try:
            await supervisor.start()
        except NotReady as error:  # it has said itself why
            supervisor.kill()
            return error.code or 1
        console = config.console_url(settings, public)
        _greet(base, public, console, settings, store, local is not None)
        tasks = Tasks()
        arguments = ["--socket", control_socket, "--base-url", public, "--edge-url", base]
        arguments += _common(settings, config_file)
        control = Control(arguments, lambda count: supervisor.tell_exits("control", count))
        control.start(tasks)
        if local is not None:
            tasks.every("local_model", 0.0, _kept(local, supervisor))
        reloads = _Reloads(settings, config_file, overrides, supervisor, listeners, places, control)
        stopping.reload = lambda: tasks.once("reload", reloads.asked())
        path = commands.path_of(settings.data)
        if path is not None:
            answering = await commands.serve(listen_unix(str(path)), reloads.answer)
            stack.callback(path.unlink, missing_ok=True)
            stack.callback(answering.close)
        click.echo(f"headgate ready {base}")
        sys.stdout.flush()
        notify.ready()
        await stopping.asked.wait()

        notify.stopping()
        settings = reloads.settings
        code = await supervisor.stop(settings.drain_s, settings.drain_delay_s, stopping.hurry)
        await tasks.stop()
        await control.stop(0.2 if stopping.hurry.is_set() else STOP_S)
    return code


def _common(settings: config.Settings, config_file: str | None) -> list[str]:
    return ["--data", settings.data, *(("--config", config_file) if config_file else ())]


class _Places(msgspec.Struct, frozen=True):
    """Where the other processes are."""

    node: str
    control: str
    local_url: str

    def plan(
        self,
        settings: config.Settings,
        config_file: str | None,
        overrides: dict[str, Any],
        generation: int,
    ) -> Plan:
        """How the edges of a configuration are started.  Any: as the command line has it."""
        options = _common(settings, config_file)
        options += ["--log", overrides["log"]] if "log" in overrides else []
        options += ["--node", self.node, "--control", self.control]
        options += ["--local-url", self.local_url] if self.local_url else []
        edges = usable_cores() if settings.edges == "auto" else settings.edges
        days = settings.retention.requests_days
        return Plan(settings.data, edges, tuple(options), days, settings.database, generation)


class _Reloads:
    """The configuration in force, and how another one takes its place."""

    def __init__(
        self,
        settings: config.Settings,
        config_file: str | None,
        overrides: dict[str, Any],
        supervisor: Supervisor,
        listeners: dict[config.AddressName, Listeners],
        places: _Places,
        control: Control,
    ) -> None:
        self.settings = settings
        self._config_file = config_file
        self._overrides = overrides
        self._supervisor = supervisor
        self._listeners = listeners
        self._places = places
        self._control = control
        self._one_at_a_time = asyncio.Lock()

    async def answer(self, command: str) -> commands.Answer:
        """Answer a command of `headgate reload` or `headgate status`."""
        match command:
            case "reload":
                return await self.reload()
            case "processes":
                processes = self._supervisor.processes()
                if self._control.pid is not None:
                    processes.append({"name": "control", "pid": self._control.pid})
                addresses = [
                    f"{each.name} {each.host}:{self._listeners[each.name].port}"
                    for each in config.addresses(self.settings)
                ]
                return {"ok": True, "processes": processes, "addresses": addresses}
        return {"ok": False, "error": f"no command {command[:32]}"}

    async def asked(self) -> None:
        """Reload for a signal: the outcome is a line of the log."""
        answer = await self.reload()
        if answer["ok"]:
            changes = "; ".join(answer["changes"]) or "no setting has changed"
            text = f"generation {answer['generation']} serves ({changes})."
        else:
            text = f"the configuration was not reloaded, the old one stays: {answer['error']}"
        click.echo(f"note: {text}", err=True)

    async def reload(self) -> commands.Answer:
        """Read the configuration anew and put it in force, or say why not."""
        async with self._one_at_a_time:
            if self._supervisor.stopping:
                return {"ok": False, "error": "the gateway is ending."}
            notify.reloading()
            try:
                return await self._reload()
            except (config.ConfigError, NotReady) as error:
                return {"ok": False, "error": str(error)}
            except OSError as error:
                return {"ok": False, "error": f"{error.strerror or error}."}
            finally:
                notify.ready()

    async def _reload(self) -> commands.Answer:
        old = self.settings
        new = config.load(self._config_file, os.environ, **self._overrides)
        if new.data != old.data:
            raise config.ConfigError("`data` cannot change while the gateway runs; restart it.")
        if new.database != old.database:
            raise config.ConfigError("`database` cannot change while the gateway runs; restart it.")
        if any(u.preset == "local" for u in new.upstreams.values()) and not self._places.local_url:
            raise config.ConfigError("the embedded model is started with the gateway; restart it.")
        listeners, fresh = self._addressed(old, new)
        generation = self._supervisor.plan.generation + 1
        plan = self._places.plan(new, self._config_file, self._overrides, generation)
        try:
            await self._supervisor.renew(plan, listeners)
        except BaseException:
            for each in fresh:
                each.close()
            raise
        for name, each in self._listeners.items():
            if listeners.get(name) is not each:
                each.close()
        self._listeners, self.settings = listeners, new
        await self._control.renew()
        return {"ok": True, "changes": config.changes(old, new), "generation": generation}

    def _addressed(
        self, old: config.Settings, new: config.Settings
    ) -> tuple[dict[config.AddressName, Listeners], list[Listeners]]:
        """The sockets of the new configuration, and those of them that are new; OSError."""
        before = {each.name: (each.host, each.port) for each in config.addresses(old)}
        found: dict[config.AddressName, Listeners] = {}
        fresh: list[Listeners] = []
        for each in config.addresses(new):
            if before.get(each.name) == (each.host, each.port):
                found[each.name] = self._listeners[each.name]
                continue
            try:
                found[each.name] = Listeners(each.host, each.port)
            except (OSError, OverflowError) as error:
                for one in fresh:
                    one.close()
                why = getattr(error, "strerror", None) or error
                raise config.ConfigError(
                    f"cannot listen on {each.host}:{each.port}: {why}."
                ) from None
            fresh.append(found[each.name])
        return found, fresh


async def _listeners(address: config.Address) -> Listeners:
    """Listen there; the edges of a gateway that was killed a moment ago are still leaving it."""
    for _ in range(LISTEN_TRIES):
        with contextlib.suppress(OSError):
            return Listeners(address.host, address.port)
        await asyncio.sleep(LISTEN_AGAIN_S)
    return Listeners(address.host, address.port)


def _report_recovered(count: int) -> None:
    click.echo(f"note: {count} exchanges of a run that died are in the ledger.", err=True)


def _kept(local: LocalModel, supervisor: Supervisor) -> Callable[[], Awaitable[None]]:
    async def again() -> None:
        try:
            await local.again()
        finally:
            supervisor.tell_exits("local", local.exits)

    return again


def _greet(
    base: str, public: str, console: str, settings: config.Settings, store: Store, local: bool
) -> None:
    """What a stranger needs next, then the one line that scripts wait for."""
    say = click.echo
    for note in settings.notes:
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
    token = people.setup_link(now_s=time.time())
    people.close()
    if not settings.admin.listen:
        console = console_url(public, base)
    if token is None:
        say(f"  console    {console}/usage")
    else:
        say(f"  console    {console}/setup/{token}")
        say("             creates the first admin account; valid once, for 30 minutes")
    names = ", ".join(settings.upstreams)
    if local:
        say("  upstream   none configured: SmolLM2-135M on this machine answers for every model.")
        say(
            "             Set MINIMAX_API_KEY (or RUNAPI_TOKEN, HEADGATE_UPSTREAM_URL) for the real ones."
        )
    else:
        say(f"  upstream   {names}")
    say(f"  data       {settings.data}")
    if settings.host in ("127.0.0.1", "::1", "localhost"):
        say("  listening  on this machine only; `--host 0.0.0.0` accepts connections from others")
    first = ""
    if not store.keys():
        _, first = store.create_key("first", now_s=time.time())
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
