"""What an operator asks of a running gateway: to reload its configuration, to be upgraded, to show itself."""

import asyncio
import os
import sys
from collections.abc import Awaitable
from typing import Any

import msgspec

from headgate import config, output
from headgate.config import addresses, explain, loading
from headgate.storage.sqlite.process_lock import ServeLock
from headgate.supervisor import commands, notify
from headgate.supervisor.control import Control
from headgate.supervisor.sockets import Listeners
from headgate.supervisor.supervise import NotReady, Plan, Supervisor, usable_cores
from headgate.supervisor.upgrade import (
    Inheritance,
    Predecessor,
    Successor,
    UpgradeFailed,
    inherited_addresses,
)
from headgate.tasks import Tasks


def common_options(settings: config.Settings, config_file: str | None) -> list[str]:
    """What every child is given."""
    return ["--data", settings.data, *(("--config", config_file) if config_file else ())]


class Places(msgspec.Struct, frozen=True):
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
        options = common_options(settings, config_file)
        options += ["--log", overrides["log"]] if "log" in overrides else []
        options += ["--node", self.node, "--control", self.control]
        options += ["--local-url", self.local_url] if self.local_url else []
        edges = usable_cores() if settings.edges == "auto" else settings.edges
        days = settings.retention.requests_days
        return Plan(settings.data, edges, tuple(options), days, settings.database, generation)


class Started(msgspec.Struct, frozen=True):
    """How the gateway was started."""

    config_file: str | None
    overrides: dict[str, Any]  # Any: as the command line has them
    lock: ServeLock
    out: output.Output


