"""What public pages state of MiniMax and RunAPI and nobody has tried: facts that only a real key settles, and their trial.

Each fact has one small request and a judgement of its answer.  The facts were read on public pages up to
2026-11-30; catalog/models.toml and catalog/upstreams.toml rely on them.  Note: nothing that the upstream wrote is
in a verdict, but for a model's name that the catalog knows and the number of an error.
"""

from headgate.diagnostics.fact import FLASH, Fact, Request, Verdict
from headgate.diagnostics.fact_judgements import (
    accepts,
    answers,
    lists_m3,
    no_reasoning,
    quota,
    refuses,
    retired,
    searches,
)

RUNAPI = ("runapi",)
MAX_TOKENS = 16  # of a reply that is asked for; most of these requests are refused, or not billed
_CHAT, _MESSAGES, _RESPONSES = "/v1/chat/completions", "/anthropic/v1/messages", "/v1/responses"


def _chat(model: str, **more: object) -> Request:
    stated = [{"role": "user", "content": "Say OK."}]
    return Request(_CHAT, {"model": model, "messages": stated, "max_completion_tokens": MAX_TOKENS, **more})  # fmt: skip


def _of_retired(id: str) -> Fact:
    return Fact(
        f"{id} retired",
        f"ended on 2026-11-18; on plans its name is answered by {FLASH}",
        _chat(id),
        retired(id),
        model=id,
    )


FACTS: tuple[Fact, ...] = (
    Fact(
        f"{FLASH} served",
        "since 2026-10-20",
        _chat(FLASH, reasoning_effort="low"),
        answers,
        model=FLASH,
    ),
    Fact(
        f"{FLASH} alias",
        f"{FLASH}-Preview is another name of it",
        _chat(f"{FLASH}-Preview", reasoning_effort="low"),
        answers,
        model=FLASH,
    ),
    Fact(
        f"{FLASH} always thinks",
        "`thinking: disabled` is refused with 400",
        _chat(FLASH, thinking={"type": "disabled"}),
        refuses("Set `thinking_off = true` in the route's capabilities."),
        model=FLASH,
    ),
    Fact(
        f"{FLASH} effort none",
        "`reasoning_effort: none` is refused with 400",
        _chat(FLASH, reasoning_effort="none"),
        refuses("Requests without thinking could be sent as they are; tell the project."),
        model=FLASH,
    ),
    Fact(
        f"{FLASH} effort minimal",
        "`minimal` is taken as low",
        _chat(FLASH, reasoning_effort="minimal"),
        accepts("Nothing: the gateway sends `low` for it."),
        model=FLASH,
    ),
    Fact(
        f"{FLASH} effort max",
        "without an effort it thinks as with `max`",
        None,
        lambda _: Verdict("unknown", "not tried: it takes some 6,000 tokens; set a default effort"),
        model=FLASH,
    ),
    *(
        _of_retired(id)
        for id in (
            "MiniMax-M2.7",
            "MiniMax-M2.7-highspeed",
            "MiniMax-M2.5",
            "MiniMax-M2.5-highspeed",
        )
    ),
    Fact(
        "MiniMax-M2.1-highspeed served",
        "it exists, at 0.60 / 2.40 / 0.03",
        _chat("MiniMax-M2.1-highspeed"),
        answers,
        model="MiniMax-M2.1-highspeed",
    ),
    Fact(
        "MiniMax-M2.1 max output",
        "`max_completion_tokens` is at most 204,800",
        _chat("MiniMax-M2.1", max_completion_tokens=204_801),
        refuses("Set `max_output` of the model higher in headgate.toml."),
        model="MiniMax-M2.1",
    ),
    Fact(
        "MiniMax-M3 on Responses",
        "does not reason where `reasoning` is omitted",
        Request(_RESPONSES, {"model": "MiniMax-M3", "input": "Say OK.", "max_output_tokens": 64}),
        no_reasoning,
        model="MiniMax-M3",
    ),
    Fact(
        "web search of Messages",
        "`web_search_20250305` is refused with 2013 on the Anthropic path",
        Request(
            _MESSAGES,
            {
                "model": "MiniMax-M3",
                "max_tokens": MAX_TOKENS,
                "messages": [{"role": "user", "content": "Say OK."}],
                "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 1}],
            },
        ),
        refuses(
            "MiniMax searches by itself now; the gateway's `[search]` is still used where set."
        ),
        model="MiniMax-M3",
    ),
    Fact("quota address", "says what is left of a plan", Request("/v1/token_plan/remains"), quota),
    Fact(
        "search address",
        "searches the web for keys of plans",
        Request("/v1/coding_plan/search", {"q": "MiniMax"}),
        searches,
        plan_only=True,
    ),
    Fact(
        "cache writes",
        "cost nothing extra but for `cache_control` on the Anthropic path",
        None,
        lambda _: Verdict("unknown", "only a bill shows it: headgate reconcile"),
    ),
    Fact("RunAPI's ids", "MiniMax-M3 is spelled so", Request("/v1/models"), lists_m3, RUNAPI),
)


def about(preset: str, model: str = "") -> tuple[Fact, ...]:
    """Return the facts that this upstream may settle; `model`: only those about it."""
    return tuple(f for f in FACTS if preset in f.presets and model in ("", f.model))
