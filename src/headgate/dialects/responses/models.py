"""Models as OpenAI Responses lists them."""

from collections.abc import Mapping, Sequence

from headgate.dialects import openai_api
from headgate.dialects.contract import ModelCard


def models_out(cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
    """Return the list of models."""
    return openai_api.models_out(cards)


def model_out(card: ModelCard) -> bytes:
    """Return one model."""
    return openai_api.model_out(card)
