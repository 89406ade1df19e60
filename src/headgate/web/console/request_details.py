"""What the ledger's short words mean, for people: warnings, outcomes, bases, protocols.

The only place that explains them; every word that the code can put into a row has an entry here, which
tests/web/test_requests_page.py checks by reading the code.  Note: a row of another
version may have a word that is unknown here; it is then shown as it is.
"""

import re
from typing import Literal

import msgspec

from headgate.dialects.registry import FACTS

Kind = Literal["repaired", "dropped", "changed", "emulated", "failed", "noted"]


class Note(msgspec.Struct, frozen=True):
    kind: Kind
    text: str


# Of what was asked: policy/history.py, policy/fit.py, the dialects, edge/exchange.py, edge/counter.py.
WARNINGS: dict[str, Note] = {
    "history: empty assistant message dropped": Note(
        "repaired",
        "An assistant message with nothing in it was taken out of the history: MiniMax refuses empty content.",
    ),
    "history: lone system message sent as user message": Note(
        "repaired",
        "The conversation was a system message only, which upstreams refuse; it was sent as the user's.",
    ),
    "history: invalid JSON arguments wrapped": Note(
        "repaired",
        "A tool call of the history had arguments that are no JSON object; they were put into one, as upstreams refuse anything else.",
    ),
    "history: orphan tool result dropped": Note(
        "repaired",
        "A tool result at the start of the history had lost its call, as when a client cuts old turns off; it was taken out.",
    ),
    "history: duplicate tool result dropped": Note(
        "repaired", "A tool call had two results; the later one was sent."
    ),
    "history: tool result moved to its call": Note(
        "repaired",
        "A tool result stood apart from its call; it was put directly after it, where upstreams look for it.",
    ),
    "history: assistant message of thinking only dropped": Note(
        "repaired",
        "An assistant message had only thinking and neither text nor calls; it was taken out, as MiniMax refuses empty content.",
    ),
    "history: system message folded into user text": Note(
        "repaired",
        "A system message in the middle of the conversation was put into the user's text beside it: the upstream takes one system message, at the start.",
    ),
    "reasoning (sealed)": Note(
        "noted",
        "The client returned the model's earlier thinking in sealed form; it was opened and given back to the model.",
    ),
    "reasoning (remembered)": Note(
        "noted",
        "The client returned none of the model's earlier thinking; the gateway remembered it and gave it back to the model.",
    ),
    "reasoning cache unavailable": Note(
        "noted",
        "The cache of all nodes could not be read, so that thinking of a turn that another node answered was not given back.",
    ),
    "response_format (emulated)": Note(
        "emulated",
        "The upstream has no structured output; the format was asked for in words, and the reply was checked against it.",
    ),
    "response_format (not valid)": Note(
        "failed",
        "The reply is not in the format that was asked for, and could not be brought into it.",
    ),
    "response_format (not asked again: the budget)": Note(
        "failed",
        "The reply was not in the format that was asked for, and the budget does not pay for asking once more.",
    ),
    "stop (emulated)": Note(
        "emulated",
        "The upstream takes no stop sequences; the gateway looked for them and cut the reply there.",
    ),
    "tool_choice (emulated)": Note(
        "emulated",
        "The upstream cannot be made to call or not to call a tool; it was asked to in words.",
    ),
    "max_tokens": Note(
        "changed", "More output tokens were asked for than the model can give; its limit was sent."
    ),
    "max_tokens (lowered to what the budget holds)": Note(
        "changed",
        "The budget does not pay for all the output that the request allows; the upstream was sent the limit that it pays for.",
    ),
    "temperature": Note(
        "changed",
        "The temperature was above what the upstream takes; the highest that it takes was sent.",
    ),
    "top_k": Note("dropped", "The upstream has no `top_k`; it was left out."),
    "seed": Note("dropped", "The upstream has no `seed`; the same request may get another reply."),
    "presence_penalty": Note("dropped", "The upstream has no penalties; it was left out."),
    "frequency_penalty": Note("dropped", "The upstream has no penalties; it was left out."),
    "logit_bias": Note("dropped", "No upstream here takes `logit_bias`; it was left out."),
    "tools": Note(
        "dropped", "The model calls no tools; they were left out, and it answered in text."
    ),
    "parallel_tool_calls": Note(
        "dropped",
        "The upstream cannot be asked to call one tool at a time; the reply may have several calls.",
    ),
    "thinking": Note(
        "dropped",
        "The model's thinking cannot be switched as asked; a model that always thinks has its thinking hidden instead.",
    ),
    "reasoning": Note(
        "dropped",
        "OpenRouter's `reasoning` could not be read, or differs from `reasoning_effort` or `thinking`, which count.",
    ),
    "thinking (max_tokens leaves no room)": Note(
        "dropped",
        "The upstream needs at least 1,024 tokens for thinking, and `max_tokens` has no room for them.",
    ),
    "service_tier": Note(
        "dropped", "The upstream does not have this service tier; the ordinary one was used."
    ),
    "store": Note(
        "dropped", "Replies are not stored here; the next request must send the whole input."
    ),
    "truncation": Note(
        "dropped", "The input is never cut; one that is too long is refused instead."
    ),
    "include": Note("dropped", "There are no log probabilities; the reply has none."),
    "context_management": Note(
        "dropped", "The conversation is not compacted here; the client must."
    ),
    "moderation": Note(
        "dropped", "There is no separate moderation here; the upstream has its own."
    ),
    "tools.web_search": Note(
        "dropped", "OpenAI's own web search is not here; the model answered without it."
    ),
    "tools.tool_search": Note(
        "dropped", "Searching for tools is OpenAI's own; the model was shown all tools at once."
    ),
    "tools.custom.format": Note(
        "emulated", "The grammar of a custom tool cannot be enforced; it was described in words."
    ),
    "input.web_search_call": Note(
        "dropped",
        "A web search of OpenAI's own in the history was left out; it means nothing here.",
    ),
    "input.file_search_call": Note(
        "dropped",
        "A file search of OpenAI's own in the history was left out; it means nothing here.",
    ),
    "input.code_interpreter_call": Note(
        "dropped",
        "A run of OpenAI's own code interpreter in the history was left out; it means nothing here.",
    ),
    "x-headgate-tags (cut)": Note(
        "changed", "A request keeps up to 16 tags of 64 printable characters; the others were cut."
    ),
    "tokens (estimated)": Note("noted", "The tokens were estimated; no upstream counted them."),
    "tokens (template assumed)": Note(
        "noted",
        "The tokens were counted with the model's vocabulary; what surrounds them is assumed.",
    ),
}
KINDS: dict[Kind, str] = {
    "repaired": "repaired",
    "dropped": "left out",
    "changed": "changed",
    "emulated": "emulated",
    "failed": "failed",
    "noted": "note",
}

