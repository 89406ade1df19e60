"""What fields of the admin API must be beyond their types; each refusal names the field.

Where the store would refuse as well, this says it first, with the place.
"""

from datetime import datetime
from typing import Any

from msgspec import UNSET

from headgate.policy import networks, periods
from headgate.policy.terms import MAX_NAME_CHARS, TERMS, field_of
from headgate.web.api.shapes import Asked, seconds_of
from headgate.web.context import Problem, RequestContext, sentence


def name(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise Problem(422, f"A name has 1 to {MAX_NAME_CHARS} printable characters.", "$.name")
    return text


def terms(body: Asked) -> dict[str, Any]:
    """Return the terms that a body has, by their names.  Any: the values of its fields."""
    found: dict[str, Any] = {}
    for name, term in TERMS.items():
        field = field_of(name)
        value = getattr(body, field, UNSET)
        if value is UNSET:
            continue
        try:
            match term.kind:
                case "money":
                    value = None if value is None else periods.nano_of(value)
                case "zone":
                    periods.zone_of(value)
                case "networks":
                    value = networks.checked(value)
        except ValueError as error:
            raise Problem(422, sentence(error), f"$.{field}") from None
        found[name] = value
    return found


def future(moment: datetime | None, now_s: float) -> float | None:
    """When something ends, in Unix seconds."""
    if moment is None:
        return None
    ends_s = seconds_of(moment)
    if ends_s <= now_s:
        raise Problem(422, "That is over already; write a moment to come.", "$.expires_at")
    return ends_s


def models(visit: RequestContext, names: tuple[str, ...]) -> tuple[str, ...]:
    """The catalog's ids of the models that were named, each once."""
    catalog = visit.console_context.catalog
    ids: list[str] = []
    for n, text in enumerate(names):
        model = catalog.find(text)
        if model is None:
            hint = catalog.hint(text)
            raise Problem(422, f"There is no model `{text[:64]}`. {hint}", f"$.models[{n}]")
        ids.append(model.id)
    return tuple(dict.fromkeys(ids))
