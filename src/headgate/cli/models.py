"""`headgate models`: what is offered, under which names, and where the requests go."""

import click
import msgspec

from headgate.cli.options import as_json, catalog_of, places, print_json, print_table, settings_of


@click.command()
@places
@as_json
def command(config_file: str | None, data: str | None, json_: bool) -> None:
    """List the models, the names that stand for them, and where their requests go."""
    settings = settings_of(config_file, data=data)
    catalog = catalog_of(settings)
    routes = {
        m.id: [f"{r.upstream.name}/{r.name}" for r in catalog.routes(m.id)] for m in catalog.models
    }
    own = {name.lower(): to for name, to in settings.aliases.items()}
    names = [(name, to, "aliases") for name, to in own.items()]
    names += [
        (name, to, "default_aliases")
        for name, to in catalog.default_aliases().items()
        if name not in own
    ]
    if json_:
        print_json(
            [
                {
                    **msgspec.to_builtins(m),
                    "routes": routes[m.id],
                    "aliases": [
                        {"name": name, "from": setting} for name, to, setting in names if to == m.id
                    ],
                }
                for m in catalog.models
            ]
        )
        return
    rows = [
        (
            m.id,
            f"{m.context_window:,}",
            f"{m.max_output:,}",
            ", ".join(m.input),
            ", ".join(routes[m.id]) or "none",
            ", ".join(name for name, to, _ in names if to == m.id),
        )
        for m in catalog.models
    ]
    print_table(("model", "context", "max output", "input", "routes", "other names"), rows)
