"""Keys and accounts are served over the admin API: made, shown, changed, rotated, closed.

Note: a key's budget is that of its whole family, so what was spent of it is the sum of
the key and its rotations in the present period, while `spent_usd` is the key's own, ever.
"""

import time

from msgspec import UNSET, structs

from headgate.admin import accounts as account_operations
from headgate.admin import keys as key_operations
from headgate.policy import periods, pricing
from headgate.policy.keys import Account, AccountChanges, Changes, Key
from headgate.policy.owner_budget import What
from headgate.storage.figures import By
from headgate.web.api import fields as fields
from headgate.web.api import key_shapes
from headgate.web.api import shapes as shapes
from headgate.web.api.route import nothing_here, page
from headgate.web.context import RequestContext


class _Spending:
    """What everybody has spent, asked of the ledger at most once for each beginning of a period."""

    def __init__(self, visit: RequestContext, now_s: float) -> None:
        self._ledger_reports = visit.ledger.whole
        self._now_s = now_s
        self._since: dict[tuple[What, float], dict[str, int]] = {}
        self._ever: dict[tuple[By, str], tuple[int, int, int]] = {}
        for b in self._ledger_reports.balances():
            for owner in (("key", b.key_id), ("account", b.account)):
                requests, unpriced, spent = self.ever(*owner)
                sums = (requests + b.requests, unpriced + b.unpriced, spent + b.spent_nano_usd)
                self._ever[owner] = sums

    def ever(self, by: By, id: str) -> tuple[int, int, int]:
        """Requests, those without a price, nano-dollars."""
        return self._ever.get((by, id), (0, 0, 0))

    def of_budget(self, by: What, ids: list[str], owner: Key | Account) -> int:
        budget = periods.written_on(owner)
        since_s = 0.0 if budget is None else periods.begins_s(budget, self._now_s)
        if (by, since_s) not in self._since:
            self._since[by, since_s] = self._ledger_reports.spent([(by, since_s)])[by, since_s]
        return sum(self._since[by, since_s].get(id, 0) for id in ids)


# --- keys -----------------------------------------------------------------------------------------


class _Ring:
    """The keys and accounts of this moment that the visitor sees."""

    def __init__(self, visit: RequestContext) -> None:
        self.now_s = time.time()
        self._all = visit.console_context.store.keys()
        self._families: dict[str, list[str]] = {}
        for key in self._all:
            self._families.setdefault(key.owner, []).append(key.id)
        self._accounts = {a.id: a for a in visit.console_context.store.accounts()}
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

    def state(self, key: Key) -> key_shapes.KeyState:
        return key.state(self._accounts.get(key.account), self.now_s)

    def shown(self, key: Key) -> key_shapes.Key:
        of_budget = self._spending.of_budget("key", self._families[key.owner], key)
        requests, unpriced, spent = self._spending.ever("key", key.id)
        return key_shapes.Key(
            id=key.id,
            name=key.name,
            account=key.account,
            state=self.state(key),
            created_at=shapes.at(key.created_s),
            expires_at=shapes.at_or_none(key.expires_s),
            revoked_at=shapes.at_or_none(key.revoked_s),
            models=list(key.models),
            budget_spent_usd=pricing.usd(of_budget),
            budget_spent_nano=of_budget,
            rotation_group=key.rotation_group,
            requests=requests,
            unpriced=unpriced,
            spent_usd=pricing.usd(spent),
            spent_nano=spent,
            **shapes.terms_of(key),
        )

    def shown_account(self, account: Account) -> key_shapes.Account:
        of_budget = self._spending.of_budget("account", [account.id], account)
        requests, unpriced, spent = self._spending.ever("account", account.id)
        good = [k for k in self._all if k.account == account.id and k.good(self.now_s)]
        open = account.good(self.now_s)
        return key_shapes.Account(
            id=account.id,
            name=account.name,
            state="open" if open else "closed",
            created_at=shapes.at(account.created_s),
            closed_at=shapes.at_or_none(account.closed_s),
            keys=len(good) if open else 0,
            budget_spent_usd=pricing.usd(of_budget),
            budget_spent_nano=of_budget,
            requests=requests,
            unpriced=unpriced,
            spent_usd=pricing.usd(spent),
            spent_nano=spent,
            **shapes.terms_of(account),
        )


