"""Masked values are put back into every part of a reply as that part writes them, wherever its pieces end."""

import json

from hypothesis import given
from hypothesis import strategies as st

from headgate.chat import (
    Delta,
    Event,
    Finish,
    Message,
    PartStart,
    PartStop,
    Request,
    Sampling,
    Text,
)
from headgate.edge.pipeline.masking import Restore
from headgate.policy.masking import Masker

PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQ+/=\n-----END PRIVATE KEY-----"
SECRETS = f"ada@example.com {PEM}"


def masked(stop: tuple[str, ...] = ()) -> tuple[Masker, Request]:
    masker = Masker(("email", "key"), bytes(32))
    request = Request("m", (Message("user", (Text(SECRETS),)),), sampling=Sampling(stop=stop))
    return masker, masker.request(request)


def text_of(events: list[Event]) -> str:
    return "".join(e.text for e in events if isinstance(e, Delta))


@given(st.lists(st.integers(1, 30), max_size=12), st.sampled_from(["text", "tool_call"]))
def test_json_stays_json_with_a_value_of_several_lines(cuts: list[int], kind: str) -> None:
    masker, request = masked()
    names = request.messages[0].text
    assert "ada@" not in names and "BEGIN" not in names
    reply = json.dumps({"found": names})
    restore = Restore(masker, json_text=True)
    out = restore.feed([PartStart(kind, "id", "name")])  # type: ignore[arg-type]  # one of the two
    at = 0
    for cut in (*cuts, len(reply)):
        out += restore.feed([Delta(reply[at : at + cut])])
        at += cut
    out += restore.feed([PartStop()])
    assert json.loads(text_of(out)) == {"found": SECRETS}


def test_plain_text_has_the_value_as_it_was() -> None:
    masker, request = masked()
    restore = Restore(masker)
    events = [PartStart("text"), Delta(request.messages[0].text), PartStop()]
    assert text_of(restore.feed(events)) == SECRETS


def test_a_stop_sequence_leaves_masked_and_is_reported_as_it_was() -> None:
    masker, request = masked(("mail ada@example.com", "END"))
    first, second = request.sampling.stop
    assert "ada" not in first and first.startswith("mail EMAIL_") and second == "END"
    (end,) = Restore(masker).feed([Finish("stop_sequence", None, first)])
    assert isinstance(end, Finish) and end.stop_sequence == "mail ada@example.com"
