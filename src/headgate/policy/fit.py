"""Fitting: what the caller asked for against what one route can do.

The only place that drops, clamps or emulates a wish, and so the only one that decides which of them
the caller hears of (`Request.warnings`).  The facts are
`Capabilities`.  The rule behind the rules: what changes the meaning is
emulated or refused, what only tunes is dropped with a word, and nothing is dropped in silence.

Note:
- an instruction that emulates something is appended to the system text, the same bytes each time:
  upstreams cache by prefix.  A `tool_choice` that comes and goes still costs the cached prefix;
- `tool_choice: none` takes the tools away, but not from a history that holds calls: upstreams
  refuse calls of tools that they were not told of;
- a model that cannot but think still thinks when told not to; then only its showing is off.
"""

import math
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from headgate.chat import (
    Choice,
    Format,
    Message,
    Request,
    Sampling,
    Text,
)
from headgate.dialects.capabilities import Capabilities
from headgate.errors import Failure, Refused
from headgate.policy.effort import fit_effort
from headgate.policy.fit_media import fit_media
from headgate.policy.fit_tools import fit_tools

_N = TypeVar("_N", int, float)


class Fitted(msgspec.Struct, frozen=True):
    request: Request  # what is sent
    stop: tuple[str, ...] = ()  # sequences that the gateway must look for itself
    format: Format | None = None  # what the reply was asked to be in words only


def fit(
    request: Request,
    capabilities: Capabilities,
    *,
    max_output: int,
    default_max_output: int,
    context_window: int = 0,
    input_estimate: int = 0,
    client: str = "",
    wire: str = "",
    effort: str = "",
    takers: Mapping[str, tuple[str, ...]] = {},
) -> Fitted:
    """The request as this route can honour it, or Refused where it cannot at all.

    `max_output` and `default_max_output` are tokens; the default is used only where the upstream's
    protocol must be sent a number (Anthropic's, whose thinking comes in blocks).  `context_window` is
    the tokens of input and output together, `input_estimate` those of the input; 0: not known.
    `client` and `wire` are the dialects on both sides, `effort` the operator's for requests that name
    none, and `takers` the models that take each kind of media.
    """
    notes: list[str] = []
    if not _SEEN.issubset(capabilities.input):
        request = fit_media(request, capabilities, notes, takers)
    instructions: list[str] = []
    if request.tools or request.choice != _NO_CHOICE or not capabilities.tools:
        request = fit_tools(request, capabilities, notes, instructions)
    default = default_max_output if capabilities.reasoning_form == "blocks" else None
    sampling, stop = _fit_sampling(request.sampling, capabilities, notes, max_output, default)
    if context_window and sampling.max_tokens is not None:
        left = output_within(sampling.max_tokens, input_estimate, context_window)
        if left < sampling.max_tokens:
            sampling = msgspec.structs.replace(sampling, max_tokens=left)
            if request.sampling.max_tokens is not None:
                notes.append("max_tokens (lowered to the context window)")
    format = None
    if request.format is not None and not capabilities.response_format:
        format = request.format
        instructions.append(_format_instruction(format, bool(request.tools)))
        notes.append("response_format (emulated)")
    tier = request.service_tier
    if tier and not capabilities.service_tier:
        if tier not in _ORDINARY_TIERS:
            notes.append("service_tier")
        tier = ""
    wish = request.reasoning
    if effort or wish.mode != "default" or wish.effort or wish.budget_tokens is not None:
        request = _fit_reasoning(
            request, capabilities, notes, client, wire, effort, sampling.max_tokens
        )
    if instructions or sampling is not request.sampling or tier != request.service_tier or format:
        request = msgspec.structs.replace(
            request,
            messages=_instructed(request.messages, instructions),
            sampling=sampling,
            format=None if format is not None else request.format,
            service_tier=tier,
        )
    return Fitted(request.warn(*notes), stop, format)


# Asking for what everybody gets is no wish; nothing is lost when it is not passed on.
_ORDINARY_TIERS = ("auto", "default", "standard", "standard_only")


_SEEN = frozenset(("image", "video"))  # kinds of media that there are
_NO_CHOICE, _NO_SAMPLING = Choice(), Sampling()


# --- sampling ------------------------------------------------------------------------------------


