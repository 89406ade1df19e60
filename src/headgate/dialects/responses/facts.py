"""What OpenAI Responses has by its specification."""

from typing import Final

from headgate.dialects.contract import DialectFacts

FACTS: Final = DialectFacts(
    name="responses",
    title="OpenAI Responses",
    seals="always",
    path="/responses",
    served=("/v1/responses",),
    counted=("/v1/responses/input_tokens",),
    claims=(),
    client_headers=(),
    id_prefix="resp_",
    messages="$.input",
    no_messages="`input` needs at least one item.",
    effort="reasoning.effort",
    budget="thinking.budget_tokens",
    limit_headers="openai",
    upstream_headers=(),
    models_path="/models",
    count_path="/responses/input_tokens",
    reasoning_forms=("reasoning_content",),
)
