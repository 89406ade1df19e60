"""OpenAI Chat Completions as a codec: the parts of this package under the names that the contract has."""

from collections.abc import Callable, Mapping
from typing import ClassVar

from headgate.chat import Request
from headgate.dialects.contract import DialectFacts, RequestTarget
from headgate.dialects.openai.errors import failure_out
from headgate.dialects.openai.facts import FACTS
from headgate.dialects.openai.models import model_out, models_out
from headgate.dialects.openai.reply import OpenAIEncoder, reply_out
from headgate.dialects.openai.request import request_in
from headgate.dialects.openai.upstream import OpenAIDecoder, request_out
from headgate.dialects.openai_api import count_out
from headgate.dialects.vendor_errors import read_failure
from headgate.errors import Failure


class OpenAIDialect:
    """Plays the server and the client of OpenAI Chat Completions."""

    facts: ClassVar[DialectFacts] = FACTS
    name: ClassVar[str] = FACTS.name

    def __init__(self, of_input: Callable[[bytes, RequestTarget], Request] | None = None) -> None:
        """`of_input` reads a body of Responses, which Cursor sends to this path too."""
        self._of_input = of_input

    def decode_request(self, body: bytes, target: RequestTarget) -> Request:
        return request_in(body, target, self._of_input)

    encoder = OpenAIEncoder
    encode_reply = staticmethod(reply_out)
    encode_count = staticmethod(count_out)
    encode_failure = staticmethod(failure_out)
    encode_models = staticmethod(models_out)
    encode_model = staticmethod(model_out)
    encode_request = staticmethod(request_out)
    decoder = OpenAIDecoder
    decode_failure = staticmethod(read_failure)

    def refuses_in_stream(self, failure: Failure, headers: Mapping[str, str]) -> bool:
        return False

    def request_path(self, model: str, stream: bool) -> str:
        return FACTS.path
