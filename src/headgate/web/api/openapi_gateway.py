"""The gateway's own paths, for openapi.py: in outline, as their protocols are the vendors'.

The fields named here are those that the gateway reads, of the structs in dialects/; a test holds them to
that.  Links read 2026-11-25.
"""

from typing import Literal

import msgspec

OPENAI = "https://platform.openai.com/docs/api-reference/chat/create"
RESPONSES = "https://platform.openai.com/docs/api-reference/responses/create"
ANTHROPIC = "https://docs.anthropic.com/en/api/messages"
ANTHROPIC_COUNT = "https://docs.anthropic.com/en/api/messages-count-tokens"
GEMINI = "https://ai.google.dev/api/generate-content"
GEMINI_COUNT = "https://ai.google.dev/api/tokens"
ANSWERED = "application/json"
STREAMED = "text/event-stream"
PLAIN = "text/plain"
# By field: JSON Schema's name of its type; "" where several are taken.
_CHAT = {
    "model": "string",
    "messages": "array",
    "stream": "boolean",
    "stream_options": "object",
    "max_completion_tokens": "integer",
    "max_tokens": "integer",
    "temperature": "number",
    "top_p": "number",
    "top_k": "integer",
    "seed": "integer",
    "presence_penalty": "number",
    "frequency_penalty": "number",
    "stop": "",
    "tools": "array",
    "tool_choice": "",
    "parallel_tool_calls": "boolean",
    "response_format": "object",
    "reasoning_effort": "string",
    "thinking": "object",
    "reasoning_split": "boolean",
    "service_tier": "string",
    "prompt_cache_key": "string",
}
_RESPONSES = {
    "model": "string",
    "input": "",
    "instructions": "string",
    "stream": "boolean",
    "max_output_tokens": "integer",
    "temperature": "number",
    "top_p": "number",
    "tools": "array",
    "tool_choice": "",
    "parallel_tool_calls": "boolean",
    "text": "object",
    "reasoning": "object",
    "service_tier": "string",
    "prompt_cache_key": "string",
    "metadata": "object",
    "store": "boolean",
    "previous_response_id": "string",
}
_MESSAGES = {
    "model": "string",
    "messages": "array",
    "max_tokens": "integer",
    "system": "",
    "stream": "boolean",
    "temperature": "number",
    "top_p": "number",
    "top_k": "integer",
    "stop_sequences": "array",
    "tools": "array",
    "tool_choice": "object",
    "thinking": "object",
    "output_config": "object",
    "metadata": "object",
    "service_tier": "string",
}
_GENERATE = {
    "contents": "array",
    "systemInstruction": "object",
    "tools": "array",
    "toolConfig": "object",
    "generationConfig": "object",
}
_MESSAGE = '[{"role": "user", "content": "Hello"}]'


class Outline(msgspec.Struct, frozen=True, kw_only=True):
    group: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    name: str
    summary: str
    open: bool = False  # asks for no key
    fields: dict[str, str] = {}
    required: tuple[str, ...] = ()
    example: str = ""
    answers: tuple[str, ...] = (ANSWERED,)
    docs: str = ""
    words: str = ""


