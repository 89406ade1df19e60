"""`headgate`: the commands, each imported only when it is called, so that `--help` is quick."""

import importlib

import click

from headgate import __version__
from headgate.cli.group import CommandGroup

# name: (module below headgate.cli, its help, which stands here so that the list needs no import)
COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("serve", "Start the gateway."),
    "keys": ("keys", "Make, list, revoke and rotate API keys; see their usage."),
    "accounts": ("accounts", "Make, list, change and close accounts of several keys."),
    "upstream-keys": ("upstream_keys", "Enter, list and remove owners' own upstream keys."),
    "admin": ("admin", "Make users of the console and keys of the admin API."),
    "reload": ("reload", "Have a running gateway read its configuration anew."),
    "upgrade": ("upgrade", "Have the newly installed program take over from a running gateway."),
    "edge": ("edge", "Relay requests; `serve` starts it."),
    "node": ("node", "Admit requests and write the ledger; `serve` starts it."),
    "control": ("control", "Serve pages and console behind an edge; `serve` starts it."),
    "models": ("models", "List the models, add your own, and check what is missing."),
    "usage": ("usage", "Show tokens and money, by key, account, model, time or session."),
    "requests": ("requests", "List single requests from the ledger."),
    "audit": ("audit", "Recompute the balances from the ledger."),
    "nodes": ("nodes", "List the nodes that share a database, or forget one."),
    "migrate": ("migrate", "Copy a data directory into the database of all nodes."),
    "reconcile": ("reconcile", "Compare a provider's bill with the ledger."),
    "backup": ("backup", "Copy the database while it is in use."),
    "restore": ("restore", "Make a data directory of a backup and its pepper."),
    "connect": ("connect", "Point a coding agent or tool at this gateway, or back."),
    "run": ("run", "Start a tool that is pointed here, with nothing edited."),
    "local": ("local", "Install or remove the small model that answers without an upstream."),
    "skill": ("skill", "Print the skill for agents, install it, or make a plugin of it."),
    "status": ("status", "Show whether the gateway runs and reaches its upstreams."),
    "doctor": ("doctor", "Find what is wrong here or with an upstream, and say what to do."),
    "env": ("env", "Print the variables that point existing clients here."),
    "config": ("config", "Check, describe and show the configuration."),
    "completion": ("completion", "Print what bash, zsh or fish needs to complete these commands."),
}


class _Lazy(CommandGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"headgate.cli.{COMMANDS[cmd_name][0]}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(130)  # 128 + SIGINT, as shells have it; click's own is 1

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="headgate", message="%(prog)s %(version)s")
def _headgate() -> None:
    """Headgate is a self-hosted gateway for MiniMax's text models.

    `headgate serve` starts it; with no upstream key set, a small model on this machine answers.
    """


def main() -> None:
    """Exit codes: 0 done, 1 it did not work, 2 it was called wrongly, 130 interrupted."""
    _headgate(prog_name="headgate")