OUTCOMES: dict[str, str] = {
    "stop": "The model ended its reply.",
    "stop_sequence": "A stop sequence ended the reply.",
    "length": "The reply reached the most tokens it may have.",
    "context_full": "The model's context was full.",
    "tool_calls": "The model called tools and waits for their results.",
    "content_filter": "A content filter ended the reply.",
    "client_gone": "The client left before the end; what it had been sent is what is billed.",
    "shutdown": "The gateway was stopped before the reply was complete; what had been sent is what is billed.",
    "invalid": "The request was refused: something in it cannot be honoured.",
    "context_length": "The input does not fit the model's context.",
    "blocked": "The upstream's content filter refused the input.",
    "too_large": "The request was too large.",
    "media_type": "The request was not JSON.",
    "not_found": "The upstream does not know this model or address.",
    "method": "The address does not take this method.",
    "conflict": "The request contradicts one that runs.",
    "request_timeout": "The client sent its request too slowly.",
    "unauthenticated": "The key is not valid.",
    "forbidden": "The key may not do this.",
    "no_credit": "A budget is used up, or the upstream's account has no credit.",
    "rate_limit": "A limit of requests or tokens was reached.",
    "internal": "The gateway made a mistake; its log says where.",
    "unavailable": "The gateway could not take the request then.",
    "upstream": "The upstream failed, or its reply broke off.",
    "upstream_auth": "The upstream refused the gateway's own key.",
    "upstream_quota": "The balance or plan of the gateway's account at the upstream is used up.",
    "upstream_config": "The upstream does not have the configured model or path.",
    "overloaded": "The upstream was overloaded.",
    "timeout": "The upstream took too long.",
    "crashed": "The gateway's process ended before the reply did; this was found when it started again.",
    "invalid_format": "The reply was not in the format asked for, so that the model was asked once more.",
}
BASES: dict[str, str] = {
    "upstream": "The upstream reported these tokens, and they are what is billed.",
    "disputed": "The upstream reported more tokens than the request allowed; what it allowed is billed, and the warnings show the report.",
    "estimated": "The upstream reported no tokens; the gateway estimated them from the text.",
    "partial": "The reply did not come to its end; what was relayed until then is billed.",
    "none": "Nothing was relayed, so nothing is billed.",
    "recovered": "The process ended meanwhile; what the mark of the request said is billed, which is never more than was relayed.",
}
PROTOCOLS: dict[str, str] = {name: facts.title for name, facts in FACTS.items()}


