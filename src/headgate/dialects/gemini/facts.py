"""What Gemini generateContent has by its specification."""

from typing import Final

from headgate.dialects.contract import DialectFacts

FACTS: Final = DialectFacts(
    name="gemini",
    title="Gemini generateContent",
    seals="always",
    path="/models/{model}:generateContent",
    served=(),  # a pattern: the path has the model and the method (edge/paths.py)
    counted=(),
    claims=("/v1beta", "/v1alpha"),
    client_headers=("x-goog-api-key", "x-goog-api-client"),
    id_prefix="",
    messages="$.contents",
    no_messages="* GenerateContentRequest.contents: contents is not specified",
    effort="thinkingConfig.thinkingLevel",
    budget="thinkingConfig.thinkingBudget",
    limit_headers="",
    upstream_headers=(),
    models_path="/models",
    count_path="/models/{model}:countTokens",
    reasoning_forms=("reasoning_content",),
    keepalive=b"\n",  # in an array, too: whitespace between its elements
)
