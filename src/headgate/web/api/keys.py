"""Keys and accounts over the admin API: made, shown, changed, rotated, closed.

What will surprise: a key's budget is that of its whole family, so what was spent of it is the sum of
the key and its rotations in the present period, while `spent_usd` is the key's own, ever.
"""

import time

from msgspec import UNSET, structs

from headgate.policy import budgets, pricing
from headgate.policy.budgets import What
from headgate.policy.keys import Account, Key
from headgate.policy.terms import AccountChanges, Changes
from headgate.storage.figures import By
from headgate.web.api import fields as fields
from headgate.web.api import shapes as shapes
from headgate.web.api.route import nothing_here, page
from headgate.web.context import Problem, RequestContext


class _Spending:
    """What everybody has spent, asked of the books at most once for each beginning of a period."""

    def __init__(self, visit: RequestContext, now_s: float) -> None:
        self._books = visit.desk.books
        self._now_s = now_s
        self._since: dict[tuple[What, float], dict[str, int]] = {}
        self._ever: dict[tuple[By, str], tuple[int, int, int]] = {}
        for b in self._books.balances():
            for owner in (("key", b.key_id), ("account", b.account)):
                requests, unpriced, spent = self.ever(*owner)
                sums = (requests + b.requests, unpriced + b.unpriced, spent + b.spent_nano_usd)
                self._ever[owner] = sums

    def ever(self, by: By, id: str) -> tuple[int, int, int]:
        """Requests, those without a price, nano-dollars."""
        return self._ever.get((by, id), (0, 0, 0))

    def of_budget(self, by: What, ids: list[str], owner: Key | Account) -> int:
        budget = budgets.written_on(owner)
        since_s = 0.0 if budget is None else budgets.begins_s(budget, self._now_s)
        if (by, since_s) not in self._since:
            self._since[by, since_s] = self._books.spent([(by, since_s)])[by, since_s]
        return sum(self._since[by, since_s].get(id, 0) for id in ids)


# --- keys -----------------------------------------------------------------------------------------


class _Ring:
    """The keys and accounts of this moment that the visitor sees."""

    def __init__(self, visit: RequestContext) -> None:
        self.now_s = time.time()
        self._all = visit.desk.store.keys()
        self._families: dict[str, list[str]] = {}
        for key in self._all:
            self._families.setdefault(key.owner, []).append(key.id)
        self._accounts = {a.id: a for a in visit.desk.store.accounts()}
        self._spending = _Spending(visit, self.now_s)
        scope = visit.who.scope
        self.keys = [k for k in self._all if scope in (None, k.account)]
        self.accounts = [a for a in self._accounts.values() if scope in (None, a.id)]

    def key(self, id: str) -> Key:
        found = next((k for k in self.keys if k.id == id), None)
        if found is None:
            raise nothing_here()
        return found

    def account(self, id: str) -> Account:
        found = next((a for a in self.accounts if a.id == id), None)
        if found is None:
            raise nothing_here()
        return found

    def must_be_open(self, id: str) -> None:
        found = self._accounts.get(id)
        if id and (found is None or not found.good(self.now_s)):
            what = "does not exist" if found is None else "is closed"
            raise Problem(
                422, f"The account `{id}` {what}; GET /admin/v1/accounts has them.", "$.account"
            )

    def state(self, key: Key) -> shapes.KeyState:
        now_s, account = self.now_s, self._accounts.get(key.account)
        if not key.good(now_s):
            gone = key.revoked_s is not None and key.revoked_s <= now_s
            return "revoked" if gone else "expired"
        if account is not None and not account.good(now_s):
            return "closed"
        return "open" if key.revoked_s is None else "ending"

    def shown(self, key: Key) -> shapes.Key:
        of_budget = self._spending.of_budget("key", self._families[key.owner], key)
        requests, unpriced, spent = self._spending.ever("key", key.id)
        return shapes.Key(
            id=key.id,
            name=key.name,
            account=key.account,
            state=self.state(key),
            created_at=shapes.at(key.created_s),
            expires_at=shapes.at_or_none(key.expires_s),
            revoked_at=shapes.at_or_none(key.revoked_s),
            models=list(key.models),
            rpm=key.rpm,
            tpm=key.tpm,
            concurrency=key.concurrency,
            budget_usd=shapes.usd(key.budget_nano),
            budget_nano=key.budget_nano,
            budget_period=key.budget_period,
            budget_zone=key.budget_zone,
            budget_spent_usd=pricing.usd(of_budget),
            budget_spent_nano=of_budget,
            on_disconnect=key.on_disconnect,
            rotation_group=key.rotation_group,
            allowed_cidrs=list(key.allowed_cidrs),
            effort=key.effort,
            routing=key.routing,
            mask=key.mask,
            requests=requests,
            unpriced=unpriced,
            spent_usd=pricing.usd(spent),
            spent_nano=spent,
        )

    def shown_account(self, account: Account) -> shapes.Account:
        of_budget = self._spending.of_budget("account", [account.id], account)
        requests, unpriced, spent = self._spending.ever("account", account.id)
        good = [k for k in self._all if k.account == account.id and k.good(self.now_s)]
        open = account.good(self.now_s)
        return shapes.Account(
            id=account.id,
            name=account.name,
            state="open" if open else "closed",
            created_at=shapes.at(account.created_s),
            closed_at=shapes.at_or_none(account.closed_s),
            keys=len(good) if open else 0,
            budget_usd=shapes.usd(account.budget_nano),
            budget_nano=account.budget_nano,
            budget_period=account.budget_period,
            budget_zone=account.budget_zone,
            budget_spent_usd=pricing.usd(of_budget),
            budget_spent_nano=of_budget,
            requests=requests,
            unpriced=unpriced,
            spent_usd=pricing.usd(spent),
            spent_nano=spent,
        )


