"""`headgate doctor`: what is wrong with this installation, or with one upstream, and what to do.

The only place that prints findings; `diagnostics/machine.py` looks around here and `diagnostics/checks.py` at an
upstream.  Nothing is dialled but this machine: `--online` asks the configured https hosts for the
time, `--upstream` asks one of them for replies, which cost tokens, so it says how many and asks first; a
server that was named by its address alone is asked before that which server it is, without a token.

Note: `--model` only says which model is measured, while the lines for headgate.toml
hold for every model of that upstream, as capabilities do.
"""

import asyncio
import sys
from urllib.parse import urlsplit

import click
import msgspec

from headgate import __version__
from headgate.catalog.presets import presets
from headgate.catalog.routes import Route
from headgate.cli.options import as_json, joined_of, places, print_json, print_table, settings_of
from headgate.cli.served import as_served
from headgate.config import Settings
from headgate.diagnostics import fact_trial, facts
from headgate.diagnostics.checks import MAX_S, run_checks
from headgate.diagnostics.fact import Fact, Tried
from headgate.diagnostics.findings import Finding, Report
from headgate.diagnostics.machine import here, installed
from headgate.diagnostics.probe_plan import native_of, other_region_url, plan
from headgate.diagnostics.reachability import reached
from headgate.diagnostics.upstream_access import kind_of, route_to
from headgate.net.client import Client
from headgate.net.client_errors import Timeouts

_LONGEST_S = 120.0  # of one probe


@click.command("doctor")
@click.option("--upstream", "upstream", help="Measure this one, with its real key.")
@click.option("--model", help="Which model to measure; without it the first that it serves.")
@click.option("--yes", is_flag=True, help="Do not ask before requests that cost tokens.")
@click.option("--online", is_flag=True, help="Compare the clock with the upstreams' hosts.")
@places
@as_json
def command(
    upstream: str | None,
    model: str | None,
    yes: bool,
    online: bool,
    config_file: str | None,
    data: str | None,
    json_: bool,
) -> None:
    """Find what is wrong here, or with an upstream, and say what to do.

    Exit code 0: no check failed; 1: one did; 2: called wrongly.
    """
    if upstream is not None:
        _measure(settings_of(config_file, data=data), upstream, model, yes, json_)
        return
    if model is not None or yes:
        raise click.UsageError("--model and --yes are for --upstream.")
    findings = [*installed()]
    try:
        both = joined_of(as_served(settings_of(config_file, data=data)))
        settings, catalog = both.settings, both.catalog
    except click.ClickException as error:
        do = "Correct it; `headgate config schema` describes what can be set."
        findings.append(Finding("configuration", "fail", error.message, do))
    else:
        findings += here(settings, catalog)
        findings += asyncio.run(reached(settings, catalog, online))
    if json_:
        print_json({"ok": _good(findings), "version": __version__, "findings": findings})
    else:
        _print(findings)
    sys.exit(0 if _good(findings) else 1)


def _good(findings: list[Finding]) -> bool:
    return all(f.state != "fail" for f in findings)


def _print(findings: list[Finding]) -> None:
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    width = max(len(f.check) for f in findings)
    for f in findings:
        state = click.style(f"{f.state:<4}", fg=colours[f.state])
        click.echo(f"{state}  {f.check:<{width}}  {f.result}")
        if f.do:
            click.echo(f"{'':<{6 + width}}  -> {f.do}")
    failed = sum(f.state == "fail" for f in findings)
    warned = sum(f.state == "warn" for f in findings)
    warnings = f" {warned} warning{'s' if warned > 1 else ''}." if warned else ""
    if failed:
        click.echo(f"{failed} of {len(findings)} checks failed.{warnings}")
    else:
        click.echo(f"No check failed.{warnings}" if warned else "All checks passed.")


# --- an upstream ---------------------------------------------------------------------------------


