"""OpenAI Responses, as its clients speak it: Codex above all, which speaks nothing else.

The only place for its words from clients; `responses_reply.py` holds what they get,
`responses_upstream.py` what upstreams get and send.  Sources, read 2026-11:
developers.openai.com/api/reference (types of openai 3.54), openai/codex
codex-rs/codex-api/src/sse/responses.rs, recorded bodies of Codex 0.169 and opencode 1.18.

Note:
- nothing is stored, so the whole conversation comes every time, and `store` is answered with false;
- freeform (`custom`) tools are offered as functions with one string `input`, tools of a namespace
  as "namespace__name";
- what the reply repeats of its request is kept with it (`Echo`).

Known losses: a namespace's own description, the grammar of a freeform tool (it is sent, not
enforced), item ids, citations; the input of a freeform tool comes in one delta, when it is whole.
"""

import msgspec

from headgate import bounds, jsontext
from headgate.chat import (
    Choice,
    Format,
    Message,
    Reasoning,
    Request,
    Sampling,
    Text,
)
from headgate.dialects import fields, limits, provider, unknown, unknown_fields, unknown_responses
from headgate.dialects.contract import RequestTarget
from headgate.dialects.fields import read_whole
from headgate.dialects.responses.items import messages_of
from headgate.dialects.responses.reply_wire import CompactingEcho, Echo
from headgate.dialects.responses.request_wire import (
    NOTHING,
    FormatIn,
    Json,
    ReasoningIn,
    RequestIn,
    TextIn,
    ToolIn,
    request_decoder,
)
from headgate.dialects.responses.tools import choice_of, search_of, tools_of, with_history
from headgate.errors import Refused, invalid, unsupported

# --- wire types: what clients send ---------------------------------------------------------------


# What a client may ask to be included and gets, or loses nothing by not getting.
_INCLUDED = frozenset(
    (
        "reasoning.encrypted_content",
        "file_search_call.results",
        "web_search_call.results",
        "web_search_call.action.sources",
        "message.input_image.image_url",
        "computer_call_output.output.image_url",
        "code_interpreter_call.outputs",
    )
)


# --- requests: from clients ----------------------------------------------------------------------


def _request(wire: RequestIn) -> Request:
    _refuse(wire)
    _check_labels(wire)
    warnings: list[str] = []
    compacting = _triggered(wire)
    if compacting:
        wire = msgspec.structs.replace(wire, input=wire.input[:-1])
    tools, kept = tools_of(wire.tools or (), warnings)
    if not isinstance(wire.input, str):
        tools = with_history(tools, wire.input, warnings)
    search = search_of(wire.tools or (), warnings)
    tools, choice, search = choice_of(wire, tools, search)
    messages = messages_of(wire, search is not None, warnings)
    if wire.store:
        warnings.append("store")
    if wire.truncation not in (None, "disabled"):
        warnings.append("truncation")
    bounds.check_size(wire.include, bounds.WORDS, "$.include")
    if wire.include and not _INCLUDED.issuperset(wire.include):
        warnings.append("include")
    for name in ("context_management", "moderation"):
        if fields.given(getattr(wire, name)):
            warnings.append(name)
    if wire.service_tier is not None and wire.service_tier not in unknown.TIERS:
        warnings.append("service_tier")
    if wire.text is not None and wire.text.verbosity not in (None, "medium"):
        warnings.append("text.verbosity")
    sampling = Sampling(wire.max_output_tokens, wire.temperature, wire.top_p)
    fields.check_sampling(sampling, "$.", "max_output_tokens")
    preferences = provider.preferences(wire.provider, warnings)
    request = Request(
        model=wire.model,
        messages=messages,
        stream=bool(wire.stream),
        tools=tools,
        choice=choice,
        sampling=sampling,
        reasoning=_reasoning(wire.reasoning),
        format=_format(wire.text.format if wire.text is not None else None),
        service_tier=wire.service_tier if wire.service_tier in ("priority", "standard") else "",
        session=wire.prompt_cache_key or "",
        user=wire.user or wire.safety_identifier or "",
        search=search,
        warnings=unknown.warned(warnings) if warnings else (),
        echo=_echo(wire, kept),
        preferences=preferences,
    )
    return _compacting(request) if compacting else request


def _triggered(wire: RequestIn) -> bool:
    """Whether the request asks for a summary of itself."""
    return not isinstance(wire.input, str) and wire.input[-1].type == TRIGGER


def _compacting(request: Request) -> Request:
    """The request for a summary, whose reply is one compaction item."""
    assert isinstance(request.echo, Echo)
    echo = CompactingEcho(**msgspec.structs.asdict(request.echo))
    return msgspec.structs.replace(
        request,
        messages=(*request.messages, Message("user", (Text(SUMMARIZE),))),
        choice=Choice("none") if request.tools else Choice(),
        format=None,
        search=None,
        echo=echo,
    )


