"""Keys of models: the list, one key's page, making, changing, rotating, revoking.

The only place where the console shows a key's text: in the very answer to the form that made it, never
under an address, so that loading it again shows the key's page instead.  Note: a key has a
budget and limits together with its rotations; and who is no admin neither sees nor says the account.
"""

import time
from collections.abc import Mapping, Sequence

import msgspec
from starlette.responses import Response

from headgate.admin import keys as operations
from headgate.admin.operator import Refused
from headgate.policy.key_terms import Term, TermKind
from headgate.policy.keys import KEY_STATES, PREFIX, Account, Changes, Key, KeyState
from headgate.policy.owner_budget import BudgetStatus
from headgate.policy.terms import ACCOUNT_TERMS, TERMS, field_of, summaries
from headgate.storage.errors import StoreError
from headgate.storage.figures import Where
from headgate.storage.postgres.nodes import Leased
from headgate.web.api import upstream_keys
from headgate.web.app import Rule
from headgate.web.console import form_fields as fields
from headgate.web.console import snippets
from headgate.web.console.spending import Spending
from headgate.web.context import NavigationEntry, Problem, RequestContext

RECENT = 20
USED_S = 30 * 86400.0  # how far back the list looks for the last use: one query for all keys
OVERLAPS_S = (0, 3600, 86400, 7 * 86400)
_FIELDS = ("name", "models_of", "models", "expires", *map(field_of, TERMS))
_taken = fields.Taken()


class KeyView(msgspec.Struct, frozen=True):
    """One row of the list."""

    key: Key
    state: KeyState
    standing: BudgetStatus
    may: list[tuple[str, str]]  # what it may do beside its budget, as text and value
    used_s: float | None = None  # the day of it
    old: bool = False  # created before the time in which uses are looked for
    leased: Leased | None = None  # of its budget, to nodes


class FormTerm(msgspec.Struct, frozen=True):
    """Shows one field of a form."""

    name: str
    label: str
    kind: TermKind
    empty: str
    example: str
    max_chars: int
    choices: tuple[tuple[str, str], ...]  # value and words


def form_terms(terms: Mapping[str, Term]) -> list[FormTerm]:
    """Return the fields of a form for these terms, the budget first."""
    found = [
        FormTerm(
            field_of(name),
            term.label,
            term.kind,
            term.empty,
            term.example,
            term.max_chars,
            tuple(zip(term.choices, term.names, strict=True)),
        )
        for name, term in terms.items()
    ]
    budget = {field_of(name) for name in ACCOUNT_TERMS}
    return sorted(found, key=lambda field: field.name not in budget)


class Form(msgspec.Struct, frozen=True):
    """What the form of a key shows."""

    values: dict[str, str]
    chosen: list[str]  # models
    models: list[str]
    accounts: list[Account]
    soonest: str  # that it may expire
    number: str
    terms: list[FormTerm]
    zones: tuple[str, ...] = fields.ZONES


class Ring:
    """The keys of this moment that the visitor sees, and their accounts."""

    def __init__(self, visit: RequestContext) -> None:
        self.now_s = time.time()
        self.ledger = visit.ledger
        self.all = visit.console_context.store.keys()
        self.accounts = {a.id: a for a in visit.console_context.store.accounts()}
        self.spending = Spending(visit.ledger.reports, self.now_s)
        scope = visit.who.scope
        self.keys = [k for k in self.all if scope in (None, k.account)]

    def key(self, visit: RequestContext) -> Key:
        found = next((k for k in self.keys if k.id == visit.path["id"]), None)
        if found is None:
            raise Problem(404, "Not found.")
        return found

    def state(self, key: Key) -> KeyState:
        return key.state(self.accounts.get(key.account), self.now_s)

    def family(self, key: Key) -> list[Key]:
        return [k for k in self.all if k.owner == key.owner]

    def shown(self, keys: Sequence[Key]) -> list[KeyView]:
        families: dict[str, list[str]] = {}
        for k in self.all:
            families.setdefault(k.owner, []).append(k.id)
        return [
            KeyView(
                k,
                self.state(k),
                self.spending.standing("key", families[k.owner], k),
                summaries(k),
                leased=self.ledger.leased("key", k.owner, k),
            )
            for k in keys
        ]

    def open_accounts(self) -> list[Account]:
        return [a for a in self.accounts.values() if a.good(self.now_s)]


# --- the list -------------------------------------------------------------------------------------


def show(visit: RequestContext) -> Response:
    return _list(visit)