def list_keys(visit: RequestContext, query: shapes.KeysAsked) -> shapes.Keys:
    """List the keys, oldest first."""
    ring = _Ring(visit)
    if query.account is not UNSET:
        visit.must_see(query.account)
    keys = [
        k
        for k in ring.keys
        if query.account in (UNSET, k.account) and query.state in (UNSET, ring.state(k))
    ]
    found, next_ = page(keys, query.after, query.limit, lambda k: k.id)
    return shapes.Keys(data=[ring.shown(k) for k in found], next=next_)


def show_key(visit: RequestContext) -> shapes.Key:
    """Show one key."""
    ring = _Ring(visit)
    return ring.shown(ring.key(visit.path["id"]))


def make_key(visit: RequestContext, body: shapes.NewKey) -> shapes.MadeKey:
    """Make a key of models.

    The answer has its text, and nothing has it later. A running gateway takes it within a second.
    """
    ring = _Ring(visit)
    ring.must_be_open(body.account)
    fields.zone(body.budget_zone)
    key, text = visit.desk.store.create_key(
        fields.name(body.name),
        fields.models(visit, body.models),
        fields.future(body.expires_at, ring.now_s),
        now_s=ring.now_s,
        account=body.account,
        rpm=body.rpm,
        tpm=body.tpm,
        concurrency=body.concurrency,
        budget_nano=fields.nano(body.budget_usd),
        budget_period=body.budget_period,
        budget_zone=body.budget_zone,
        on_disconnect=body.on_disconnect,
        allowed_cidrs=fields.cidrs(body.allowed_cidrs),
        effort=body.effort,
        routing=body.routing,
        mask=body.mask,
    )
    visit.record("key.create", key.id, key.account, name=key.name)
    return _made(visit, key.id, text)


def change_key(visit: RequestContext, body: shapes.KeyChanges) -> shapes.Key:
    """Change a key.

    What is left out stays; null takes a limit, the budget or the expiry away. Its rotations get the
    same limits, budget and account.
    """
    ring = _Ring(visit)
    old = ring.key(visit.path["id"])
    if not old.good(ring.now_s):
        raise Problem(409, f"The key is {ring.state(old)}; nothing of it can be changed.")
    changes: Changes = {}
    if body.name is not UNSET:
        changes["name"] = fields.name(body.name)
    if body.account is not UNSET:
        if body.account != old.account:
            ring.must_be_open(body.account)
        changes["account"] = body.account
    if body.models is not UNSET:
        changes["models"] = fields.models(visit, body.models)
    if body.expires_at is not UNSET:
        changes["expires_s"] = fields.future(body.expires_at, ring.now_s)
    if body.rpm is not UNSET:
        changes["rpm"] = body.rpm
    if body.tpm is not UNSET:
        changes["tpm"] = body.tpm
    if body.concurrency is not UNSET:
        changes["concurrency"] = body.concurrency
    changes.update(fields.budget(body))  # type: ignore[typeddict-item]  # it has all of BudgetTerms
    if body.on_disconnect is not UNSET:
        changes["on_disconnect"] = body.on_disconnect
    if body.allowed_cidrs is not UNSET:
        changes["allowed_cidrs"] = fields.cidrs(body.allowed_cidrs)
    if body.effort is not UNSET:
        changes["effort"] = body.effort
    if body.routing is not UNSET:
        changes["routing"] = body.routing
    if body.mask is not UNSET:
        changes["mask"] = body.mask
    if changes:
        new = visit.desk.store.change_key(old.id, now_s=ring.now_s, **changes)
        if new is None:
            raise Problem(409, "The key was closed meanwhile.")
        visit.record("key.change", new.id, new.account, **fields.said(body))
    return show_key(visit)


