"""Keys of models: the list, one key's page, making, changing, rotating, revoking.

The only place where the console shows a key's text: in the very answer to the form that made it, never
under an address, so that loading it again shows the key's page instead.  What will surprise: a key has a
budget and limits together with its rotations; and who is no admin neither sees nor says the account.
"""

import time
from collections.abc import Sequence
from typing import Literal, get_args

import msgspec
from starlette.responses import Response

from headgate.dialects.capabilities import EFFORTS
from headgate.policy.budgets import BudgetStatus
from headgate.policy.keys import PREFIX, Account, Key, OnDisconnect
from headgate.policy.terms import Changes, Terms
from headgate.storage.errors import StoreError
from headgate.storage.figures import Where
from headgate.web.api import upstream_keys
from headgate.web.app import Rule
from headgate.web.console import form_fields as fields
from headgate.web.console import snippets
from headgate.web.console.spending import Spending
from headgate.web.context import Entry, Problem, RequestContext

State = Literal["active", "rotating", "expired", "revoked", "closed"]
STATES: tuple[State, ...] = get_args(State)
RECENT = 20
USED_S = 30 * 86400.0  # how far back the list looks for the last use: one query for all keys
OVERLAPS_S = (0, 3600, 86400, 7 * 86400)
_ON_DISCONNECT: tuple[OnDisconnect, ...] = get_args(OnDisconnect)
_FIELDS = (
    "name",
    "models_of",
    "models",
    "rpm",
    "tpm",
    "concurrency",
    "allowed_cidrs",
    "effort",
    "routing",
    "mask",
    "on_disconnect",
    "expires",
    *fields.BUDGET,
)
# What the record says of a new key, where it is not as usual.
_TOLD = ("models", "expires_s", *Terms.__annotations__)
_taken = fields.Taken()


class KeyView(msgspec.Struct, frozen=True):
    """One row of the list."""

    key: Key
    state: State
    standing: BudgetStatus
    used_s: float | None = None  # the day of it
    old: bool = False  # created before the time in which uses are looked for


class Form(msgspec.Struct, frozen=True):
    """What the form of a key shows."""

    values: dict[str, str]
    chosen: list[str]  # models
    models: list[str]
    accounts: list[Account]
    soonest: str  # that it may expire
    number: str
    zones: tuple[str, ...] = fields.ZONES
    periods: tuple[str, ...] = fields.PERIODS


class Ring:
    """The keys of this moment that the visitor sees, and their accounts."""

    def __init__(self, visit: RequestContext) -> None:
        self.now_s = time.time()
        self.all = visit.desk.store.keys()
        self.accounts = {a.id: a for a in visit.desk.store.accounts()}
        self.spending = Spending(visit.desk.books, self.now_s)
        scope = visit.who.scope
        self.keys = [k for k in self.all if scope in (None, k.account)]

    def key(self, visit: RequestContext) -> Key:
        found = next((k for k in self.keys if k.id == visit.path["id"]), None)
        if found is None:
            raise Problem(404, "There is no such thing here.")
        return found

    def good(self, visit: RequestContext) -> Key:
        """One of which something can be changed."""
        key = self.key(visit)
        if not key.good(self.now_s):
            raise Problem(409, "This key is closed for good; nothing of it can be changed.")
        return key

    def state(self, key: Key) -> State:
        account = self.accounts.get(key.account)
        if key.revoked_s is not None and key.revoked_s <= self.now_s:
            return "revoked"
        if not key.good(self.now_s):
            return "expired"
        if account is not None and not account.good(self.now_s):
            return "closed"
        return "rotating" if key.revoked_s is not None else "active"

    def family(self, key: Key) -> list[Key]:
        return [k for k in self.all if k.owner == key.owner]

    def shown(self, keys: Sequence[Key]) -> list[KeyView]:
        families: dict[str, list[str]] = {}
        for k in self.all:
            families.setdefault(k.owner, []).append(k.id)
        return [
            KeyView(k, self.state(k), self.spending.standing("key", families[k.owner], k))
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
        states=STATES,
        accounts=ring.accounts.values(),
        refused=refused,
        form=_form(visit, ring, refused),
    )


