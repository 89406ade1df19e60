"""Lists the dialects. A new wire protocol is a package beside this file and a row here."""

import re

from headgate.dialects.anthropic.dialect import AnthropicDialect
from headgate.dialects.contract import Dialect, DialectFacts
from headgate.dialects.gemini.dialect import GeminiDialect
from headgate.dialects.openai.dialect import OpenAIDialect
from headgate.dialects.responses.compact import CompactDialect
from headgate.dialects.responses.dialect import ResponsesDialect

_RESPONSES = ResponsesDialect()
RESPONSES: Dialect = _RESPONSES
COMPACT: Dialect = CompactDialect()  # a path of Responses, and no dialect of its own
OPENAI: Dialect = OpenAIDialect(_RESPONSES.decode_request)
ANTHROPIC: Dialect = AnthropicDialect()
GEMINI: Dialect = GeminiDialect()

DIALECTS: dict[str, Dialect] = {d.name: d for d in (OPENAI, RESPONSES, ANTHROPIC, GEMINI)}
FACTS: dict[str, DialectFacts] = {name: dialect.facts for name, dialect in DIALECTS.items()}
_PREFIXES = "|".join(re.escape(f.id_prefix) for f in FACTS.values() if f.id_prefix)
# The id of an exchange as its client got it, with the prefix of its protocol.
REPLY_ID = rf"(?:{_PREFIXES})?([0-9a-f]{{24}})"
