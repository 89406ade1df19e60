"""Models and the routes to them: the catalog's data joined with the operator's settings.

The only place that reads models.toml, upstreams.toml and aliases.toml.  A client's name for a model
is looked up here: any case, `minimax/`, `MiniMaxAI/` and `models/` in front, the operator's aliases,
and last the names that agents choose by themselves.
"""

import difflib
import fnmatch
from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime

import msgspec

from headgate import config
from headgate.catalog import cards
from headgate.catalog.models import Model
from headgate.catalog.presets import DefaultAliases, KindOfName
from headgate.catalog.routes import Route
from headgate.dialects.contract import ModelCard

_PREFIXES = ("models/", "minimax/", "minimaxai/")
_MAX_NAME_CHARS = 256  # longer than any name; looking for prefixes costs its square
_NEAR = (
    0.75  # of difflib's ratio: a digit or a few letters of a name; a third of it is another name
)


class Catalog:
    """The models that this gateway offers, and how each is reached."""

    def __init__(
        self,
        models: tuple[Model, ...],
        routes: Mapping[str, tuple[Route, ...]],
        aliases: Mapping[str, str],
        key_aliases: Mapping[str, Mapping[str, str]] = {},
        defaults: DefaultAliases | None = None,
        presets: Mapping[str, config.Preset] = {},
    ) -> None:
        """`defaults` None: a name that an agent chooses by itself is as unknown as any other."""
        self.models = models
        self.presets = {name.lower(): preset for name, preset in presets.items()}
        self._preset_names = {name.lower(): name for name in presets}
        self._defaults = defaults
        self._kind = KindOfName(defaults) if defaults else None
        self._routes = routes
        self._by_name = {name: m for m in models for name in m.names()}
        everybodys = {k.lower(): v for k, v in aliases.items()}
        self._everybodys = everybodys
        self._own = {
            key: {**(own := {k.lower(): v for k, v in theirs.items()}), **_but(everybodys, own)}
            for key, theirs in key_aliases.items()
        }
        self._answers = {
            kind: self._answering(kind, ()) for kind in (defaults.kinds if defaults else ())
        }
        self._cards: tuple[date, tuple[ModelCard, ...]] | None = None
        # The models that take each kind of media on some route, for messages to callers.
        self.takers: dict[str, tuple[str, ...]] = {
            kind: tuple(
                m.id
                for m in models
                if any(kind in r.capabilities.input for r in routes.get(m.id, ()))
            )
            for kind in ("image", "video")
        }
        # Models of which some route ends, or has ended.
        self.retiring = frozenset(
            m.id for m in models if any(r.retirement for r in routes.get(m.id, ()))
        )

    def find(self, name: str, key_id: str = "", allowed: Collection[str] = ()) -> Model | None:
        """Return the model a client named, or None; a key's own aliases come before everybody's.

        An alias of just this name comes first, then the model's own name, then a pattern: so
        `"*" = "MiniMax-M2"` is for the names that are nobody's.  Default aliases come last, and
        choose among the models that are `allowed` (empty: all).
        """
        if len(name) > _MAX_NAME_CHARS:
            return None
        aliases = self._own.get(key_id, self._everybodys)
        names = [name.strip().lower()]
        while prefix := next((p for p in _PREFIXES if names[-1].startswith(p)), None):
            names.append(names[-1].removeprefix(prefix))
        for n in names:
            if n in self.presets:
                return self._by_name[self.presets[n].model.lower()]
            if n in aliases:
                return self._by_name[aliases[n].lower()]
        if names[-1] in self._by_name:
            return self._by_name[names[-1]]
        for n in names:
            for pattern, to in aliases.items():
                if fnmatch.fnmatchcase(n, pattern):
                    return self._by_name[to.lower()]
        if self._kind and (kind := self._kind(names[-1])):
            return self._answering(kind, allowed) if allowed else self._answers[kind]
        return None

    def _answering(self, kind: str, allowed: Collection[str]) -> Model | None:
        """The first model of the kind that is allowed and has a route, else the first that is there."""
        assert self._defaults is not None
        ids = [i for i in self._defaults.kinds[kind] if i.lower() in self._by_name]
        ids = [i for i in ids if not allowed or i in allowed] or ids
        found = next((i for i in ids if self._routes.get(i)), ids[0] if ids else None)
        return self._by_name[found.lower()] if found else None

    def default_aliases(self) -> dict[str, str]:
        """The patterns of names that agents choose by themselves: the ids that answer them."""
        found = self._defaults.patterns if self._defaults else {}
        return {p: model.id for p, kind in found.items() if (model := self._answers[kind])}

    def near(self, name: str) -> list[str]:
        """Up to three ids that the name may have meant; none unless it is really near."""
        short = name.strip().lower().rpartition("/")[2][:128]
        close = difflib.get_close_matches(short, self._by_name, 3, _NEAR)
        return [self._by_name[n].id for n in close]

    def hint(self, name: str) -> str:
        """A sentence for a name that is unknown: what it may have meant, or what there is."""
        if near := self.near(name):
            return f"Did you mean {', '.join(near)}?"
        return f"The models here: {', '.join(m.id for m in self.models)}."

    def alias_cards(self, key_id: str = "", allowed: Collection[str] = ()) -> tuple[ModelCard, ...]:
        """Aliases that are whole names, as models: Claude Code lists only ids with `claude` in them."""
        aliases = dict(self._own.get(key_id, self._everybodys))
        for name in self._defaults.listed if self._defaults else ():
            if name not in aliases and (model := self.find(name, key_id, allowed)):
                aliases[name] = model.id
        cards = {c.id.lower(): c for c in self.cards()}
        return tuple(
            msgspec.structs.replace(card, id=alias, display_name=f"{card.display_name} as {alias}")
            for alias, to in aliases.items()
            if "*" not in alias and alias not in cards and (card := cards.get(to.lower()))
        )

    def cards(self) -> tuple[ModelCard, ...]:
        """Return the models with the prices of today (UTC), as lists of models show them."""
        on = datetime.now(UTC).date()
        if self._cards is None or self._cards[0] != on:
            found = tuple(cards.card(m, self.routes(m.id), on) for m in self.models)
            self._cards = on, found + self._preset_cards(found)
        return self._cards[1]

    def _preset_cards(self, found: tuple[ModelCard, ...]) -> tuple[ModelCard, ...]:
        by_id = {c.id.lower(): c for c in found}
        return tuple(
            msgspec.structs.replace(
                by_id[self._by_name[preset.model.lower()].id.lower()],
                id=self._preset_names[name],
                display_name=self._preset_names[name],
                description=preset.description
                or f"{preset.model} with preferences of this gateway.",
                default_effort=preset.effort
                or by_id[self._by_name[preset.model.lower()].id.lower()].default_effort,
            )
            for name, preset in self.presets.items()
        )

    def preset(self, name: str) -> config.Preset | None:
        """Return the preset that a client named, or None."""
        return self.presets.get(name.strip().lower()) if self.presets else None

    def routes(self, model_id: str) -> tuple[Route, ...]:
        """The routes of a model, to be tried in this order."""
        return self._routes.get(model_id, ())


def _but(aliases: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    return {alias: to for alias, to in aliases.items() if alias not in own}
