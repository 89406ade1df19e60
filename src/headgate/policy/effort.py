"""How much a model thinks: the caller's wish against the words that one route knows.

Each protocol has a knob of its own: OpenAI's `reasoning_effort`, Responses' `reasoning.effort`,
Anthropic's `output_config.effort` and `thinking.budget_tokens`, Gemini's `thinkingLevel` and
`thinkingBudget`.  A route has words (`Capabilities.efforts`), a number of tokens (the switch
`budget`), or nothing.  What a route does not know becomes the nearest that it knows, and the caller
is warned of every difference.  Source: the four references and MiniMax's of M3.1-Flash, 2026-11.
"""

from collections.abc import Sequence

import msgspec

from headgate.chat import Reasoning
from headgate.dialects.capabilities import BUDGETS, EFFORTS, Capabilities
from headgate.dialects.registry import FACTS, OPENAI

# The most tokens of each effort, between the budgets below; above the last it is `max`.
_UP_TO = ((1024, "minimal"), (4096, "low"), (12_288, "medium"), (20_480, "high"), (28_672, "xhigh"))
# "must be >= 1024 and less than max_tokens" (Anthropic, extended thinking, 2026-11)
MIN_BUDGET = 1024


def nearest(effort: str, words: Sequence[str]) -> str:
    """Return the known word nearest to an effort; of two that are as near, the lower one."""
    at = EFFORTS.index(effort)
    return min(words, key=lambda w: (abs(EFFORTS.index(w) - at), EFFORTS.index(w)))


def of_budget(tokens: int) -> str:
    """Return the effort that a budget of tokens is about."""
    return next((effort for up_to, effort in _UP_TO if tokens <= up_to), "max")


def fit_effort(
    reasoning: Reasoning,
    capabilities: Capabilities,
    notes: list[str],
    *,
    client: str = "",
    wire: str = "",
    default: str = "",
    max_tokens: int | None = None,
) -> Reasoning:
    """Return the effort or the budget as the route takes them, before thinking itself is switched.

    `client` and `wire` are the dialects of the caller and of the upstream, `default` is the
    operator's effort for requests that name none, `max_tokens` what the upstream will be sent.
    """
    facts = FACTS.get(client, OPENAI.facts)
    level, budget = facts.effort, facts.budget
    words = _words(capabilities, wire)
    if words:
        return _in_words(reasoning, capabilities, words, notes, level, budget, default)
    if capabilities.thinking_switch == "budget":
        return _in_tokens(reasoning, notes, level, budget, default, wire, max_tokens)
    if reasoning.effort not in ("", "none"):
        notes.append(level)
    if reasoning.budget_tokens is not None:
        notes.append(budget)
    return reasoning


def _words(capabilities: Capabilities, wire: str) -> tuple[str, ...]:
    words: tuple[str, ...] = capabilities.efforts
    if not words and capabilities.thinking_switch == "effort":
        words = EFFORTS
    if wire == "gemini":  # its levels end at XHIGH
        words = tuple(w for w in words if w != "max")
    return words


def _in_words(
    reasoning: Reasoning,
    capabilities: Capabilities,
    words: tuple[str, ...],
    notes: list[str],
    level: str,
    budget: str,
    default: str,
) -> Reasoning:
    asked, tokens = reasoning.effort, reasoning.budget_tokens
    effort = ""
    if reasoning.mode == "off" and capabilities.thinking_off:
        if asked not in ("", "none"):  # the switch is sent, and it has no degrees
            notes.append(level)
    elif asked not in ("", "none"):
        effort = nearest(asked, words)
        if effort != asked:
            notes.append(f"{level} ({asked} sent as {effort})")
    elif reasoning.mode == "off":
        # A model that thinks anyway thinks at its own effort, which may be the highest.
        if asked == "none" or capabilities.default_effort:
            effort = words[0] if asked == "none" or not default else nearest(default, words)
            notes.append(f"thinking (cannot be switched off; effort {effort})")
    elif tokens is not None:
        if capabilities.thinking_switch == "budget":
            return msgspec.structs.replace(reasoning, effort="")
        effort = nearest(of_budget(tokens), words)
        notes.append(f"{budget} (sent as effort {effort})")
    elif default:
        effort = nearest(default, words)
    return msgspec.structs.replace(reasoning, effort=effort, budget_tokens=None)


def _in_tokens(
    reasoning: Reasoning,
    notes: list[str],
    level: str,
    budget: str,
    default: str,
    wire: str,
    max_tokens: int | None,
) -> Reasoning:
    asked = reasoning.effort if reasoning.effort != "none" else ""
    if reasoning.mode != "on":
        if asked:
            notes.append(level)
        return reasoning
    tokens = reasoning.budget_tokens
    if tokens is not None and asked:
        notes.append(level)  # the number is the plainer wish
    wanted = tokens if tokens is not None else BUDGETS.get(asked or default)
    if wire != "anthropic":
        if wanted is None:
            return reasoning
        return msgspec.structs.replace(reasoning, budget_tokens=wanted, effort="")
    wanted = BUDGETS["medium"] if wanted is None else wanted
    name = budget if tokens is not None else level if asked else ""
    if max_tokens is not None and max_tokens <= MIN_BUDGET:
        notes.append("thinking (max_tokens leaves no room)")
        return msgspec.structs.replace(reasoning, mode="off", effort="", budget_tokens=None)
    room = wanted if max_tokens is None else max_tokens - 1
    sent = max(MIN_BUDGET, min(wanted, room))
    if sent != wanted and name:
        notes.append(f"{name} ({'lowered' if sent < wanted else 'raised'} to {sent} tokens)")
    return msgspec.structs.replace(reasoning, budget_tokens=sent, effort="")
