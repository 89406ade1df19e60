"""Models as Gemini lists them."""

from collections.abc import Mapping, Sequence

from headgate import jsontext
from headgate.dialects.contract import ModelCard
from headgate.errors import invalid

_Json = dict[str, object]


def models_out(cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
    """Return the page of models that the query asks for."""
    # "The maximum is 1000, even if you pass a larger page_size" (Models.list)
    size = min(_number(query, "pageSize", 50) or 50, 1000)
    first = _number(query, "pageToken", 0)
    out: _Json = {"models": [_card(c) for c in cards[first : first + size]]}
    if first + size < len(cards):
        out["nextPageToken"] = str(first + size)
    return jsontext.encode(out)


def model_out(card: ModelCard) -> bytes:
    """Return one model."""
    return jsontext.encode(_card(card))


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name) or query.get(name[:4] + "_" + name[4:].lower()) or str(default)
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise invalid(f"Expected a number in `{name}`, got `{text[:40]}`.", f"$.{name}")
    return int(text)


def _card(card: ModelCard) -> _Json:
    return {
        "name": f"models/{card.id}",
        "baseModelId": card.id,
        "version": "1",
        "displayName": card.display_name,
        "description": card.description,
        "inputTokenLimit": card.context_window,
        "outputTokenLimit": card.max_output,
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent"],
        "thinking": card.thinking,
        "temperature": 1.0,
        "maxTemperature": 2.0,
        "topP": 0.95,
        "topK": 40,
    }
