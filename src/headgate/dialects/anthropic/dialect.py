"""Anthropic Messages as a codec: the parts of this package under the names that the contract has."""

from collections.abc import Mapping
from typing import ClassVar

from headgate.dialects.anthropic.errors import failure_out
from headgate.dialects.anthropic.facts import FACTS
from headgate.dialects.anthropic.models import model_out, models_out
from headgate.dialects.anthropic.reply import AnthropicEncoder, count_out, reply_out
from headgate.dialects.anthropic.request import request_in
from headgate.dialects.anthropic.upstream import AnthropicDecoder, request_out
from headgate.dialects.contract import DialectFacts
from headgate.dialects.vendor_errors import read_failure
from headgate.errors import Failure


class AnthropicDialect:
    """Plays the server and the client of Anthropic Messages."""

    facts: ClassVar[DialectFacts] = FACTS
    name: ClassVar[str] = FACTS.name

    decode_request = staticmethod(request_in)
    encoder = AnthropicEncoder
    encode_reply = staticmethod(reply_out)
    encode_count = staticmethod(count_out)
    encode_failure = staticmethod(failure_out)
    encode_models = staticmethod(models_out)
    encode_model = staticmethod(model_out)
    encode_request = staticmethod(request_out)
    decoder = AnthropicDecoder
    decode_failure = staticmethod(read_failure)

    def refuses_in_stream(self, failure: Failure, headers: Mapping[str, str]) -> bool:
        return False

    def request_path(self, model: str, stream: bool) -> str:
        return FACTS.path
