"""Operations on accounts: create, change, close."""

from headgate.admin.operator import Operator, Refused, difference, refusals
from headgate.policy.key_terms import BudgetTerms
from headgate.policy.keys import Account, AccountChanges
from headgate.policy.terms import ACCOUNT_TERMS, USUAL


def find(operator: Operator, id: str) -> Account:
    """Return the account with this id, if the operator sees it."""
    found = operator.account(id)
    if found is None or not operator.sees(id):
        raise Refused("absent", "There is no account `{id}`.", id=id[:64])
    return found


def create(operator: Operator, id: str, name: str, *, terms: BudgetTerms, now_s: float) -> Account:
    """Create an account, whose id stays for good."""
    if operator.account(id) is not None:
        raise Refused("taken", "There is an account `{id}` already.", "id", id=id[:64])
    with refusals("id"):
        account = operator.store.create_account(id, name, now_s=now_s, **terms)
    unusual = {n: v for n in ACCOUNT_TERMS if (v := getattr(account, n)) != USUAL[n]}
    operator.record("account.create", id, id, **{"name": account.name, **unusual})
    return account


def change(operator: Operator, id: str, changes: AccountChanges, *, now_s: float) -> Account:
    """Change an open account; what is as before is no change, and leaves no entry."""
    old = find(operator, id)
    if not old.good(now_s):
        raise Refused("closed", "The account is closed; it cannot be changed.")
    changed = difference(old, changes)
    if not changed:
        return old
    # What is as before is not written, so that it undoes no change that comes at the same time.
    values: AccountChanges = {n: changes[n] for n in changed}  # type: ignore[literal-required, assignment]
    with refusals():
        new = operator.store.change_account(id, now_s=now_s, **values)
    if new is None:
        raise Refused("closed", "The account was closed meanwhile.")
    operator.record("account.change", id, id, **{"name": old.name, **changed})
    return new


def close(operator: Operator, id: str, *, now_s: float) -> bool:
    """Close an account for good, so that its keys stop working; False when it was closed before."""
    account = find(operator, id)
    if not operator.store.close_account(id, now_s=now_s):
        return False
    operator.record("account.close", id, id, name=account.name)
    return True