def _used(visit: RequestContext, now_s: float) -> dict[str, float]:
    """The last day (UTC) on which each key was used, if it was lately."""
    series = visit.desk.books.series(
        "key", now_s - USED_S, now_s + 60, step="day", where=Where(account=visit.who.scope)
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
    known = [m.id for m in visit.desk.catalog.models]
    return Form(
        values,
        chosen,
        known + [m for m in (key.models if key is not None else ()) if m not in known],
        ring.open_accounts(),
        fields.moment_text(ring.now_s + 60),
        fields.number(),
    )


def _written(key: Key) -> dict[str, str]:
    limits = {n: getattr(key, n) for n in ("rpm", "tpm", "concurrency")}
    return {
        "name": key.name,
        "account": key.account,
        "models_of": "these" if key.models else "all",
        "on_disconnect": key.on_disconnect,
        "allowed_cidrs": ", ".join(key.allowed_cidrs),
        "effort": key.effort,
        "routing": key.routing,
        "mask": key.mask,
        "expires": fields.moment_text(key.expires_s),
        **{n: "" if v is None else str(v) for n, v in limits.items()},
        **fields.budget_text(key),
    }


# --- making and changing --------------------------------------------------------------------------


def make(visit: RequestContext) -> Response:
    number = visit.form.get("number", "")
    try:
        said = _said(visit, None)
        name = said.pop("name", "") or fields.name(visit)
        if (led := _taken.before(number)) is not None:
            return visit.redirect(led or "/api_keys")
        try:
            key, text = visit.desk.store.create_key(
                name,
                said.pop("models", ()),
                said.pop("expires_s", None),
                now_s=time.time(),
                account=said.pop("account", visit.who.account),
                **_terms(said),
            )
        except StoreError as error:
            _taken.forget(number)
            raise Problem(422, fields.refused(error)) from None
    except Problem as refused:
        return _list(visit, refused)
    _taken.leads(number, f"/api_keys/{key.id}")
    usual = Key("", "", 0.0)
    told = {n: v for n in _TOLD if (v := getattr(key, n)) != getattr(usual, n)}
    visit.record("key.create", key.id, key.account, name=key.name, **told)
    return _made(visit, key, text)


def _said(visit: RequestContext, old: Key | None) -> Changes:
    """What a form says of a key; only an admin says whose it is."""
    who, form = visit.who, visit.form
    mine = ("account",) if who.scope is None else ()
    fields.only(visit, "number", *_FIELDS, *mine)
    now_s = time.time()
    said: Changes = {}
    if "name" in form:
        said["name"] = fields.name(visit)
    if "models_of" in form:
        said["models"] = _models(visit, old.models if old is not None else ())
    elif "models" in form:
        raise Problem(422, visit.word("Say whether it is all models or these."), "models_of")
    if "rpm" in form:
        said["rpm"] = fields.limit(visit, "rpm")
    if "tpm" in form:
        said["tpm"] = fields.limit(visit, "tpm")
    if "concurrency" in form:
        said["concurrency"] = fields.limit(visit, "concurrency")
    if "allowed_cidrs" in form:
        said["allowed_cidrs"] = fields.networks(visit, "allowed_cidrs")
    if "effort" in form:
        said["effort"] = fields.choice(visit, "effort", ("", *EFFORTS))
    if "routing" in form:
        said["routing"] = form["routing"]
    if "mask" in form:
        said["mask"] = form["mask"]
    if "on_disconnect" in form:
        said["on_disconnect"] = fields.choice(visit, "on_disconnect", _ON_DISCONNECT)
    if "expires" in form:
        old_s = old.expires_s if old is not None else None
        said["expires_s"] = fields.moment(visit, "expires", now_s, old_s)
    if "account" in form and (old is None or form["account"] != old.account):
        said["account"] = fields.open_account(visit, now_s)
    return {**said, **fields.budget(visit)}


def _terms(said: Changes) -> Terms:
    """What is left of it once the rest was taken out."""
    terms: Terms = {}
    for name in Terms.__annotations__:
        if name in said:
            terms[name] = said[name]  # type: ignore[literal-required]
    return terms


def _models(visit: RequestContext, old: tuple[str, ...]) -> tuple[str, ...]:
    """(): all.  Nothing ticked is not all: that would give more than was meant."""
    if fields.choice(visit, "models_of", ("all", "these")) == "all":
        return ()
    ids = {m.id for m in visit.desk.catalog.models} | set(old)
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
    base_url = visit.desk.base_url
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
    catalog = visit.desk.catalog
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
    books = visit.desk.books
    rows = books.requests(Where(key_id=key.id, account=visit.who.scope), most=RECENT)
    family = ring.family(key)
    model = _model(visit, key)
    requests, unpriced, spent = ring.spending.ever("key", key.id)
    return visit.render(
        "key.html",
        wrong.status if (wrong := refused or upstream_key) is not None else 200,
        key=key,
        state=ring.state(key),
        good=key.good(ring.now_s),
        standing=ring.spending.standing("key", [k.id for k in family], key),
        account=ring.accounts.get(key.account),
        requests=requests,
        unpriced=unpriced,
        spent_nano=spent,
        rows=[row for _, row in rows],
        family=[(k, ring.state(k)) for k in family if k.id != key.id and k in ring.keys],
        overlaps_s=OVERLAPS_S,
        tabs=snippets.tabs(visit.desk.base_url, model),
        agents=snippets.agents(visit.desk.base_url, model),
        refused=refused,
        form=_form(visit, ring, refused, key),
        owned=upstream_keys.panel(visit, "key", key.owner, f"/api_keys/{key.id}", upstream_key),
    )


def change(visit: RequestContext) -> Response:
    ring = Ring(visit)
    old = ring.good(visit)
    try:
        changed = fields.difference(old, _said(visit, old))
        new = None
        if changed:
            values: Changes = {n: c["to"] for n, c in changed.items()}  # type: ignore[assignment]
            new = visit.desk.store.change_key(old.id, now_s=ring.now_s, **values)
            if new is None:
                raise Problem(409, visit.word("The key was closed meanwhile."))
    except StoreError as error:
        return _one(visit, Problem(422, fields.refused(error)))
    except Problem as refused:
        return _one(visit, refused)
    if new is not None:
        visit.record("key.change", new.id, new.account, **{"name": old.name, **changed})
    return visit.redirect(f"/api_keys/{old.id}", "changed")


def rotate(visit: RequestContext) -> Response:
    """A new key with the rights of this one, which still works for a while."""
    ring = Ring(visit)
    old = ring.good(visit)
    fields.only(visit, "number", "overlap_s")
    chosen = fields.choice(visit, "overlap_s", [str(s) for s in OVERLAPS_S])
    number = visit.form.get("number", "")
    if (led := _taken.before(number)) is not None:
        return visit.redirect(led or f"/api_keys/{old.id}")
    try:
        made = visit.desk.store.rotate(old.id, now_s=ring.now_s, overlap_s=int(chosen))
    except StoreError:
        _taken.forget(number)
        raise
    if made is None:
        _taken.forget(number)
        raise Problem(409, "The key was closed meanwhile.")
    key, text = made
    _taken.leads(number, f"/api_keys/{key.id}")
    visit.record(
        "key.rotate", old.id, key.account, name=key.name, new=key.id, overlap_s=int(chosen)
    )
    ends_s = ring.now_s + int(chosen)
    if old.revoked_s is not None:  # rotated before: what was to end sooner still does
        ends_s = min(ends_s, old.revoked_s)
    return _made(visit, key, text, msgspec.structs.replace(old, revoked_s=ends_s))


def revoke(visit: RequestContext) -> Response:
    key = Ring(visit).key(visit)
    fields.only(visit)
    if visit.desk.store.revoke(key.id, now_s=time.time()):
        visit.record("key.revoke", key.id, key.account, name=key.name)
    return visit.redirect(f"/api_keys/{key.id}", "revoked")


ENTRY = Entry("/api_keys", "API keys", "see")
RULES = (
    Rule("GET", "/api_keys", show, "see"),
    Rule("POST", "/api_keys", make, "keys"),
    Rule("GET", "/api_keys/{id}", show_key, "see"),
    Rule("POST", "/api_keys/{id}", change, "keys"),
    Rule("POST", "/api_keys/{id}/rotate", rotate, "keys"),
    Rule("POST", "/api_keys/{id}/revoke", revoke, "keys"),
)
