"""Signing in and out, the first admin's link, and one's own password and language.

The only place that sets cookies.  A session's cookie is `__Host-`, Secure, HttpOnly, SameSite=Strict and
fresh at every sign-in.  Note: a browser takes such a cookie over https and from this very
machine only, so over plain http from elsewhere there is no sign-in; and after a provider's redirect a
page of ours leads on, as a Strict cookie does not travel on a redirect that began elsewhere.
"""

import time
from urllib.parse import urlsplit

import msgspec
from starlette.responses import Response

from headgate.net.client import Client
from headgate.policy.access import SESSION_S, User
from headgate.web.app import COOKIE, Rule, secure, session
from headgate.web.auth import oidc, oidc_identity, passwords
from headgate.web.console import form_fields as fields
from headgate.web.context import Problem, RequestContext
from headgate.web.i18n import LANGUAGES

FLOW_COOKIE = "__Host-headgate-flow"
FLOW_S = 600.0
HOME = "/usage"
MAX_NEXT = 4096  # characters; a header has no room for a form
_INSECURE = (
    "The console signs nobody in over plain http from another machine. Put https before the gateway and"
    " set public_url, or open it on this machine (an SSH tunnel will do)."
)


def _must_be_secure(visit: RequestContext) -> None:
    if not secure(visit):
        raise Problem(403, visit.word(_INSECURE))


def _next(visit: RequestContext) -> str:
    """Where to go after the sign-in: a path of ours, never an address."""
    wanted = visit.form.get("next") or visit.query.get("next", "")
    # Printable: browsers leave tabs and line feeds out of an address, and "/\t/" becomes "//".
    plain = wanted.startswith("/") and not wanted.startswith("//") and "\\" not in wanted
    return wanted if plain and wanted.isprintable() and len(wanted) <= MAX_NEXT else HOME


def _signed_in(visit: RequestContext, user: User, response: Response) -> Response:
    """A fresh session, whatever cookie was sent."""
    people = visit.console_context.people
    if old := visit.request.cookies.get(COOKIE):
        people.close_session(old)
    token = people.open_session(user.id, now_s=time.time())
    response.set_cookie(
        COOKIE,
        token,
        max_age=int(SESSION_S),
        path="/",
        secure=True,
        httponly=True,
        samesite="strict",
    )
    return response


def _page(visit: RequestContext, status: int = 200, problem: str = "", name: str = "") -> Response:
    provider = visit.console_context.settings.oidc.issuer
    return visit.render(
        "sign_in.html",
        status,
        problem=problem,
        name=name,
        next=_next(visit),
        provider=urlsplit(provider).hostname if provider else "",
        nobody=not visit.console_context.people.anybody(),
    )


def show(visit: RequestContext) -> Response:
    _must_be_secure(visit)
    if session(visit) is not None:
        return visit.redirect(_next(visit))
    return _page(visit)


def sign_in(visit: RequestContext) -> Response:
    """By name and password; the same words and the same work for whatever was wrong."""
    _must_be_secure(visit)
    name, password = visit.form.get("name", ""), visit.form.get("password", "")
    peer = visit.request.headers.get("x-headgate-peer", "")
    wait_s = visit.console_context.throttle.wait_s(name, peer, time.monotonic())
    if wait_s > 0:
        text = visit.word("Too many tries. Wait {seconds} seconds.", seconds=int(wait_s) + 1)
        return _page(visit, 429, text, name)
    people = visit.console_context.people
    found = people.sign_in(name)
    right = passwords.matches(found[1] if found else "", password)
    if found is None or not right:
        visit.console_context.throttle.failed(name, peer, time.monotonic())
        return _page(visit, 401, visit.word("Incorrect username or password."), name)
    visit.console_context.throttle.passed(name, peer)
    user = found[0]
    if passwords.stale(found[1]):
        people.change_user(user.id, password=passwords.hash(password))
    people.record(user.name, "console", "session.begin", user.id, user.account, now_s=time.time())
    return _signed_in(visit, user, visit.redirect(_next(visit)))


def sign_out(visit: RequestContext) -> Response:
    if token := visit.request.cookies.get(COOKIE):
        visit.console_context.people.close_session(token)
    response = visit.redirect("/sign-in", "signed_out")
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    return response


# --- the first admin ------------------------------------------------------------------------------


def setup(visit: RequestContext) -> Response:
    _must_be_secure(visit)
    token = visit.path["token"]
    if not visit.console_context.people.setup_open(token, now_s=time.time()):
        raise Problem(
            410,
            visit.word(
                "This link is used up or older than 30 minutes. `headgate admin link` makes another."
            ),
        )
    return visit.render("setup.html", token=token, refused=None, name="admin")


def set_up(visit: RequestContext) -> Response:
    _must_be_secure(visit)
    token, name = visit.path["token"], visit.form.get("name", "")
    try:
        fields.name(visit)
        _check_password(visit, name)
    except Problem as refused:
        return visit.render("setup.html", refused.status, token=token, refused=refused, name=name)
    people, now_s = visit.console_context.people, time.time()
    if not people.setup_open(token, now_s=now_s):  # before the work of a hash is done
        raise Problem(410, visit.word("This link was used already."))
    kept = passwords.hash(visit.form["password"])
    user = people.first_admin(token, name, kept, now_s=now_s)
    if user is None:
        raise Problem(410, visit.word("This link was used already."))
    people.record(user.name, "setup", "user.create", user.id, now_s=now_s, detail={"role": "admin"})
    return _signed_in(visit, user, visit.redirect("/start"))


