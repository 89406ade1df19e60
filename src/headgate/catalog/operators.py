"""The operator's own models and numbers, joined with those that are shipped.

A table `[models."NAME"]` changes a shipped model when its name is one, and makes a model of the
operator's own when it is not.  Note: a model of one's own has to have routes, so that a mistyped name
of a shipped model is an error.
"""

from collections.abc import Sequence

import msgspec

from headgate import config, near_names
from headgate.catalog.models import Model, Price, models
from headgate.config import ConfigError, Settings, checks

# What holds where the operator names no size; `headgate models check` says so.
CONTEXT_WINDOW = 131_072  # tokens; the smallest of the large open models of 2026
MAX_OUTPUT = 32_768  # tokens


def joined(settings: Settings) -> dict[str, Model]:
    """Return every model of this gateway by id: the shipped ones first; ConfigError where they clash."""
    known = dict(models())
    out = {
        id: _changed(m, settings.models[id]) if id in settings.models else m
        for id, m in known.items()
    }
    for id, own in settings.models.items():
        if id not in known:
            out[id] = _own(id, own, known)
    taken: dict[str, str] = {}
    for model in out.values():
        for name in model.names():
            if name in taken:
                where = "aliases" if name != model.id.lower() else ""
                raise ConfigError(
                    f"`models.{model.id}{'.' if where else ''}{where}`: the name `{name}` is also that"
                    f" of {taken[name]}. Names hold in any case, and each is one model's."
                )
            taken[name] = model.id
    return out


def prices(own: Sequence[config.Price]) -> tuple[Price, ...]:
    """Return the operator's prices as the catalog has them."""
    return tuple(msgspec.convert(p, Price, from_attributes=True) for p in own)


def upstream_prices(upstream: config.Upstream, model: Model) -> tuple[Price, ...]:
    """Return what tokens of the model cost at the upstream, where its settings say so."""
    names = model.names()
    own = [p for p in upstream.prices if p.model and p.model.lower() in names]
    return prices(own or [p for p in upstream.prices if not p.model])


def _changed(model: Model, own: config.Model) -> Model:
    """Return a shipped model with the operator's figures."""
    changes: dict[str, object] = {}
    for field in (
        "display_name",
        "description",
        "context_window",
        "max_output",
        "default_max_output",
        "input",
    ):
        if value := getattr(own, field):
            changes[field] = value
    if own.prices:
        changes["prices"] = prices(own.prices)
        changes["cache_writes"] = "reported"
    if own.aliases:
        changes["aliases"] = (*model.aliases, *own.aliases)
    if efforts := own.capabilities.get("efforts"):
        changes["efforts"] = tuple(efforts)
    max_output = own.max_output or model.max_output
    changes["default_max_output"] = min(
        own.default_max_output or model.default_max_output, max_output
    )
    changes["effort"] = own.effort
    return msgspec.structs.replace(model, **changes)


def _own(id: str, own: config.Model, known: dict[str, Model]) -> Model:
    """Return a model of the operator's own."""
    checks.check_model_name(id)
    for alias in own.aliases:
        checks.check_model_name(alias)
    if not own.routes:
        hint = near_names.hint(id, known)
        raise ConfigError(
            f"`models.{id}`: no such model, and without `routes` it cannot be one of your own.{hint}"
        )
    context = own.context_window or CONTEXT_WINDOW
    max_output = own.max_output or min(MAX_OUTPUT, context)
    efforts = own.capabilities.get("efforts") or ()
    for n, price in enumerate(own.prices[:-1]):
        following = own.prices[n + 1]
        if price.valid_from == following.valid_from and price.up_to_input is None:
            raise ConfigError(
                f"`models.{id}.prices[{n}].up_to_input` is missing: only the last price of a day holds"
                " for any size."
            )
    return Model(
        id=id,
        display_name=own.display_name or id,
        description=own.description,
        released=own.released,
        created=(own.released.toordinal() - config.EPOCH_DAY) * 86400,
        context_window=context,
        max_output=max_output,
        default_max_output=own.default_max_output or max_output,
        prices=prices(own.prices),
        input=own.input or ("text",),
        aliases=own.aliases,
        efforts=tuple(efforts),
        default_effort=str(own.capabilities.get("default_effort") or ""),
        vendor=own.vendor or "custom",
        effort=own.effort,
        own=True,
    )