def _measure(given: Settings, name: str, model: str | None, yes: bool, json_: bool) -> None:
    both = joined_of(given)
    settings, catalog = both.settings, both.catalog
    if name not in settings.upstreams:
        raise click.UsageError(f"no upstream `{name}`. Known: {', '.join(settings.upstreams)}.")
    wanted = None
    if model is not None:
        found = catalog.find(model)
        if found is None:
            raise click.UsageError(f"no model `{model[:64]}`; see: headgate models")
        wanted = found.id
    route = route_to(catalog, name, wanted)
    if route is None:
        raise click.UsageError(f"no route to `{name}` for that; see: headgate models")
    detected = asyncio.run(kind_of(settings, catalog, name))
    if detected is not None:
        click.echo(f"The server answers that it is {detected.text}.", err=True)
        route = route_to(joined_of(given, {name: detected}).catalog, name, wanted) or route
    own = settings.upstreams[name]
    if not route.upstream.base_url:
        raise click.UsageError("the local model has no account to measure; name another upstream.")
    if own.own_keys == "only" and not route.key.secret:
        raise click.UsageError(
            f"only owners' own keys are used there; set `upstreams.{name}.key` to measure it with one."
        )
    native = native_of(route, own.preset, presets())
    other_region = other_region_url(route.upstream, own.preset, presets())
    planned = plan(route, native, bool(other_region))
    wanted_facts = facts.about(own.preset, route.model.id if model is not None else "")
    trials = fact_trial.requests(wanted_facts, route)
    host = urlsplit(route.upstream.base_url).netloc
    click.echo(
        f"This sends at most {planned.requests + trials} requests for {route.model.id} to {host}, about"
        f" {planned.input_tokens:,} tokens, and up to {planned.output_tokens:,} of replies;"
        " its provider bills them."
        + (f" {trials} of them are small and settle facts that nobody has tried." if trials else "")
        + (
            f" If the key is refused, {urlsplit(other_region).netloc} is asked once."
            if other_region
            else ""
        ),
        err=True,
    )
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("not on a terminal: say --yes to send them.")
        if not click.confirm("Go on?", default=True, err=True):
            sys.exit(1)
    report, settled = asyncio.run(
        _ask(
            settings,
            route,
            presets()[own.preset].base_url,
            other_region,
            native,
            wanted_facts,
            json_,
        )
    )
    lines = _lines(settings, name, report)
    good = _good(list(report.findings))
    if json_:
        fields: dict[str, object] = msgspec.to_builtins(report)
        print_json(
            {
                "ok": good,
                "version": __version__,
                "upstream": name,
                "detected": detected.text if detected is not None else "",
                "model": route.model.id,
                **fields,
                "facts": msgspec.to_builtins(settled),
                "headgate_toml": lines,
            }
        )
    else:
        _print(list(report.findings))
        if report.comparison:
            click.echo("\nbridge or native:")
            rows = [(c.check, c.bridge, c.native) for c in report.comparison]
            print_table(("", "bridge", "native"), rows)
        if settled:
            click.echo("\nfacts that only a real key settles:")
            facts_shown = [(f.result, f.name, f.believed, f.seen) for f in settled]
            print_table(("", "fact", "believed", "seen"), facts_shown)
            for f in settled:
                if f.do:
                    click.echo(f"{f.name}: {f.do}")
        if lines:
            click.echo("\nheadgate.toml, as measured (one sample each; for all models there):\n")
            click.echo("\n".join(lines))
        used = report.usage
        click.echo(
            f"\n{report.requests} requests, {used.input:,} tokens in, {used.output:,} out.",
            err=True,
        )
    sys.exit(0 if good else 1)


async def _ask(
    settings: Settings,
    route: Route,
    home: str,
    other_region: str,
    native: Route | None,
    wanted: tuple[Fact, ...],
    quiet: bool,
) -> tuple[Report, tuple[Tried, ...]]:
    given = settings.timeouts
    timeouts = Timeouts(given.connect, given.first_token, given.stall, min(given.total, _LONGEST_S))

    def notify(check: str) -> None:
        if not quiet:
            click.echo(f"  asking: {check}", err=True)

    client = Client()
    try:
        until_s = asyncio.get_running_loop().time() + MAX_S
        report = await run_checks(
            client,
            route,
            timeouts,
            home=home,
            other_region=other_region,
            native=native,
            notify=notify,
        )
        if report.findings[0].state == "fail":
            return report, fact_trial.untried(wanted, "not tried: there is no access")
        settled = await fact_trial.tried(client, route, wanted, timeouts, until_s, notify)
        made = report.requests + fact_trial.requests(wanted, route)
        return msgspec.structs.replace(report, requests=made), settled
    finally:
        await client.close()


def _lines(settings: Settings, name: str, report: Report) -> list[str]:
    """What to write into headgate.toml; TOML's values here are those of JSON."""
    if not report.capabilities:
        return []
    own, lines = settings.upstreams[name], []
    if not any(key.startswith(f"upstreams.{name}.") for key in settings.origins):
        # It came from the environment, which is not looked at for upstreams once the file has one.
        env = presets()[own.preset].env or ("HEADGATE_UPSTREAM_KEY" if own.key else "")
        table = {"preset": own.preset, "base_url": own.base_url, "dialect": own.dialect}
        table["key"] = f"env:{env}" if env else ""
        lines = [f"[upstreams.{name}]"]
        lines += [f"{k} = {msgspec.json.encode(v).decode()}" for k, v in table.items() if v]
        if own.allow_http:
            lines.append("allow_http = true")
        lines.append("")
    lines.append(f"[upstreams.{name}.capabilities]")
    kept = {k: v for k, v in own.capabilities.items() if k not in report.capabilities}
    lines += [
        f"{field} = {msgspec.json.encode(value).decode()}"
        for field, value in {**kept, **report.capabilities}.items()
    ]
    return lines
