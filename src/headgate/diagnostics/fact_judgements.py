"""How the answer to a fact's request is judged.

Note: nothing that the upstream wrote is in a verdict, but for a model's name that the catalog knows.
"""

from collections.abc import Callable

import msgspec
from msgspec import Raw, Struct

from headgate.catalog.models import models
from headgate.diagnostics.fact import FLASH, Answer, Verdict
from headgate.errors import DECLINED
from headgate.policy import plans


class _Item(Struct):
    type: str | None = None


class _Page(Struct):
    model: str | None = None
    output: list[_Item] | None = None
    organic: list[Raw] | None = None
    data: list[dict[str, Raw]] | None = None


def _page(answer: Answer) -> _Page | None:
    try:
        return msgspec.json.decode(answer.page, type=_Page)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _other(answer: Answer) -> Verdict:
    """The verdict on an answer that says nothing of the fact: a rate limit, a timeout, a refused key."""
    return Verdict("unknown", answer.what)


def answers(answer: Answer) -> Verdict:
    if answer.no_model:
        return Verdict("different", answer.what, "Take it out of `routes`, or use another key.")
    return Verdict("confirmed", "answered") if _answered(answer) else _other(answer)


def _answered(answer: Answer) -> bool:
    return answer.failure is None and _page(answer) is not None


def refuses(do: str) -> Callable[[Answer], Verdict]:
    """The judge of a request that must be refused with 400."""

    def judge(answer: Answer) -> Verdict:
        if answer.declined:
            return Verdict("confirmed", answer.what)
        if _answered(answer):
            return Verdict("different", "answered", do)
        return _other(answer)

    return judge


def accepts(do: str) -> Callable[[Answer], Verdict]:
    """The judge of a request that must be answered."""

    def judge(answer: Answer) -> Verdict:
        if _answered(answer):
            return Verdict("confirmed", "answered")
        return Verdict("different", answer.what, do) if answer.declined else _other(answer)

    return judge


def retired(id: str) -> Callable[[Answer], Verdict]:
    def judge(answer: Answer) -> Verdict:
        if answer.no_model:
            return Verdict("confirmed", answer.what)
        page = _page(answer)
        if answer.failure is not None or page is None or page.model is None:
            return _other(answer)
        known = {name: m.id for m in models().values() for name in m.names()}
        served = known.get(page.model.lower().rpartition("/")[2])
        if served == FLASH:
            return Verdict("confirmed", f"answered by {FLASH}")
        if served == id:
            do = (
                "It is still served to this key: the end that the catalog has does not hold for it."
            )
            return Verdict("different", "answered under its own name", do)
        return Verdict("unknown", "answered under another name")

    return judge


def no_reasoning(answer: Answer) -> Verdict:
    page = _page(answer)
    if answer.failure is not None or page is None or page.output is None:
        return _other(answer) if answer.failure is not None else Verdict("unknown", "no output")
    if any(item.type == "reasoning" for item in page.output):
        do = (
            'Set `thinking_default = ""` in the capabilities of the upstream that speaks Responses.'
        )
        return Verdict("different", "it reasoned", do)
    return Verdict("confirmed", "it did not reason")


def quota(answer: Answer) -> Verdict:
    if answer.failure is not None:
        if answer.failure.kind in ("upstream_config", "upstream_auth", *DECLINED):
            do = "Refusals alone will show which windows are used up."
            return Verdict("different", answer.what, do)
        return _other(answer)
    try:
        windows = plans.from_quota(answer.page, 0.0)
    except ValueError as error:
        if str(error) == "no plan":
            return Verdict("confirmed", "it answers: this key has no plan")
        return Verdict(
            "different", str(error), "Refusals alone will show which windows are used up."
        )
    return Verdict("confirmed", f"windows: {', '.join(w.name for w in windows)}")


def searches(answer: Answer) -> Verdict:
    page = _page(answer)
    if answer.failure is None and page is not None and page.organic is not None:
        return Verdict("confirmed", f"{len(page.organic)} results")
    if answer.failure is None or answer.failure.kind in ("upstream_config", *DECLINED):
        return Verdict("different", answer.what, "Choose another provider in `[search]`.")
    return _other(answer)


def lists_m3(answer: Answer) -> Verdict:
    page = _page(answer)
    if answer.failure is not None or page is None or page.data is None:
        return _other(answer) if answer.failure is not None else Verdict("unknown", "no list")
    ids = {
        bytes(each["id"]).decode("utf-8", "replace").strip('"')
        for each in page.data
        if "id" in each
    }
    if "MiniMax-M3" in ids:
        return Verdict("confirmed", "MiniMax-M3 is listed")
    lower = [i for i in ids if i.lower().rpartition("/")[2] == "minimax-m3"]
    if lower:
        do = "Name the id that it lists in `models.MiniMax-M3.routes`."
        return Verdict("different", "it is listed in another spelling", do)
    return Verdict("unknown", "this key sees no M3")
