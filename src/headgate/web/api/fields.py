"""What fields of the admin API must be beyond their types; each refusal names the field.

Where the store would refuse as well, this says it first, with the place.
"""

from datetime import datetime

from msgspec import UNSET

from headgate.policy import budgets, networks
from headgate.policy.terms import MAX_NAME_CHARS, BudgetTerms
from headgate.web.api.shapes import AccountChanges, Asked, KeyChanges, seconds_of
from headgate.web.context import Problem, RequestContext, sentence


def name(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise Problem(422, f"A name has 1 to {MAX_NAME_CHARS} printable characters.", "$.name")
    return text


def nano(usd: str | None) -> int | None:
    """Nano-dollars of a budget."""
    try:
        return None if usd is None else budgets.nano_of(usd)
    except ValueError as error:
        raise _problem(error, "$.budget_usd") from None


def zone(text: str) -> str:
    try:
        budgets.zone_of(text)
    except ValueError as error:
        raise _problem(error, "$.budget_zone") from None
    return text


def budget(body: KeyChanges | AccountChanges) -> BudgetTerms:
    """What a change says of the budget."""
    changes: BudgetTerms = {}
    if body.budget_usd is not UNSET:
        changes["budget_nano"] = nano(body.budget_usd)
    if body.budget_period is not UNSET:
        changes["budget_period"] = body.budget_period
    if body.budget_zone is not UNSET:
        changes["budget_zone"] = zone(body.budget_zone)
    return changes


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
    catalog = visit.desk.catalog
    ids: list[str] = []
    for n, said in enumerate(names):
        model = catalog.find(said)
        if model is None:
            hint = catalog.hint(said)
            raise Problem(422, f"There is no model `{said[:64]}`. {hint}", f"$.models[{n}]")
        ids.append(model.id)
    return tuple(dict.fromkeys(ids))


def cidrs(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The networks that a key may be used from, each once."""
    try:
        return networks.checked(texts)
    except ValueError as error:
        raise _problem(error, "$.allowed_cidrs") from None


def said(body: Asked) -> dict[str, object]:
    """The fields of a change that were given, for the record; a secret must be taken out of them."""
    return {n: v for n in body.__struct_fields__ if (v := getattr(body, n)) is not UNSET}


def _problem(error: ValueError, field: str) -> Problem:
    return Problem(422, sentence(error), field)
