"""The table of dialects. A new wire protocol is a file beside this one and a row here."""

from headgate.wire.anthropic import AnthropicDialect
from headgate.wire.dialect import Dialect
from headgate.wire.gemini import GeminiDialect
from headgate.wire.openai import OpenAIDialect
from headgate.wire.responses import ResponsesDialect

OPENAI: Dialect = OpenAIDialect()
RESPONSES: Dialect = ResponsesDialect()
ANTHROPIC: Dialect = AnthropicDialect()
GEMINI: Dialect = GeminiDialect()

DIALECTS: dict[str, Dialect] = {d.name: d for d in (OPENAI, RESPONSES, ANTHROPIC, GEMINI)}
