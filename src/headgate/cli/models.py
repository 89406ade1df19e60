"""`headgate models`: what is offered, and where the requests go."""

import click
import msgspec

from headgate.cli.common import as_json, catalog_of, places, print_json, print_table, settings_of


@click.command()
@places
@as_json
def command(config_file: str | None, data: str | None, json_: bool) -> None:
    """List the models and where their requests go."""
    catalog = catalog_of(settings_of(config_file, data=data))
    routes = {
        m.id: [f"{r.upstream.name}/{r.name}" for r in catalog.routes(m.id)] for m in catalog.models
    }
    if json_:
        print_json([{**msgspec.to_builtins(m), "routes": routes[m.id]} for m in catalog.models])
        return
    rows = [
        (
            m.id,
            f"{m.context_window:,}",
            f"{m.max_output:,}",
            ", ".join(m.input),
            ", ".join(routes[m.id]) or "none",
        )
        for m in catalog.models
    ]
    print_table(("model", "context", "max output", "input", "routes"), rows)
