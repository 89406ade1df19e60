"""The table of dialects. A new wire protocol is a file beside this one and a row here."""

from headgate.dialects.anthropic.request import AnthropicDialect
from headgate.dialects.contract import Dialect
from headgate.dialects.gemini.request import GeminiDialect
from headgate.dialects.openai.request import OpenAIDialect
from headgate.dialects.responses.compact import CompactDialect
from headgate.dialects.responses.request import ResponsesDialect

_RESPONSES = ResponsesDialect()
RESPONSES: Dialect = _RESPONSES
COMPACT: Dialect = CompactDialect()  # a path of Responses, and no dialect of its own
OPENAI: Dialect = OpenAIDialect(_RESPONSES.decode_request)
ANTHROPIC: Dialect = AnthropicDialect()
GEMINI: Dialect = GeminiDialect()

DIALECTS: dict[str, Dialect] = {d.name: d for d in (OPENAI, RESPONSES, ANTHROPIC, GEMINI)}