def _list(visit: RequestContext, refused: Problem | None = None) -> Response:
    ring, query, scope = Ring(visit), visit.query, visit.who.scope
    state, text = query.get("state", ""), query.get("text", "").strip()[:128]
    account = query.get("account", "") if scope is None else ""
    wanted = text.casefold().removeprefix(PREFIX)
    found = [
        k
        for k in reversed(ring.keys)
        if (not state or ring.state(k) == state)
        and (not account or k.account == ("" if account == "-" else account))
        and (not text or wanted in k.name.casefold() or k.id.casefold().startswith(wanted))
    ]
    page = fields.list_page(visit, "/api_keys", len(found), state=state, account=account, text=text)
    shown = ring.shown(found[page.rows])
    used = _used(visit, ring.now_s)
    return visit.render(
        "keys.html",
        200 if refused is None else refused.status,
        keys=[
            msgspec.structs.replace(
                s, used_s=used.get(s.key.id), old=s.key.created_s < ring.now_s - USED_S
            )
            for s in shown
        ],
        total=len(ring.keys),
        found=len(found),
        page=page,
        filters={"state": state, "account": account, "text": text},
        states=KEY_STATES,
        accounts=ring.accounts.values(),
        refused=refused,
        form=_form(visit, ring, refused),
    )


def _used(visit: RequestContext, now_s: float) -> dict[str, float]:
    """The last day (UTC) on which each key was used, if it was lately."""
    series = visit.ledger.reports.series(
        "key", now_s - USED_S, now_s + 86400, step="day", where=Where(account=visit.who.scope)
    )
    return {spent.name: float(start) for start, spent in series}  # days are in order


def _form(
    visit: RequestContext, ring: Ring, refused: Problem | None = None, key: Key | None = None
) -> Form:
    """The fields as they were sent, or as they are."""
    if refused is not None:
        values, chosen = dict(visit.form), visit.lists.get("models", [])
    elif key is not None:
        values, chosen = _written(key), list(key.models)
    else:
        values, chosen = {"account": visit.query.get("account", "")}, []
    known = [m.id for m in visit.console_context.catalog.models]
    return Form(
        values,
        chosen,
        known + [m for m in (key.models if key is not None else ()) if m not in known],
        ring.open_accounts(),
        fields.moment_text(ring.now_s + 60),
        fields.number(),
        form_terms(TERMS),
    )


def _written(key: Key) -> dict[str, str]:
    return {
        "name": key.name,
        "account": key.account,
        "models_of": "these" if key.models else "all",
        "expires": fields.moment_text(key.expires_s),
        **fields.terms_text(key, TERMS),
    }


# --- making and changing --------------------------------------------------------------------------


def make(visit: RequestContext) -> Response:
    number = visit.form.get("number", "")
    try:
        sent = _sent(visit, None)
        name, models, expires_s, account, terms = operations.split(sent)
        name = name or fields.name(visit)
        if "account" not in sent:
            account = visit.who.account
        if (led := _taken.before(number)) is not None:
            return visit.redirect(led or "/api_keys")
        try:
            key, text = operations.create(
                visit.operator,
                name,
                models,
                expires_s,
                account=account,
                terms=terms,
                now_s=time.time(),
            )
        except (Refused, StoreError):
            _taken.forget(number)
            raise
    except Refused as refused:
        return _list(visit, visit.problem(refused))
    except Problem as refused:
        return _list(visit, refused)
    _taken.leads(number, f"/api_keys/{key.id}")
    return _made(visit, key, text)


def _sent(visit: RequestContext, old: Key | None) -> Changes:
    """Return the fields of a key that a form has; only an admin chooses its account."""
    who, form = visit.who, visit.form
    mine = ("account",) if who.scope is None else ()
    fields.only(visit, "number", *_FIELDS, *mine)
    sent: Changes = {}
    if "name" in form:
        sent["name"] = fields.name(visit)
    if "models_of" in form:
        sent["models"] = _models(visit, old.models if old is not None else ())
    elif "models" in form:
        raise Problem(422, visit.word("Say whether it is all models or these."), "models_of")
    if "expires" in form:
        old_s = old.expires_s if old is not None else None
        sent["expires_s"] = fields.moment(visit, "expires", time.time(), old_s)
    if "account" in form:
        sent["account"] = form["account"]
    return {**sent, **fields.terms(visit, TERMS)}  # type: ignore[typeddict-item]  # of Terms


def _models(visit: RequestContext, old: tuple[str, ...]) -> tuple[str, ...]:
    """Return the models; () is all.  Nothing ticked is not all: that would give more than was meant."""
    if fields.choice(visit, "models_of", ("all", "these")) == "all":
        return ()
    ids = {m.id for m in visit.console_context.catalog.models} | set(old)
    chosen = tuple(dict.fromkeys(visit.lists.get("models", [])))
    for one in chosen:
        if one not in ids:
            raise Problem(422, visit.word("There is no model {name}.", name=one[:64]), "models")
    if not chosen:
        raise Problem(422, visit.word("Choose one model at least, or all."), "models")
    return chosen


