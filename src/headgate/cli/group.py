"""Groups of commands that name the near command when one is mistyped."""

import click

from headgate import near_names


class CommandGroup(click.Group):
    """Offers the near command, or all of them, for one that does not exist."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"no command `{args[0][:40]}`.{near_names.hint(args[0], known)}")
        return super().resolve_command(ctx, args)