# --- OIDC -----------------------------------------------------------------------------------------


def to_provider(visit: RequestContext) -> Response:
    """Off to the identity provider, with the flow sealed in a cookie that travels back."""
    _must_be_secure(visit)
    provider = _provider(visit)
    url, flow = visit.console_context.calls.run(
        _started(provider, visit.console_context.console_url + "/sign-in/callback")
    )
    response = visit.redirect(url)
    response.set_cookie(
        FLOW_COOKIE,
        visit.console_context.people.sealed("oidc", msgspec.json.encode(flow)),
        max_age=int(FLOW_S),
        path="/",
        secure=True,
        httponly=True,
        samesite="lax",
    )
    return response


def from_provider(visit: RequestContext) -> Response:
    _must_be_secure(visit)
    provider = _provider(visit)
    sealed = visit.request.cookies.get(FLOW_COOKIE, "")
    data = visit.console_context.people.opened("oidc", sealed)
    if data is None:
        raise Problem(400, visit.word("This sign-in did not begin here. Begin again."))
    flow = msgspec.json.decode(data, type=oidc_identity.Flow)
    if not 0 <= time.time() - flow.made_s <= FLOW_S:
        raise Problem(400, visit.word("This sign-in took too long. Begin again."))
    try:
        identity = visit.console_context.calls.run(_finished(provider, flow, dict(visit.query)))
    except oidc_identity.SignInFailed as error:
        raise Problem(403, str(error)) from None
    people, now_s = visit.console_context.people, time.time()
    user = people.from_provider(
        identity.issuer,
        identity.subject,
        identity.name,
        identity.email,
        identity.role,
        identity.account,
        now_s=now_s,
    )
    if user is None:
        raise Problem(403, visit.word("This user was closed here."))
    people.record(user.name, "oidc", "session.begin", user.id, user.account, now_s=now_s)
    return _signed_in(visit, user, visit.render("signed_in.html", to=HOME))


def _provider(visit: RequestContext) -> oidc_identity.Provider:
    provider = oidc.provider(visit.console_context.settings.oidc)
    if provider is None:
        raise Problem(404, visit.word("No identity provider is set up ([oidc] in headgate.toml)."))
    return provider


async def _started(
    provider: oidc_identity.Provider, redirect_uri: str
) -> tuple[str, oidc_identity.Flow]:
    client = Client()
    try:
        return await oidc.start(client, provider, redirect_uri)
    except oidc_identity.SignInFailed as error:
        raise Problem(502, str(error)) from None
    finally:
        await client.close()


async def _finished(
    provider: oidc_identity.Provider, flow: oidc_identity.Flow, query: dict[str, str]
) -> oidc_identity.Identity:
    client = Client()
    try:
        return await oidc.finish(client, provider, flow, query)
    finally:
        await client.close()


# --- one's own ------------------------------------------------------------------------------------


def profile(visit: RequestContext) -> Response:
    return visit.render("profile.html", refused=None)


def change_password(visit: RequestContext) -> Response:
    """Change the password, by the old one; all of the user's sessions end, and this one begins anew."""
    who, people = visit.who, visit.console_context.people
    found = people.sign_in(who.name)
    if found is None or not passwords.matches(found[1], visit.form.get("old", "")):
        refused = Problem(422, visit.word("The current password is incorrect."), "old")
        return visit.render("profile.html", refused.status, refused=refused)
    try:
        _check_password(visit, who.name)
    except Problem as refused:
        return visit.render("profile.html", refused.status, refused=refused)
    people.change_user(who.id, password=passwords.hash(visit.form["password"]))
    visit.record("user.password", who.id, who.account)
    return _signed_in(visit, found[0], visit.redirect("/profile", "changed"))


def _check_password(visit: RequestContext, name: str) -> None:
    """Refuse a new password that is too easily guessed, at its field; it is never put into the form again."""
    if problem := passwords.problem(visit.form.get("password", ""), name):
        raise Problem(422, visit.word(problem), "password")


def choose_language(visit: RequestContext) -> Response:
    wanted = visit.form.get("language", "")
    if wanted not in LANGUAGES:
        raise Problem(422, "There is no such language here.", "language")
    response = visit.redirect(_next(visit))
    response.set_cookie("lang", wanted, max_age=365 * 86400, path="/", samesite="lax")
    return response


RULES = (
    Rule("GET", "/sign-in", show),
    Rule("POST", "/sign-in", sign_in, hashes=True),
    Rule("POST", "/sign-out", sign_out),
    Rule("GET", "/setup/{token}", setup),
    Rule("POST", "/setup/{token}", set_up, hashes=True),
    Rule("GET", "/sign-in/provider", to_provider),
    Rule("GET", "/sign-in/callback", from_provider),
    Rule("GET", "/profile", profile, "see"),
    Rule("POST", "/profile", change_password, "see", hashes=True),
    Rule("POST", "/language", choose_language),
)
