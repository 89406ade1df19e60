"""Gemini generateContent as a codec: the parts of this package under the names that the contract has."""

from collections.abc import Mapping
from typing import ClassVar

from headgate.dialects.contract import DialectFacts
from headgate.dialects.gemini.errors import failure_out
from headgate.dialects.gemini.facts import FACTS
from headgate.dialects.gemini.models import model_out, models_out
from headgate.dialects.gemini.reply import GeminiEncoder, count_out, reply_out
from headgate.dialects.gemini.request import request_in
from headgate.dialects.gemini.upstream import GeminiDecoder, request_out
from headgate.dialects.vendor_errors import read_failure
from headgate.errors import Failure


class GeminiDialect:
    """Plays the server and the client of Gemini generateContent."""

    facts: ClassVar[DialectFacts] = FACTS
    name: ClassVar[str] = FACTS.name

    decode_request = staticmethod(request_in)
    encoder = GeminiEncoder
    encode_reply = staticmethod(reply_out)
    encode_count = staticmethod(count_out)
    encode_failure = staticmethod(failure_out)
    encode_models = staticmethod(models_out)
    encode_model = staticmethod(model_out)
    encode_request = staticmethod(request_out)
    decoder = GeminiDecoder
    decode_failure = staticmethod(read_failure)

    def refuses_in_stream(self, failure: Failure, headers: Mapping[str, str]) -> bool:
        return failure.kind == "blocked"  # a reply of status 200, so in the form of its stream

    def request_path(self, model: str, stream: bool) -> str:
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/models/{model}:{method}"