PATHS = (
    Outline(
        group="OpenAI",
        method="POST",
        path="/v1/chat/completions",
        name="chat_completions",
        summary="Chat completions, in OpenAI's protocol.",
        fields=_CHAT,
        required=("model", "messages"),
        docs=OPENAI,
        answers=(ANSWERED, STREAMED),
        example='{"model": "MiniMax-M3", "messages": ' + _MESSAGE + "}",
        words="`thinking` and `reasoning_split` are MiniMax's. Also at /chat/completions.",
    ),
    Outline(
        group="OpenAI",
        method="POST",
        path="/v1/responses",
        name="responses",
        summary="Responses, in OpenAI's protocol.",
        fields=_RESPONSES,
        required=("model", "input"),
        docs=RESPONSES,
        answers=(ANSWERED, STREAMED),
        example='{"model": "MiniMax-M3", "input": "Hello"}',
        words="Unless the operator sets `responses.store`, nothing is stored: send the whole conversation each"
        " time. Also at /responses.",
    ),
    Outline(
        group="OpenAI",
        method="GET",
        path="/v1/responses/{id}",
        name="response",
        summary="Show a response that is kept for the asking key.",
        docs=RESPONSES,
        words="404 unless the operator sets `responses.store`.",
    ),
    Outline(
        group="OpenAI",
        method="DELETE",
        path="/v1/responses/{id}",
        name="response_delete",
        summary="Forget a response that is kept for the asking key.",
        docs=RESPONSES,
    ),
    Outline(
        group="OpenAI",
        method="GET",
        path="/v1/responses/{id}/input_items",
        name="response_input_items",
        summary="List what the model was shown for a response that is kept.",
        docs=RESPONSES,
        words="With `order` (`desc`, or `asc`), `limit` (1 to 100) and `after`, the id of an item.",
    ),
    Outline(
        group="OpenAI",
        method="POST",
        path="/v1/responses/input_tokens",
        name="responses_count",
        summary="Count the tokens of a request of the Responses protocol.",
        fields=_RESPONSES,
        required=("model", "input"),
        docs=RESPONSES,
        example='{"model": "MiniMax-M3", "input": "Hello"}',
    ),
    Outline(
        group="OpenAI",
        method="POST",
        path="/v1/responses/compact",
        name="responses_compact",
        summary="Summarize a conversation of the Responses protocol, to go on with less.",
        fields=_RESPONSES,
        required=("model", "input"),
        docs=RESPONSES,
        example='{"model": "MiniMax-M3", "input": "Hello"}',
    ),
    Outline(
        group="Anthropic",
        method="POST",
        path="/v1/messages",
        name="messages",
        summary="Messages, in Anthropic's protocol.",
        fields=_MESSAGES,
        required=("model", "messages"),
        docs=ANTHROPIC,
        answers=(ANSWERED, STREAMED),
        example='{"model": "MiniMax-M3", "max_tokens": 1024, "messages": ' + _MESSAGE + "}",
    ),
    Outline(
        group="Anthropic",
        method="POST",
        path="/v1/messages/count_tokens",
        name="messages_count",
        summary="Count the tokens of a request of Anthropic's protocol.",
        fields=_MESSAGES,
        required=("model", "messages"),
        docs=ANTHROPIC_COUNT,
        example='{"model": "MiniMax-M3", "messages": ' + _MESSAGE + "}",
    ),
    Outline(
        group="Gemini",
        method="POST",
        path="/v1beta/models/{model}:generateContent",
        name="generate_content",
        summary="Generate content, in Gemini's protocol.",
        fields=_GENERATE,
        required=("contents",),
        docs=GEMINI,
        example='{"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}',
        words="Also below /v1 and /v1alpha; a key may come as `?key=` here.",
    ),
    Outline(
        group="Gemini",
        method="POST",
        path="/v1beta/models/{model}:streamGenerateContent",
        name="stream_generate_content",
        summary="The same, as a stream.",
        fields=_GENERATE,
        required=("contents",),
        docs=GEMINI,
        answers=(STREAMED, ANSWERED),
        example='{"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}',
        words="With `?alt=sse` as server-sent events, else as one JSON array that grows.",
    ),
    Outline(
        group="Gemini",
        method="POST",
        path="/v1beta/models/{model}:countTokens",
        name="count_tokens",
        summary="Count the tokens of a request of Gemini's protocol.",
        fields=_GENERATE,
        docs=GEMINI_COUNT,
        example='{"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}',
    ),
    Outline(
        group="A key's own",
        method="POST",
        path="/v1/quote",
        name="quote",
        summary="Say what a request of OpenAI's Chat Completions would cost, without sending it.",
        fields=_CHAT,
        required=("model", "messages"),
        example='{"model": "MiniMax-M3", "max_tokens": 1000, "messages": ' + _MESSAGE + "}",
        words="No reply to the request costs more than `max_cost`. For other protocols put `quote` behind the"
        " version of their path: /v1/quote/messages, /v1/quote/responses,"
        " /v1beta/quote/models/{model}:generateContent.",
    ),
    Outline(
        group="A key's own",
        method="POST",
        path="/v1/quote/chat/completions",
        name="quote_chat_completions",
        summary="The same, at the path of the protocol.",
        fields=_CHAT,
        required=("model", "messages"),
        example='{"model": "MiniMax-M3", "messages": ' + _MESSAGE + "}",
    ),
    Outline(
        group="A key's own",
        method="POST",
        path="/v1/quote/messages",
        name="quote_messages",
        summary="The same for a request of Anthropic's Messages.",
        fields=_MESSAGES,
        required=("model", "messages"),
        example='{"model": "MiniMax-M3", "max_tokens": 1024, "messages": ' + _MESSAGE + "}",
    ),
    Outline(
        group="A key's own",
        method="POST",
        path="/v1/quote/responses",
        name="quote_responses",
        summary="The same for a request of OpenAI's Responses.",
        fields=_RESPONSES,
        required=("model", "input"),
        example='{"model": "MiniMax-M3", "input": "Hello"}',
    ),
    Outline(
        group="A key's own",
        method="GET",
        path="/v1/models",
        name="models",
        summary="List the models, in the protocol of who asks.",
        words="Also at /v1beta/models. One model: /v1/models/{model}.",
    ),
    Outline(
        group="A key's own",
        method="GET",
        path="/v1/models/{model}",
        name="model",
        summary="Show one model, in the protocol of who asks.",
    ),
    Outline(
        group="A key's own",
        method="GET",
        path="/v1/key",
        name="key",
        summary="Show the asking key: its terms, what it has spent, how its budget stands.",
        words="Where nodes share a database, `spent_on` is `all_nodes`, or `this_node` while it is away.",
    ),
    Outline(
        group="A key's own",
        method="GET",
        path="/v1/generations/{id}",
        name="generation",
        summary="Show one request of the asking key, with its usage and cost.",
        words="By the id of the reply, or of the header x-request-id.",
    ),
    Outline(
        group="A key's own",
        method="GET",
        path="/v1/sessions/{id}",
        name="session",
        summary="Show all requests of one conversation of the asking key, with their sum.",
    ),
    Outline(
        group="Health",
        method="GET",
        path="/livez",
        name="livez",
        open=True,
        answers=(PLAIN,),
        summary="Whether the process runs.",
    ),
    Outline(
        group="Health",
        method="GET",
        path="/readyz",
        name="readyz",
        open=True,
        answers=(PLAIN,),
        summary="Whether it takes requests; 503, and why not: it drains, or the database or the disk fail.",
    ),
    Outline(
        group="Health",
        method="GET",
        path="/metrics",
        name="metrics",
        answers=(PLAIN,),
        summary="Figures for Prometheus; with a management key, unless `metrics` says otherwise.",
    ),
    Outline(
        group="Health",
        method="GET",
        path="/openapi.json",
        name="openapi",
        open=True,
        summary="This document.",
    ),
)
