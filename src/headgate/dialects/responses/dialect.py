"""OpenAI Responses as a codec: the parts of this package under the names that the contract has."""

from collections.abc import Mapping
from typing import ClassVar

from headgate.dialects.contract import DialectFacts
from headgate.dialects.openai_api import count_out
from headgate.dialects.responses.errors import failure_out
from headgate.dialects.responses.facts import FACTS
from headgate.dialects.responses.models import model_out, models_out
from headgate.dialects.responses.reply import ResponsesEncoder, reply_out
from headgate.dialects.responses.request import request_in
from headgate.dialects.responses.upstream import ResponsesDecoder, request_out
from headgate.dialects.vendor_errors import read_failure
from headgate.errors import Failure


class ResponsesDialect:
    """Plays the server and the client of OpenAI Responses."""

    facts: ClassVar[DialectFacts] = FACTS
    name: ClassVar[str] = FACTS.name

    decode_request = staticmethod(request_in)
    encoder = ResponsesEncoder
    encode_reply = staticmethod(reply_out)
    encode_count = staticmethod(count_out)
    encode_failure = staticmethod(failure_out)
    encode_models = staticmethod(models_out)
    encode_model = staticmethod(model_out)
    encode_request = staticmethod(request_out)
    decoder = ResponsesDecoder
    decode_failure = staticmethod(read_failure)

    def refuses_in_stream(self, failure: Failure, headers: Mapping[str, str]) -> bool:
        # Codex ends its turn on a status 429, and waits as the event says (0.169, 2026-11).
        return failure.kind == "rate_limit" and headers.get("originator", "").startswith("codex")

    def request_path(self, model: str, stream: bool) -> str:
        return FACTS.path