def _made(visit: RequestContext, key: Key, text: str, old: Key | None = None) -> Response:
    """The one answer that has the key's text."""
    model = _model(visit, key)
    base_url = visit.console_context.base_url
    return visit.render(
        "keys_made.html",
        headers={"cache-control": "no-store"},
        key=key,
        text=text,
        old=old,
        model=model,
        tabs=snippets.tabs(base_url, model, text),
        agents=snippets.agents(base_url, model, text),
    )


def _model(visit: RequestContext, key: Key) -> str:
    """The first that it may use and that is served."""
    catalog = visit.console_context.catalog
    served = [m.id for m in catalog.models if catalog.routes(m.id)]
    mine = [m for m in served if not key.models or m in key.models]
    return (mine or list(key.models) or served or [m.id for m in catalog.models])[0]


def show_key(visit: RequestContext) -> Response:
    return _one(visit)


def with_refused_upstream_key(visit: RequestContext, refused: Problem) -> Response:
    """The page of a key whose owner entered an upstream key that cannot be kept."""
    return _one(visit, upstream_key=refused)


def _one(
    visit: RequestContext, refused: Problem | None = None, upstream_key: Problem | None = None
) -> Response:
    ring = Ring(visit)
    key = ring.key(visit)
    rows = visit.ledger.reports.requests(Where(key_id=key.id, account=visit.who.scope), most=RECENT)
    family = ring.family(key)
    model = _model(visit, key)
    requests, unpriced, spent = ring.spending.ever("key", key.id)
    return visit.render(
        "key.html",
        wrong.status if (wrong := refused or upstream_key) is not None else 200,
        key=key,
        state=ring.state(key),
        may=summaries(key),
        good=key.good(ring.now_s),
        standing=ring.spending.standing("key", [k.id for k in family], key),
        leased=visit.ledger.leased("key", key.owner, key),
        account=ring.accounts.get(key.account),
        requests=requests,
        unpriced=unpriced,
        spent_nano=spent,
        rows=[row for _, row in rows],
        family=[(k, ring.state(k)) for k in family if k.id != key.id and k in ring.keys],
        overlaps_s=OVERLAPS_S,
        tabs=snippets.tabs(visit.console_context.base_url, model),
        agents=snippets.agents(visit.console_context.base_url, model),
        refused=refused,
        form=_form(visit, ring, refused, key),
        owned=upstream_keys.panel(visit, "key", key.owner, f"/api_keys/{key.id}", upstream_key),
    )


def change(visit: RequestContext) -> Response:
    id = visit.path["id"]
    old = _found(visit)
    try:
        operations.change(visit.operator, id, _sent(visit, old), now_s=time.time())
    except Refused as refused:
        return _one(visit, visit.problem(refused))
    except Problem as refused:
        return _one(visit, refused)
    return visit.redirect(f"/api_keys/{id}", "changed")


def _found(visit: RequestContext) -> Key:
    with visit.problems():
        return operations.find(visit.operator, visit.path["id"])


def rotate(visit: RequestContext) -> Response:
    """A new key with the rights of this one, which still works for a while."""
    old = _found(visit)
    fields.only(visit, "number", "overlap_s")
    chosen = fields.choice(visit, "overlap_s", [str(s) for s in OVERLAPS_S])
    number = visit.form.get("number", "")
    if (led := _taken.before(number)) is not None:
        return visit.redirect(led or f"/api_keys/{old.id}")
    try:
        key, text, ending = operations.rotate(
            visit.operator, old.id, overlap_s=int(chosen), now_s=time.time()
        )
    except Refused as refused:
        _taken.forget(number)
        raise visit.problem(refused) from None
    except StoreError:
        _taken.forget(number)
        raise
    _taken.leads(number, f"/api_keys/{key.id}")
    return _made(visit, key, text, ending)


def revoke(visit: RequestContext) -> Response:
    key = _found(visit)
    fields.only(visit)
    operations.revoke(visit.operator, key.id, now_s=time.time())
    return visit.redirect(f"/api_keys/{key.id}", "revoked")


ENTRY = NavigationEntry("/api_keys", "API keys", "see")
RULES = (
    Rule("GET", "/api_keys", show, "see"),
    Rule("POST", "/api_keys", make, "keys"),
    Rule("GET", "/api_keys/{id}", show_key, "see"),
    Rule("POST", "/api_keys/{id}", change, "keys"),
    Rule("POST", "/api_keys/{id}/rotate", rotate, "keys"),
    Rule("POST", "/api_keys/{id}/revoke", revoke, "keys"),
)
