"""Models as Anthropic lists them, in the shape of the SDK's ModelInfo."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from headgate import jsontext
from headgate.dialects.contract import ModelCard
from headgate.errors import invalid

_Json = dict[str, object]


def models_out(cards: Sequence[ModelCard], query: Mapping[str, str]) -> bytes:
    """Return the page of models that the query asks for."""
    page, more = _page(cards, query)
    return jsontext.encode(
        {
            "data": [_card(card) for card in page],
            "has_more": more,
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
        }
    )


def model_out(card: ModelCard) -> bytes:
    """Return one model."""
    return jsontext.encode(_card(card))


def _page(cards: Sequence[ModelCard], query: Mapping[str, str]) -> tuple[Sequence[ModelCard], bool]:
    """The models between `after_id` and `before_id`, and whether the list goes on that way."""
    try:
        limit = max(1, min(1000, int(query.get("limit", "20"))))
    except ValueError:
        raise invalid("Expected a number from 1 to 1000.", "$.limit") from None
    ids = [card.id for card in cards]
    first, last = 0, len(ids)
    if (after := query.get("after_id")) in ids:
        first = ids.index(after) + 1
    if (before := query.get("before_id")) in ids:
        last = ids.index(before)
        return cards[max(first, last - limit) : last], last - limit > first
    return cards[first : first + limit], first + limit < last


def _card(card: ModelCard) -> _Json:
    created = datetime.fromtimestamp(card.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "model",
        "id": card.id,
        "display_name": card.display_name,
        "created_at": created,
        "lifecycle": card.lifecycle,  # required by the SDK's types since 2.12
        "deprecated_at": _midnight(card.closed),
        "retires_at": _midnight(card.retires),
        "max_input_tokens": card.context_window,
        "max_tokens": card.max_output,
        "capabilities": _can(card),
    }


def _midnight(day: str) -> str | None:
    return f"{day}T00:00:00Z" if day else None


def _can(card: ModelCard) -> _Json:
    """The SDK's ModelCapabilities, whose parts are all required (2.12)."""

    def of(able: bool) -> _Json:
        return {"supported": able}

    no = of(False)
    return {
        "batch": no,
        "citations": no,
        "code_execution": no,
        "context_management": no,
        "effort": {
            **of(bool(card.efforts)),
            **{
                word: of(word in card.efforts) for word in ("low", "medium", "high", "xhigh", "max")
            },
        },
        "image_input": of("image" in card.input),
        "pdf_input": no,
        "server_tools": {**no, "code_execution": no, "web_search": no},
        "structured_outputs": of(True),
        "thinking": {
            **of(card.thinking),
            "types": {
                "adaptive": of(card.thinking),
                "between_tools": of(card.thinking),
                "disabled": of(card.thinking_off),
                "enabled": of(card.thinking),
            },
        },
    }
