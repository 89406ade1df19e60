"""Runs one client after the other through a real gateway in front of every form of the upstream.

The only place that sets the gateway up for the bench (run.py) and for its short form in the tests.
"""

import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clients import CLIENTS, Place
from scripted_replies import FORMS, Upstream

import gateway as gateways

# One model for each form, all of them of the line that always thinks.
MODELS = dict(
    zip(
        FORMS,
        (
            "MiniMax-M2",
            "MiniMax-M2.1",
            "MiniMax-M2.5",
            "MiniMax-M2.5-highspeed",
            "MiniMax-M2.7",
            "MiniMax-M2.7-highspeed",
        ),
        strict=True,
    )
)
DIALECTS = {"blocks": "anthropic", "items": "responses"}
REASONING = {"items": "reasoning_content"}  # what the capability is called, where not as the form
PLAY_S = 300


def config(upstream: Upstream) -> str:
    """A headgate.toml in which every form is an upstream of its own."""
    out = []
    for form, model in MODELS.items():
        url = upstream.url(form)
        out.append(f'[upstreams.{form}]\npreset = "custom"\nbase_url = "{url}"\n')
        out.append(f'key = "env:RETENTION_KEY"\ndialect = "{DIALECTS.get(form, "openai")}"\n')
        out.append(
            f'[upstreams.{form}.capabilities]\nreasoning_form = "{REASONING.get(form, form)}"\n'
        )
        out.append(f'[models."{model}"]\nroutes = [{{ upstream = "{form}", model = "m" }}]\n')
    return "".join(out)


@contextmanager
def serving(upstream: Upstream, memory: bool) -> Iterator[gateways.Gateway]:
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "headgate.toml"
        file.write_text(f"memory = {str(memory).lower()}\n{config(upstream)}")
        running = gateways.start(
            Path(directory) / "data", "--config", str(file), RETENTION_KEY="upstream-secret"
        )
        try:
            yield running
        finally:
            gateways.stop(running)


def mark_of(name: str, turns: int) -> str:
    return f"[talk {name} {turns}]"


Play = Callable[[list[Place]], str]  # through these places; says what went wrong
Cell = tuple[int, str]  # turns kept, and what went wrong first
Row = dict[str, Cell]  # by form


def played(upstream: Upstream, gateway: gateways.Gateway, play: Play, turns: int) -> Row:
    """Run one client through all forms."""
    names = {form: f"{form}-{secrets.token_hex(6)}" for form in FORMS}
    places = [
        Place(gateway.url, gateway.key, MODELS[form], mark_of(name, turns))
        for form, name in names.items()
    ]
    output = play(places)
    row: Row = {}
    for form, name in names.items():
        talk = upstream.talks.get(name)
        kept = sum(talk.kept()) if talk is not None else 0
        wrong = ""
        if kept < turns:
            errors = [line for line in output.splitlines() if name in line]
            wrong = " ".join(errors) or (talk.first_loss() if talk is not None else output[-300:])
        row[form] = kept, wrong
    return row


def directly(name: str) -> Play:
    def play(places: list[Place]) -> str:
        errors = []
        for place in places:
            try:
                CLIENTS[name](place)
            except Exception as error:  # a client's failure is a result
                errors.append(f"{place.mark} {type(error).__name__}: {str(error)[:300]}")
        return "\n".join(errors)

    return play


def apart(*command: str) -> Play:
    """In a process of its own, all forms one after the other."""

    def play(places: list[Place]) -> str:
        where = (places[0].url, places[0].key)
        pairs = [f"{p.model}={p.mark}" for p in places]
        try:
            done = subprocess.run(
                [*command, *where, *pairs],
                capture_output=True,
                text=True,
                timeout=PLAY_S,
            )
        except subprocess.TimeoutExpired:
            return "it did not end"
        return done.stdout + done.stderr[-2000:] if done.returncode else done.stdout

    return play