FALLBACK = Note(
    "noted", "Another route or key was asked instead: this one failed, was paused, or had no room."
)
DISPUTED = Note(
    "changed",
    "The upstream's report is above what the request allowed: more input than its bytes can be, or more output than `max_tokens`. What the request allowed is billed; compare the upstream's own bill.",
)


# What warnings of one kind have in common: their other words come from the request.
_KINDS: tuple[tuple[re.Pattern[str], Note], ...] = (
    (
        re.compile("history: |.*surrogates"),
        Note(
            "repaired",
            "The conversation had something that upstreams refuse or that the gateway does not know; it was repaired, kept as text or left out, as the words say.",
        ),
    ),
    (
        re.compile("tool result: "),
        Note(
            "changed",
            "A tool returned something that this model cannot read; the model got a note or its text instead.",
        ),
    ),
    (
        re.compile(r"web_search \("),
        Note(
            "noted",
            "The gateway searched the web for the model, so many times; the model's later rounds are part of this request.",
        ),
    ),
    (
        re.compile(r"upstream key \("),
        Note(
            "noted",
            "It was sent with an upstream key of its gateway key or account, not with one of the gateway's.",
        ),
    ),
    (
        re.compile(r"masked \("),
        Note(
            "noted",
            "So many values were replaced by names before the request left, and put back in the reply.",
        ),
    ),
    (
        re.compile(r"route \("),
        Note(
            "noted",
            "The route was chosen by these preferences, of the key, the preset or the request.",
        ),
    ),
    (
        re.compile(r"model \(answered by "),
        Note(
            "changed",
            "The route leads to another model than the one requested; it answered, at the price of the row.",
        ),
    ),
    (
        re.compile(r"model \((?:retires|retired) "),
        Note(
            "noted",
            "The model's vendor ends it on that day; the successor is the one that the vendor names.",
        ),
    ),
    (
        re.compile(r"thinking \(cannot be switched off"),
        Note(
            "changed",
            "The model always thinks; it was asked to think as little as the words say, and its thinking is hidden.",
        ),
    ),
    (
        re.compile(
            r"(?:reasoning_effort|reasoning\.effort|output_config\.effort|thinking\.budget_tokens"
            r"|thinkingConfig\.\w+) \((?:\w+ sent as|sent as effort|lowered to|raised to)"
        ),
        Note(
            "changed",
            "The model does not know this effort or budget of thinking; the nearest that it knows was sent.",
        ),
    ),
    (
        re.compile(r"max_tokens \(lowered"),
        Note("changed", "`max_tokens` was lowered to what is left, as the words say."),
    ),
    (
        re.compile(r".* \(.* ?(?:ignored|read as \S+)\)"),
        Note(
            "changed",
            "The request had a value that the gateway does not know; it was ignored, or read as the nearest known one.",
        ),
    ),
    (
        re.compile(r".*(?:skipped|kept as text)"),
        Note(
            "changed",
            "A part of the request that the gateway does not know was left out, or its text was kept.",
        ),
    ),
    (
        re.compile(r"[A-Za-z_]+(?:\.[A-Za-z0-9_]+)*"),
        Note(
            "changed",
            "This field, item or part of the request has no counterpart at the upstream, or is not known; it was left out.",
        ),
    ),
)


UNEXPLAINED = Note("noted", "This version of Headgate has no explanation of it.")


def warning(word: str) -> Note:
    """Return what a warning means for a person."""
    if word.startswith("fallback ("):
        return FALLBACK
    if word.startswith("usage (disputed"):  # and the figures
        return DISPUTED
    if known := WARNINGS.get(word):
        return known
    found = next((note for kind, note in _KINDS if kind.match(word)), None)
    return found or UNEXPLAINED