def _fit_sampling(
    asked: Sampling,
    capabilities: Capabilities,
    notes: list[str],
    max_output: int,
    default: int | None,
) -> tuple[Sampling, tuple[str, ...]]:
    """The sampling that is sent, and the stop sequences that are not."""
    if default is None and asked == _NO_SAMPLING:
        return asked, ()
    max_tokens = asked.max_tokens if asked.max_tokens is not None else default
    if max_tokens is not None and max_tokens > max_output:
        max_tokens = max_output
        if asked.max_tokens is not None:
            notes.append("max_tokens")
    temperature = asked.temperature
    if temperature is not None and temperature > capabilities.temperature_max:
        temperature = capabilities.temperature_max
        notes.append("temperature")

    stop = tuple(s for s in asked.stop if s)
    emulated = () if capabilities.stop else stop
    if emulated:
        notes.append("stop (emulated)")
    sampling = Sampling(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=asked.top_p,
        top_k=_known(notes, capabilities.top_k, "top_k", asked.top_k),
        seed=_known(notes, capabilities.seed, "seed", asked.seed),
        presence_penalty=_known(
            notes, capabilities.penalties, "presence_penalty", asked.presence_penalty or None
        ),
        frequency_penalty=_known(
            notes, capabilities.penalties, "frequency_penalty", asked.frequency_penalty or None
        ),
        stop=stop if capabilities.stop else (),
    )
    return sampling, emulated


# A reply cut shorter than this is of no use; a request that asks for less gets what it asks for.
USEFUL_OUTPUT = 256  # tokens
# A learned estimate of the input is within some percent of what the upstream counts.
WINDOW_MARGIN = 0.03  # of the estimate, kept free
SURE_EXCESS = (
    0.1  # an estimate that is so much too high is refused here; below, the upstream judges
)


def output_within(max_tokens: int, input_estimate: int, context_window: int) -> int:
    """The output that fits into the window beside the input; Refused when the input is too long.

    Upstreams refuse `max_tokens` plus the input above the window. Clients compact their history on
    the error for a prompt that is too long, but in vain where only `max_tokens` is.
    """
    left = context_window - input_estimate - math.ceil(input_estimate * WINDOW_MARGIN)
    if max_tokens <= left:
        return max_tokens
    useful = min(USEFUL_OUTPUT, max_tokens)
    if left >= useful:
        return left
    if input_estimate * (1 - SURE_EXCESS) + useful > context_window:
        raise Refused(
            Failure(
                "context_length",
                f"The input has about {input_estimate} tokens; the model's context window is"
                f" {context_window} tokens.",
                code="context_length_exceeded",
            )
        )
    return useful


def _known(notes: list[str], able: bool, name: str, value: _N | None) -> _N | None:
    """The value where the route honours it, else None and a note."""
    if value is not None and not able:
        notes.append(name)
        return None
    return value


# --- thinking ------------------------------------------------------------------------------------


def _fit_reasoning(
    request: Request,
    capabilities: Capabilities,
    notes: list[str],
    client: str,
    wire: str,
    default: str,
    max_tokens: int | None,
) -> Request:
    reasoning = fit_effort(
        request.reasoning,
        capabilities,
        notes,
        client=client,
        wire=wire,
        default=default,
        max_tokens=max_tokens,
    )
    match reasoning.mode:
        case "off" if not capabilities.thinking_off:
            if capabilities.thinking_default == "on" and reasoning.effort in ("", "none"):
                notes.append("thinking")
            reasoning = msgspec.structs.replace(reasoning, mode="default", show="no")
        case "on" if capabilities.thinking_default == "off":
            if capabilities.thinking_switch == "none":
                notes.append("thinking")
    return msgspec.structs.replace(request, reasoning=reasoning)


# --- instructions --------------------------------------------------------------------------------


def _format_instruction(format: Format, tools: bool) -> str:
    """The schema in the caller's own bytes: what is sent again must be the same again."""
    head = "Unless you call a tool, your" if tools else "Your"
    text = (
        f"{head} reply must be a single JSON object and nothing else: no prose around it and no"
        " Markdown fences."
    )
    if format.kind == "schema":
        text += f" It must be valid against this JSON Schema:\n{bytes(format.schema).decode()}"
    return text


def _instructed(messages: tuple[Message, ...], instructions: list[str]) -> tuple[Message, ...]:
    """The instructions at the end of the leading system text, which is made when there is none."""
    if not instructions:
        return messages
    text = "\n\n".join(instructions)
    at = next((i for i, m in enumerate(messages) if m.role != "system"), len(messages)) - 1
    if at < 0:
        return (Message("system", (Text(text),)), *messages)
    *parts, last = messages[at].parts or (Text(""),)
    if isinstance(last, Text):
        stated = f"{last.text}\n\n{text}" if last.text else text
        parts.append(msgspec.structs.replace(last, source=stated))
    else:
        parts += [last, Text(text)]
    system = Message("system", tuple(parts))
    return (*messages[:at], system, *messages[at + 1 :])


__all__ = ["Fitted", "fit"]
