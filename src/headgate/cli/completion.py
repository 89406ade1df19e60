"""`headgate completion`: what a shell needs to complete our commands, by click's own means."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that completes `headgate` in SHELL.

    \b
    eval "$(headgate completion bash)"             # in ~/.bashrc
    eval "$(headgate completion zsh)"              # in ~/.zshrc, after compinit
    headgate completion fish > ~/.config/fish/completions/headgate.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    root = ctx.find_root()
    click.echo(found(root.command, {}, "headgate", "_HEADGATE_COMPLETE").source())