def revoke_key(visit: RequestContext) -> shapes.Key:
    """Revoke a key, for good.

    Doing it again changes nothing.
    """
    ring = _Ring(visit)
    key = ring.key(visit.path["id"])
    if visit.desk.store.revoke(key.id, now_s=ring.now_s):
        visit.record("key.revoke", key.id, key.account, name=key.name)
    return show_key(visit)


def rotate_key(visit: RequestContext, body: shapes.Rotation) -> shapes.MadeKey:
    """Replace a key by a new one with the same rights, limits and budget.

    The answer has the new one's text. The old one still works for `overlap_s` seconds.
    """
    ring = _Ring(visit)
    old = ring.key(visit.path["id"])
    made = visit.desk.store.rotate(old.id, now_s=ring.now_s, overlap_s=body.overlap_s)
    if made is None:
        raise Problem(409, f"The key is {ring.state(old)}; make a new one.")
    key, text = made
    visit.record("key.rotate", old.id, key.account, new=key.id, overlap_s=body.overlap_s)
    return _made(visit, key.id, text)


def _made(visit: RequestContext, id: str, text: str) -> shapes.MadeKey:
    ring = _Ring(visit)
    return shapes.MadeKey(**structs.asdict(ring.shown(ring.key(id))), key=text)


# --- accounts -------------------------------------------------------------------------------------


def list_accounts(visit: RequestContext, query: shapes.Page) -> shapes.Accounts:
    """List the accounts, oldest first."""
    ring = _Ring(visit)
    found, next_ = page(ring.accounts, query.after, query.limit, lambda a: a.id)
    return shapes.Accounts(data=[ring.shown_account(a) for a in found], next=next_)


def show_account(visit: RequestContext) -> shapes.Account:
    """Show one account."""
    ring = _Ring(visit)
    return ring.shown_account(ring.account(visit.path["id"]))


def make_account(visit: RequestContext, body: shapes.NewAccount) -> shapes.Account:
    """Make an account: a team whose keys share a budget."""
    store, now_s = visit.desk.store, time.time()
    fields.zone(body.budget_zone)
    if any(a.id == body.id for a in store.accounts()):
        raise Problem(409, f"There is an account `{body.id}` already.", "$.id")
    account = store.create_account(
        body.id,
        fields.name(body.name),
        now_s=now_s,
        budget_nano=fields.nano(body.budget_usd),
        budget_period=body.budget_period,
        budget_zone=body.budget_zone,
    )
    visit.record("account.create", account.id, account.id, name=account.name)
    return _Ring(visit).shown_account(account)


def change_account(visit: RequestContext, body: shapes.AccountChanges) -> shapes.Account:
    """Change an account.

    What is left out stays; null takes the budget away.
    """
    ring = _Ring(visit)
    old = ring.account(visit.path["id"])
    if not old.good(ring.now_s):
        raise Problem(409, "The account is closed; nothing of it can be changed.")
    changes: AccountChanges = {}
    if body.name is not UNSET:
        changes["name"] = fields.name(body.name)
    changes.update(fields.budget(body))  # type: ignore[typeddict-item]  # it has all of BudgetTerms
    if changes:
        new = visit.desk.store.change_account(old.id, now_s=ring.now_s, **changes)
        if new is None:
            raise Problem(409, "The account was closed meanwhile.")
        visit.record("account.change", new.id, new.id, **fields.said(body))
    return show_account(visit)


def close_account(visit: RequestContext) -> shapes.Account:
    """Close an account, for good: its keys open nothing any more.

    Doing it again changes nothing.
    """
    ring = _Ring(visit)
    account = ring.account(visit.path["id"])
    if visit.desk.store.close_account(account.id, now_s=ring.now_s):
        visit.record("account.close", account.id, account.id, name=account.name)
    return show_account(visit)
