"""What Anthropic Messages has by its specification."""

from typing import Final

from headgate.dialects.contract import DialectFacts

FACTS: Final = DialectFacts(
    name="anthropic",
    title="Anthropic Messages",
    seals="shown",
    path="/v1/messages",
    served=("/v1/messages",),
    counted=("/v1/messages/count_tokens",),
    claims=("/v1/messages", "/v1/v1/messages", "/messages"),
    client_headers=("anthropic-version", "x-api-key"),
    id_prefix="msg_",
    messages="$.messages",
    no_messages="messages: at least one message is required",
    effort="output_config.effort",
    budget="thinking.budget_tokens",
    limit_headers="anthropic",
    upstream_headers=(("anthropic-version", "2023-06-01"),),
    models_path="/v1/models",
    count_path="/v1/messages/count_tokens",
    reasoning_forms=("blocks",),
    keepalive=b'event: ping\ndata: {"type": "ping"}\n\n',
)
