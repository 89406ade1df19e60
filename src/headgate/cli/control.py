"""`headgate control` serves the pages and the console, on a unix socket behind the edge; `serve` starts it."""

import os

import click

from headgate import config, output
from headgate.config import loading


@click.command("control")
@click.option("--data", help="Directory for keys and the ledger.")
@click.option("--config", "config_file", help="Path of headgate.toml.")
@click.option("--socket", required=True, help="Path of the unix socket to listen at.")
@click.option("--base-url", required=True, help="The gateway's address as clients reach it.")
@click.option("--edge-url", help="The gateway's address as this process reaches it.")
def command(
    data: str | None,
    config_file: str | None,
    socket: str,
    base_url: str,
    edge_url: str | None,
) -> None:
    """Serve the catalog's pages, the console and the admin API behind an edge."""
    from headgate.storage.errors import StoreError
    from headgate.web import main

    overrides = {"data": data} if data is not None else {}
    try:
        settings = loading.load(config_file, os.environ, **overrides)
        with output.guard():  # a log without a reader must not stop the pages
            main.run(settings, socket, base_url.rstrip("/"), (edge_url or base_url).rstrip("/"))
    except (config.ConfigError, StoreError, OSError) as error:
        raise click.ClickException(str(error)) from None
