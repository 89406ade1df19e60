"""What OpenAI Chat Completions has by its specification."""

from typing import Final

from headgate.dialects.contract import DialectFacts

FACTS: Final = DialectFacts(
    name="openai",
    title="OpenAI Chat Completions",
    seals="signed",
    path="/chat/completions",
    served=("/v1/chat/completions",),
    counted=(),
    claims=(),
    client_headers=(),
    id_prefix="chatcmpl-",
    messages="$.messages",
    no_messages="`messages` needs at least one message.",
    effort="reasoning_effort",
    budget="thinking.budget_tokens",
    limit_headers="openai",
    upstream_headers=(),
    models_path="/models",
    count_path="",
    reasoning_forms=("details", "reasoning_content", "reasoning", "tags"),
    lone_system=True,
)