def list_keys(visit: RequestContext, query: key_shapes.KeysAsked) -> key_shapes.Keys:
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
    return key_shapes.Keys(data=[ring.shown(k) for k in found], next=next_)


def show_key(visit: RequestContext) -> key_shapes.Key:
    """Show one key."""
    ring = _Ring(visit)
    return ring.shown(ring.key(visit.path["id"]))


def make_key(visit: RequestContext, body: key_shapes.NewKey) -> key_shapes.MadeKey:
    """Make a key of models.

    The answer has its text, and nothing has it later. A running gateway takes it within a second.
    """
    now_s = time.time()
    key, text = key_operations.create(
        visit.operator,
        fields.name(body.name),
        fields.models(visit, body.models),
        fields.future(body.expires_at, now_s),
        account=body.account,
        terms=fields.terms(body),  # type: ignore[arg-type]  # of the fields of Terms
        now_s=now_s,
    )
    return _made(visit, key.id, text)


def change_key(visit: RequestContext, body: key_shapes.KeyChanges) -> key_shapes.Key:
    """Change a key.

    What is left out stays; null takes a limit, the budget or the expiry away. Its rotations get the
    same limits, budget and account.
    """
    now_s = time.time()
    changes: Changes = fields.terms(body)  # type: ignore[assignment]  # of the fields of Terms
    if body.name is not UNSET:
        changes["name"] = fields.name(body.name)
    if body.account is not UNSET:
        changes["account"] = body.account
    if body.models is not UNSET:
        changes["models"] = fields.models(visit, body.models)
    if body.expires_at is not UNSET:
        changes["expires_s"] = fields.future(body.expires_at, now_s)
    key_operations.change(visit.operator, visit.path["id"], changes, now_s=now_s)
    return show_key(visit)


def revoke_key(visit: RequestContext) -> key_shapes.Key:
    """Revoke a key, for good.

    Doing it again changes nothing.
    """
    key_operations.revoke(visit.operator, visit.path["id"], now_s=time.time())
    return show_key(visit)


def rotate_key(visit: RequestContext, body: key_shapes.Rotation) -> key_shapes.MadeKey:
    """Replace a key by a new one with the same rights, limits and budget.

    The answer has the new one's text. The old one still works for `overlap_s` seconds.
    """
    new, text, _ = key_operations.rotate(
        visit.operator, visit.path["id"], overlap_s=body.overlap_s, now_s=time.time()
    )
    return _made(visit, new.id, text)


def _made(visit: RequestContext, id: str, text: str) -> key_shapes.MadeKey:
    ring = _Ring(visit)
    return key_shapes.MadeKey(**structs.asdict(ring.shown(ring.key(id))), key=text)


# --- accounts -------------------------------------------------------------------------------------


def list_accounts(visit: RequestContext, query: shapes.Page) -> key_shapes.Accounts:
    """List the accounts, oldest first."""
    ring = _Ring(visit)
    found, next_ = page(ring.accounts, query.after, query.limit, lambda a: a.id)
    return key_shapes.Accounts(data=[ring.shown_account(a) for a in found], next=next_)


def show_account(visit: RequestContext) -> key_shapes.Account:
    """Show one account."""
    ring = _Ring(visit)
    return ring.shown_account(ring.account(visit.path["id"]))


def make_account(visit: RequestContext, body: key_shapes.NewAccount) -> key_shapes.Account:
    """Make an account: a team whose keys share a budget."""
    account = account_operations.create(
        visit.operator,
        body.id,
        fields.name(body.name),
        terms=fields.terms(body),  # type: ignore[arg-type]  # of BudgetTerms
        now_s=time.time(),
    )
    return _Ring(visit).shown_account(account)


def change_account(visit: RequestContext, body: key_shapes.AccountChanges) -> key_shapes.Account:
    """Change an account.

    What is left out stays; null takes the budget away.
    """
    changes: AccountChanges = fields.terms(body)  # type: ignore[assignment]  # of BudgetTerms
    if body.name is not UNSET:
        changes["name"] = fields.name(body.name)
    account_operations.change(visit.operator, visit.path["id"], changes, now_s=time.time())
    return show_account(visit)


def close_account(visit: RequestContext) -> key_shapes.Account:
    """Close an account, for good: its keys open nothing any more.

    Doing it again changes nothing.
    """
    account_operations.close(visit.operator, visit.path["id"], now_s=time.time())
    return show_account(visit)
