"""Models as OpenAI Responses lists them."""

from collections.abc import Mapping, Sequence

from headgate.dialects import openai_api
from headgate.dialects.contract import ModelCard


def models_out(cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
    """The list of models."""
    return openai_api.models_out(cards)


def model_out(card: ModelCard) -> bytes:
    """One model."""
    return openai_api.model_out(card)