def _refuse(wire: RequestIn) -> None:
    """What changes the meaning of the reply and cannot be honoured, by name."""
    if wire.previous_response_id is not None:
        raise unsupported(
            "$.previous_response_id",
            "Nothing is stored here unless the operator sets `responses.store`; send the whole `input`.",
        )
    if fields.given(wire.conversation):
        raise unsupported("$.conversation", "Nothing is stored; send the whole `input`.")
    if wire.background:
        raise unsupported("$.background", "Nothing is stored; use `stream`.")
    if fields.given(wire.prompt):
        raise unsupported("$.prompt", "Nothing is stored; send the text itself.")
    if wire.top_logprobs:
        raise unsupported("$.top_logprobs")


def _check_labels(wire: RequestIn) -> None:
    """What is repeated in the reply, up to three times in a stream, has bounds of its own."""
    bounds.check_size(wire.model, bounds.MODEL, "$.model")
    for name, value in (
        ("prompt_cache_key", wire.prompt_cache_key),
        ("safety_identifier", wire.safety_identifier),
        ("user", wire.user),
        ("service_tier", wire.service_tier),
        ("truncation", wire.truncation),
    ):
        if value is not None:
            bounds.check_size(value, bounds.LABEL, f"$.{name}")
    if wire.metadata:
        bounds.check_size(wire.metadata, bounds.METADATA, "$.metadata")
        for key, value in wire.metadata.items():
            bounds.check(max(len(key), len(value)), bounds.METADATA_VALUE, f"$.metadata.{key[:64]}")
    if wire.reasoning is not None:
        summary = wire.reasoning.summary or wire.reasoning.generate_summary
        bounds.check_size(summary, bounds.LABEL, "$.reasoning.summary")
    if wire.text is not None:
        bounds.check_size(wire.text.verbosity, bounds.LABEL, "$.text.verbosity")
        if wire.text.format is not None:
            bounds.check_size(wire.text.format.name, bounds.NAME, "$.text.format.name")


def _reasoning(wire: ReasoningIn | None) -> Reasoning:
    if wire is None or wire.effort is None:
        return Reasoning()
    return Reasoning("off" if wire.effort == "none" else "on", effort=wire.effort)


def _format(wire: FormatIn | None) -> Format | None:
    if wire is None or wire.type == "text":
        return None
    if wire.type == "json_object":
        return Format("object")
    if not fields.given(wire.schema):
        where = "$.text.format"
        raise invalid(f"Object missing required field `schema` - at `{where}`", where)
    schema = fields.schema_of(wire.schema, "$.text.format.schema")
    return Format("schema", wire.name or "", schema, bool(wire.strict))


def _echo(wire: RequestIn, tools: list[ToolIn]) -> Echo:
    text: Json = {"format": {"type": "text"}}
    if wire.text is not None:
        if wire.text.format is not None:
            schema = wire.text.format.schema
            # On one line, as it stands in events; a copy, or the whole body would be kept.
            kept = (
                fields.carried(schema, "$.text.format.schema") if fields.given(schema) else NOTHING
            )
            text["format"] = msgspec.structs.replace(wire.text.format, schema=kept)
        if wire.text.verbosity:
            text["verbosity"] = wire.text.verbosity
    asked = wire.reasoning or ReasoningIn()
    summary = asked.summary or asked.generate_summary
    tier = wire.service_tier or "auto"
    return Echo(
        instructions=wire.instructions,
        tools=tools,
        tool_choice=wire.tool_choice or "auto",
        parallel_tool_calls=wire.parallel_tool_calls is not False,
        temperature=1.0 if wire.temperature is None else wire.temperature,
        top_p=1.0 if wire.top_p is None else wire.top_p,
        max_output_tokens=wire.max_output_tokens,
        max_tool_calls=wire.max_tool_calls,
        text=text,
        reasoning={"effort": asked.effort, "summary": summary},
        metadata=wire.metadata or {},
        service_tier=tier if tier == "priority" else "default",
        prompt_cache_key=wire.prompt_cache_key,
        safety_identifier=wire.safety_identifier,
        user=wire.user,
    )


TRIGGER = "compaction_trigger"  # as the last item it asks for a summary in place of a reply
SUMMARIZE = (
    "Summarize this conversation so that another model can continue it without reading it: what the"
    " user wants, what was decided and why, what was done, with the names of files, commands and"
    " results that matter, and what is left to do. Write the summary only. Do not call any tool."
)


def request_in(body: bytes, target: RequestTarget) -> Request:
    """A client's request; raises errors.Refused."""
    return read_whole(lambda b: limits.read(_known, b, ("max_output_tokens",)), body)


_PLACES = {
    "$": unknown_fields.names_of(RequestIn),
    "$.reasoning": unknown_fields.names_of(ReasoningIn),
    "$.text": unknown_fields.names_of(TextIn),
    "$.text.format": unknown_fields.names_of(FormatIn),
}


def _known(body: bytes) -> Request:
    return unknown_fields.read(_read, body, _PLACES, unknown_responses.parameters)


def _read(body: bytes) -> Request:
    try:
        return _request(jsontext.decode_request(request_decoder, body))
    except Refused as refused:
        if unknown_fields.is_at(refused, _PLACES):
            raise
        rewritten, warnings = unknown_responses.responses(body, refused)
    return _request(jsontext.decode_request(request_decoder, rewritten)).warn(*warnings)