class Operations:
    """The configuration in force, and how another one, or another supervisor, takes its place."""

    def __init__(
        self,
        settings: config.Settings,
        started: Started,
        node_socket: int,
        supervisor: Supervisor,
        listeners: dict[addresses.AddressName, Listeners],
        places: Places,
        control: Control,
        predecessor: Predecessor | None,
        tasks: Tasks,
    ) -> None:
        """`node_socket`: the descriptor at which edges connect to the node."""
        self.settings = settings
        self.successor: Successor | None = None  # once it serves
        self.handed_over = asyncio.Event()
        self._coming: Successor | None = None  # until it serves
        self._started = started
        self._node_socket = node_socket
        self._config_file = started.config_file
        self._overrides = started.overrides
        self._supervisor = supervisor
        self._listeners = listeners
        self._places = places
        self._control = control
        self._predecessor = predecessor
        self._tasks = tasks
        self._one_at_a_time = asyncio.Lock()

    async def answer(self, command: str) -> commands.Answer:
        """Answer a command of `headgate reload`, `headgate upgrade` or `headgate status`."""
        match command:
            case "reload":
                return await self.reload()
            case "upgrade":
                return await self.upgrade()
            case "processes":
                listening = [
                    f"{each.name} {each.host}:{self._listeners[each.name].port}"
                    for each in addresses.of_settings(self.settings)
                ]
                return {"ok": True, "processes": await self._processes(), "addresses": listening}
        return {"ok": False, "error": f"no command {command[:32]}"}

    async def _processes(self) -> list[dict[str, object]]:
        """What runs, of this supervisor and of those before it."""
        found = self._supervisor.processes()
        if self._control.pid is not None:
            found.append({"name": "control", "pid": self._control.pid})
        if self.successor is not None:
            found = [{**each, "state": "ending"} for each in found]
        if self._predecessor is not None:
            found += await self._predecessor.processes()
        return found

    async def _report_processes(self) -> None:
        """Say to the supervisor that has taken over what runs here."""
        if self.successor is not None:
            self.successor.processes(await self._processes())

    async def asked(self) -> None:
        """Reload for a signal: the outcome is a line of the log."""
        answer = await self.reload()
        if answer["ok"]:
            changes = "; ".join(answer["changes"]) or "no setting has changed"
            text = f"generation {answer['generation']} serves ({changes})."
        else:
            text = f"the configuration was not reloaded, the old one stays: {answer['error']}"
        print(f"note: {text}", file=sys.stderr)

    async def upgrade_for_signal(self) -> None:
        """Upgrade for a signal: the outcome is in the log in any case."""
        await self.upgrade()

    async def reload(self) -> commands.Answer:
        """Read the configuration anew and put it in force, or say why not."""
        async with self._one_at_a_time:
            if self._over:
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

    @property
    def has_local(self) -> bool:
        """Whether the edges know the address of the embedded model."""
        return bool(self._places.local_url)

    async def with_local(self, url: str) -> commands.Answer:
        """Replace the edges by some that know the embedded model at this address, or say why not."""
        async with self._one_at_a_time:
            if self._over:
                return {"ok": False, "error": "the gateway is ending."}
            before = self._places
            self._places = msgspec.structs.replace(before, local_url=url)
            plan = self._plan(self.settings)
            try:
                await self._supervisor.renew(plan, self._listeners)
            except (NotReady, OSError) as error:
                self._places = before
                return {"ok": False, "error": str(error)}
            return {"ok": True, "generation": plan.generation}

    def _plan(self, settings: config.Settings) -> Plan:
        """Return how the edges of the next generation are started."""
        generation = self._supervisor.plan.generation + 1
        return self._places.plan(settings, self._config_file, self._overrides, generation)

    @property
    def _over(self) -> bool:
        return self._supervisor.stopping or self.successor is not None

    async def upgrade(self) -> commands.Answer:
        """Have the program as it is installed now take over, or say why it did not; the log has it too."""
        if self._one_at_a_time.locked():
            answer: commands.Answer = {"ok": False, "error": "a reload or an upgrade is running."}
        else:
            async with self._one_at_a_time:
                answer = await self._upgrade()
        if answer["ok"]:
            text = (
                f"process {answer['pid']} (version {answer['version']}) serves; this one ends with"
                " its last request."
            )
        else:
            text = f"the upgrade failed, and this process serves on: {answer['error']}"
        print(f"note: {text}", file=sys.stderr)
        return answer

    async def _upgrade(self) -> commands.Answer:
        if self._over:
            return {"ok": False, "error": "the gateway is ending."}
        if os.getpid() == 1:
            why = (
                "the gateway is the container's first process: start a container of the new image."
            )
            return {"ok": False, "error": why}
        started, generation = self._started, self._supervisor.plan.generation
        given = Inheritance(
            self.settings.data,
            generation,
            started.lock.file,
            self._node_socket,
            self._places.node,
            inherited_addresses(self._listeners),
        )
        options = [f"--{name}={value}" for name, value in self._overrides.items()]
        options += [f"--config={self._config_file}"] if self._config_file else []
        successor = Successor(
            self._supervisor.release_node,
            lambda: self._tasks.once("processes", self._report_processes()),
        )
        self._coming = successor
        try:
            out = (started.out.before(1), started.out.before(2))
            successor.start(given, options, out)
            await successor.ready()
            # From now on systemd hears it, and no longer this process.
            notify.main_pid(successor.pid)
            await successor.claim()
        except (UpgradeFailed, OSError) as error:
            why = str(error.strerror or error) if isinstance(error, OSError) else str(error)
            notify.main_pid(os.getpid())
            await successor.abort()
            await self._take_back()
            return {"ok": False, "error": f"{why.rstrip('.')}."}
        finally:
            self._coming = None
        self.successor = successor
        self.handed_over.set()
        return {
            "ok": True,
            "pid": successor.pid,
            "version": successor.version,
            "generation": generation + 1,
        }

    def cancel_upgrade(self) -> None:
        """Have an upgrade fail that is running, as the gateway is to end."""
        if self._coming is not None:
            self._coming.cancel()

    async def _take_back(self) -> None:
        """Have a node again, and be the process that serves."""
        await self._supervisor.reclaim_node()
        self._started.lock.claim()

    async def leave(self, asked: asyncio.Event) -> None:
        """End with the last request, once another supervisor serves; or when that one, or `asked`, wants it."""
        assert self.successor is not None
        self._supervisor.retire()
        over = asyncio.Event()

        async def after(waited: Awaitable[object]) -> None:
            await waited
            over.set()

        for waited in (self._all_ended(), self.successor.asked.wait(), asked.wait()):
            self._tasks.once("leave", after(waited))
        await over.wait()

    async def _all_ended(self) -> None:
        await self._supervisor.edges_ended()
        if self._predecessor is not None:
            await self._predecessor.ended(None)

    async def _reload(self) -> commands.Answer:
        old = self.settings
        new = loading.load(self._config_file, os.environ, **self._overrides)
        if new.data != old.data:
            raise config.ConfigError("`data` cannot change while the gateway runs; restart it.")
        if new.database != old.database:
            raise config.ConfigError("`database` cannot change while the gateway runs; restart it.")
        # Where it only stands in, stored upstreams may answer instead, and it does not run.
        wanted = any(u.preset == "local" for u in new.upstreams.values())
        if wanted and not self._places.local_url and not addresses.stands_in(old):
            raise config.ConfigError("the embedded model is started with the gateway; restart it.")
        listeners, fresh = self._addressed(old, new)
        plan = self._plan(new)
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
        return {"ok": True, "changes": explain.changes(old, new), "generation": plan.generation}

    def _addressed(
        self, old: config.Settings, new: config.Settings
    ) -> tuple[dict[addresses.AddressName, Listeners], list[Listeners]]:
        """The sockets of the new configuration, and those of them that are new; OSError."""
        before = {each.name: (each.host, each.port) for each in addresses.of_settings(old)}
        found: dict[addresses.AddressName, Listeners] = {}
        fresh: list[Listeners] = []
        for each in addresses.of_settings(new):
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
