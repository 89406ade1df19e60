"""Every knob of effort in each client's own bytes, and what each upstream is sent for it."""

import json
from typing import Any

from headgate import config
from headgate.catalog import building
from headgate.catalog.routes import Route
from headgate.config import Settings
from headgate.dialects.contract import RequestTarget
from headgate.dialects.registry import DIALECTS
from headgate.edge.fitting import fitted_request

FLASH = "MiniMax-M3.1-Flash"
M3 = "MiniMax-M3"
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_J = dict[str, Any]


def route(preset: str, model: str = FLASH, **upstream: Any) -> Route:
    """Return the only route of a model over one preset, as the catalog makes it."""
    own = config.Upstream(preset=preset, key="k", **upstream)
    (found,) = building.load(Settings(upstreams={"a": own}), {}).routes(model)
    return found


def upstreams() -> dict[str, Route]:
    """Return the columns of the table."""
    gemini = {"base_url": "https://gemini.test/v1beta", "dialect": "gemini"}
    return {
        "M3.1-Flash, chat": route("minimax"),
        "M3.1-Flash, Messages": route("minimax-anthropic"),
        "M3.1-Flash, Responses": route("minimax", dialect="responses"),
        "M3.1-Flash, Gemini": route("custom", **gemini),
        "M3, chat": route("minimax", M3),
        "M2.7, chat": route("minimax", "MiniMax-M2.7"),
        "OpenAI-compatible": route("openai", M3),
        "Anthropic-compatible": route("anthropic", M3),
        "Gemini with budgets": route(
            "custom", M3, **gemini, capabilities={"thinking_switch": "budget"}
        ),
    }


def knobs() -> dict[str, dict[str, _J]]:
    """Return what each client may write, by client and by a name of the row."""
    openai = {f"`reasoning_effort: {e}`": {"reasoning_effort": e} for e in EFFORTS}
    responses = {f"`reasoning.effort: {e}`": {"reasoning": {"effort": e}} for e in EFFORTS}
    anthropic: dict[str, _J] = {
        f"`thinking: adaptive`, `output_config.effort: {e}`": {
            "thinking": {"type": "adaptive"},
            "output_config": {"effort": e},
        }
        for e in EFFORTS[2:]
    }
    anthropic["`output_config.effort: high` alone"] = {"output_config": {"effort": "high"}}
    for tokens in (1024, 4000, 10_000, 31_999):
        anthropic[f"`thinking.budget_tokens: {tokens}`"] = {
            "thinking": {"type": "enabled", "budget_tokens": tokens}
        }
    anthropic["`thinking: disabled`"] = {"thinking": {"type": "disabled"}}
    gemini: dict[str, _J] = {
        f"`thinkingLevel: {level}`": {"thinkingLevel": level}
        for level in ("MINIMAL", "LOW", "MEDIUM", "HIGH")
    }
    for budget in (0, 512, 8192, 24_576):
        gemini[f"`thinkingBudget: {budget}`"] = {"thinkingBudget": budget}
    return {"openai": openai, "responses": responses, "anthropic": anthropic, "gemini": gemini}


def body(client: str, knob: _J) -> bytes:
    """Return a whole request of this client with the knob."""
    if client == "gemini":
        return json.dumps(
            {
                "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
                "generationConfig": {"thinkingConfig": knob},
            }
        ).encode()
    if client == "responses":
        return json.dumps({"model": FLASH, "input": "hi", **knob}).encode()
    limit = {"max_tokens": 64_000} if client == "anthropic" else {}
    asked = {"model": FLASH, **limit, "messages": [{"role": "user", "content": "hi"}], **knob}
    return json.dumps(asked).encode()


def sent(client: str, knob: _J, to: Route, effort: str = "") -> tuple[_J, tuple[str, ...]]:
    """Return what the upstream is sent about thinking, and the warnings of the caller."""
    request = DIALECTS[client].decode_request(body(client, knob), RequestTarget(FLASH, False))
    fitted = fitted_request(request, to, client, 0, effort, {})
    wire = json.loads(
        DIALECTS[to.upstream.dialect].encode_request(
            fitted.request, to.capabilities, to.name, False
        )
    )
    found = {
        name: wire[name]
        for name in ("reasoning_effort", "thinking", "output_config", "reasoning")
        if wire.get(name)
    }
    for name, value in wire.get("generationConfig", {}).get("thinkingConfig", {}).items():
        if name != "includeThoughts":
            found[name] = value
    return found, fitted.request.warnings


def cell(client: str, knob: _J, to: Route) -> str:
    """Return one cell of the table."""
    found, warnings = sent(client, knob, to)
    reported = " (warned)" if warnings else ""
    return f"{', '.join(f'`{_short(k, v)}`' for k, v in found.items()) or 'nothing'}{reported}"


def _short(name: str, value: Any) -> str:
    while isinstance(value, dict) and len(value) == 1:
        inner, value = next(iter(value.items()))
        name = f"{name}.{inner}"
    if isinstance(value, dict):
        return f"{name}.budget_tokens: {value['budget_tokens']}"
    return f"{name}: {value}"
