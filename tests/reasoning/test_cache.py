"""Memory: thinking goes back where it stood, to its own key and conversation, and to no other."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.chat import (
    Delta,
    Event,
    Failed,
    Finish,
    Message,
    Part,
    PartStart,
    PartStop,
    Reply,
    Request,
    Start,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Usage,
    replay,
)
from headgate.dialects.anthropic.dialect import AnthropicDialect
from headgate.dialects.anthropic.upstream_request import wire_id
from headgate.dialects.contract import ReplyFacts, RequestTarget
from headgate.dialects.openai.dialect import OpenAIDialect
from headgate.errors import Failure
from headgate.reasoning.cache import MAX_TURN_BYTES, ReasoningCache, ReplyCollector

Said = tuple[Text | Thinking | ToolCall, ...]
SYSTEM = Message("system", (Text("You are a tester."),))
USER = Message("user", (Text("Fix the tests, please."),))
ASKED = Request("M", (SYSTEM, USER))
C1 = ToolCall("call_1", "ls", '{"path": ".", "all": true}')
C2 = ToolCall("call_2", "cat", '{"path": "a.py"}')
T1, T2, T3 = Thinking("first"), Thinking("second"), Thinking("third")
INTERLEAVED: Said = (T1, Text("I look. "), T2, Text("Now."), C1, T3, C2)


def answered(asked: Request, *replayed: tuple[Part, ...]) -> Request:
    """The next request of a client: its messages of the assistant, then results or a question."""
    messages = list(asked.messages)
    messages += (Message("assistant", parts) for parts in replayed)
    calls = [p for parts in replayed for p in parts if isinstance(p, ToolCall)]
    messages += (Message("tool", (ToolResult(c.id, (Text(f"of {c.name}"),)),)) for c in calls)
    if not calls:
        messages.append(Message("user", (Text("And then?"),)))
    return msgspec.structs.replace(asked, messages=tuple(messages))


def turns(request: Request) -> list[tuple[Part, ...]]:
    return [m.parts for m in request.messages if m.role == "assistant"]


def recalled(made: Said, *replayed: tuple[Part, ...]) -> tuple[list[tuple[Part, ...]], int]:
    memory = ReasoningCache()
    memory.keep("k", ASKED, made, 0.0)
    out, restored = memory.recall("k", answered(ASKED, *replayed), 1.0)
    return turns(out), restored


# --- where it stood ---


def test_interleaved_thinking_goes_back_between_texts_and_calls() -> None:
    bare = tuple(p for p in INTERLEAVED if not isinstance(p, Thinking))
    assert recalled(INTERLEAVED, bare) == ([INTERLEAVED], 1)


def test_texts_that_a_client_joined_are_parted_where_the_model_thought() -> None:
    assert recalled(INTERLEAVED, (Text("I look. Now."), C1, C2)) == ([INTERLEAVED], 1)


def test_joined_texts_that_were_trimmed_too_keep_the_thinking_in_front() -> None:
    got, restored = recalled(INTERLEAVED, (Text("I look.Now."), C1, C2))
    assert (got, restored) == ([(T1, Text("I look.Now."), T2, C1, T3, C2)], 1)


def test_dropped_text_leaves_the_thinking_before_the_call() -> None:
    assert recalled(INTERLEAVED, (C1, C2)) == ([(T1, T2, C1, T3, C2)], 1)


def test_parallel_calls_in_messages_of_their_own_get_each_their_thinking() -> None:
    got = recalled(INTERLEAVED, (Text("I look. Now."), C1), (C2,))
    assert got == ([(T1, Text("I look. Now."), T2, C1), (T3, C2)], 2)
    assert recalled((T1, C1, C2), (C1,), (C2,)) == ([(T1, C1), (C2,)], 1)


def test_text_and_calls_in_messages_of_their_own_get_each_their_thinking() -> None:
    got = recalled((T1, Text("I look."), T2, C1), (Text("I look."),), (C1,))
    assert got == ([(T1, Text("I look.")), (T2, C1)], 2)


def test_thinking_at_the_end_stays_at_the_end() -> None:
    assert recalled((T1, C1, T2), (C1,)) == ([(T1, C1, T2)], 1)


def test_calls_keep_what_the_client_says_of_them() -> None:
    """It may have put right the arguments, and marked what to cache."""
    own = ToolCall(C1.id, C1.name, '{"path":"/"}', "5m")
    assert recalled((T1, C1), (own,)) == ([(T1, own)], 1)


@given(st.lists(st.sampled_from("txc"), max_size=9), st.booleans(), st.booleans())
def test_any_turn_replayed_without_thinking_is_whole_again(
    kinds: list[str], joined: bool, renamed: bool
) -> None:
    made: list[Text | Thinking | ToolCall] = []
    for n, kind in enumerate(kinds):
        match kind:
            case "t":
                made.append(Thinking(f"thought {n}", f"sig{n}"))
            case "x":
                made.append(Text(f" text {n}"))
            case _:
                made.append(ToolCall(f"call_{n}", "f", f'{{"n": {n}}}'))
    bare = [p for p in made if not isinstance(p, Thinking)]
    if renamed:
        bare = [
            ToolCall("x" + p.id, p.name, p.arguments) if isinstance(p, ToolCall) else p
            for p in bare
        ]
    if joined and (text := "".join(p.text for p in bare if isinstance(p, Text))):
        bare = [Text(text), *(p for p in bare if isinstance(p, ToolCall))]
    got, restored = recalled(tuple(made), tuple(bare))
    thoughts = [p for p in made if isinstance(p, Thinking)]
    assert restored == bool(thoughts and bare)
    if thoughts and bare:
        assert [p for p in got[0] if isinstance(p, Thinking)] == thoughts
        assert [type(p) for p in got[0]] == [type(p) for p in made]


# --- how it is found ---


def test_a_final_text_is_found_whatever_was_trimmed() -> None:
    made: Said = (T1, Text("\n\nAll tests\npass now. \n"))
    for text in ("All tests\npass now.", "\n\nAll tests\npass now. \n", "All tests\r\npass now."):
        assert recalled(made, (Text(text),)) == ([(T1, Text(text))], 1)
    assert recalled(made, (Text("Another."),)) == ([(Text("Another."),)], 0)


@pytest.mark.parametrize("id", [wire_id("functions.ls:0"), "functions_ls_0", "call_7_0_c0ffee"])
def test_calls_are_found_under_the_ids_that_protocols_and_clients_make_of_theirs(id: str) -> None:
    made: Said = (T1, ToolCall("functions.ls:0", "ls", '{"path": ".", "all": true}'))
    own = ToolCall(id, "ls", '{"all":true,"path":"."}')
    assert recalled(made, (own,)) == ([(T1, own)], 1)


def test_invalid_arguments_are_found_too() -> None:
    call = ToolCall("a", "ls", '{"path": ')
    own = ToolCall("b", "ls", '{"path": ')
    assert recalled((T1, call), (own,)) == ([(T1, own)], 1)


def test_every_turn_of_a_long_loop_gets_its_own_back() -> None:
    for same_ids in (False, True):
        memory, asked = ReasoningCache(), ASKED
        for n in range(20):
            call = ToolCall("call_0" if same_ids else f"call_{n}", "run", f'{{"n":{n}}}')
            memory.keep("k", asked, (Thinking(f"thought {n}"), call), float(n))
            asked = answered(asked, (call,))
            if same_ids:  # as results of other turns differ
                last = Message("tool", (ToolResult("call_0", (Text(f"result {n}"),)),))
                asked = msgspec.structs.replace(asked, messages=(*asked.messages[:-1], last))
        out, restored = memory.recall("k", asked, 20.0)
        assert restored == 20
        assert [t[0] for t in turns(out)] == [Thinking(f"thought {n}") for n in range(20)]


def test_a_turn_is_found_after_the_client_shortened_the_result_before_it() -> None:
    memory = ReasoningCache()
    second = answered(ASKED, (C1,))
    memory.keep("k", second, (T2, C2), 0.0)
    shortened = Message("tool", (ToolResult(C1.id, (Text("[old result cleared]"),)),))
    third = answered(
        msgspec.structs.replace(second, messages=(*second.messages[:-1], shortened)), (C2,)
    )
    assert turns(memory.recall("k", third, 1.0)[0]) == [(C1,), (T2, C2)]


def test_system_messages_in_mid_conversation_do_not_matter() -> None:
    memory = ReasoningCache()
    note = Message("system", (Text("Be brief."),))
    memory.keep("k", Request("M", (SYSTEM, USER, note)), (T1, C1), 0.0)
    assert memory.recall("k", answered(ASKED, (C1,)), 1.0)[1] == 1


# --- to whom ---


def test_another_key_gets_nothing() -> None:
    memory = ReasoningCache()
    memory.keep("alice", ASKED, INTERLEAVED, 0.0)
    asked = answered(ASKED, (Text("I look. Now."), C1, C2))
    for key in ("bob", "", "alic", "alice\0", "ALICE"):
        assert memory.recall(key, asked, 1.0) == (asked, 0)
    assert memory.recall("alice", asked, 1.0)[1] == 1


NAMES = st.sampled_from(["a", "b", "ab", ""])
WORDS = st.sampled_from(["hi", "go", "ok"])


@st.composite
def exchanges(draw: st.DrawFn) -> list[tuple[str, Request, Said]]:
    """Of several keys that use the same few words and ids."""
    out: list[tuple[str, Request, Said]] = []
    for n in range(draw(st.integers(1, 12))):
        key = draw(NAMES)
        asked = Request("M", (Message("user", (Text(draw(WORDS)),)),))
        made: st.SearchStrategy[Text | ToolCall] = st.sampled_from(
            [Text("done"), Text("ok"), C1, C2]
        )
        rest = draw(st.lists(made, min_size=1, max_size=3, unique=True))
        out.append((key, asked, (Thinking(f"{key}: secret {n}"), *rest)))
    return out


@given(exchanges(), st.integers(3000, 20_000))
@settings(deadline=None)
def test_no_key_ever_gets_anothers_thinking_and_the_bound_holds(
    history: list[tuple[str, Request, Said]], max_bytes: int
) -> None:
    memory = ReasoningCache(max_bytes)
    for n, (key, asked, made) in enumerate(history):
        memory.keep(key, asked, made, float(n))
        assert memory.bytes <= max_bytes
        for other in ("a", "b", "ab", ""):
            out, _ = memory.recall(other, answered(asked, made[1:]), float(n))
            for part in turns(out)[0]:
                if isinstance(part, Thinking):
                    assert part.text.startswith(f"{other}: ")
    memory.recall("a", ASKED, 1e9)
    assert (len(memory), memory.bytes, memory._index, memory._keys) == (0, 0, {}, {})


BOBS = (
    Request("M", (SYSTEM, Message("user", (Text("I am Bob."),)))),
    Request("M", (Message("system", (Text("You serve Bob."),)), USER)),
)


@pytest.mark.parametrize("bob", BOBS)
@pytest.mark.parametrize("said", [Text("Done."), ToolCall("call_0", "lookup", "{}")])
def test_the_same_answer_in_another_conversation_of_the_same_key_gets_nothing(
    bob: Request, said: Text | ToolCall
) -> None:
    """One key may serve an application with many users, and ids may be counted per reply."""
    memory = ReasoningCache()
    memory.keep("k", ASKED, (Thinking("about Alice"), said), 0.0)
    asked = answered(bob, (said,))
    assert memory.recall("k", asked, 1.0) == (asked, 0)


@pytest.mark.parametrize(
    "id",
    ["call_000000000001", "call_function_00000000002a_1", "0000000000000007", "call_0000000f_0"],
)
@pytest.mark.parametrize("bob", BOBS)
def test_a_counted_id_is_no_random_one_for_the_zeros_in_front_of_it(bob: Request, id: str) -> None:
    memory = ReasoningCache()
    call = ToolCall(id, "lookup", "{}")
    memory.keep("k", ASKED, (Thinking("about Alice"), call), 0.0)
    asked = answered(bob, (call,))
    assert memory.recall("k", asked, 1.0) == (asked, 0)
    assert memory.recall("k", answered(ASKED, (call,)), 1.0)[1] == 1


@pytest.mark.parametrize(
    "id",
    ["chatcmpl-tool-5f3a9be1", "call_function_2x8k4m9q_1", "toolu_01AbCdEf", "call_176403245178"],
)
def test_a_random_id_is_enough_where_clients_changed_all_that_came_before(id: str) -> None:
    memory = ReasoningCache()
    call = ToolCall(id, "lookup", "{}")
    memory.keep("k", ASKED, (T1, call), 0.0)
    cut = Request("M", (Message("system", (Text("Now 12:01"),)), Message("user", (Text("..."),))))
    assert memory.recall("k", answered(cut, (call,)), 1.0)[1] == 1
    assert memory.recall("k", answered(cut, (ToolCall(id, "other", "{}"),)), 1.0)[1] == 0


def test_a_signature_goes_back_only_to_where_it_came_from() -> None:
    memory = ReasoningCache()
    memory.keep("k", ASKED, (Thinking("t", "sig"), Thinking("", "redacted"), C1), 0.0, "a")
    asked = answered(ASKED, (C1,))
    there = memory.recall("k", asked, 1.0, "a")[0]
    assert turns(there) == [(Thinking("t", "sig"), Thinking("", "redacted"), C1)]
    assert turns(memory.recall("k", asked, 1.0, "b")[0]) == [(Thinking("t"), C1)]


# --- what the client did return ---


def test_thinking_that_came_back_is_left_alone() -> None:
    for own in (Thinking("my own words"), Thinking("first"), Thinking("x", "sig")):
        assert recalled((T1, C1), (own, C1)) == ([(own, C1)], 0)


def test_thinking_that_came_back_in_one_piece_is_parted_again() -> None:
    made: Said = (Thinking("first", "s1"), Text("I look."), Thinking("second", "s2"), C1)
    got = recalled(made, (Thinking("firstsecond"), Text("I look."), C1))
    assert got == ([made], 0)


@pytest.mark.parametrize("came_back", ["I look.\n Then I write", "write\n", "\n"])
def test_thinking_of_which_the_ends_were_trimmed_or_only_the_end_came_back_is_put_right(
    came_back: str,
) -> None:
    made: Said = (Thinking("\nI look.\n Then I write\n"), Text("So:"), C1)
    assert recalled(made, (Thinking(came_back), Text("So:"), C1)) == ([made], 1)


@pytest.mark.parametrize("own", ["I look.", "Then I write", "I look.\n Then I write\n!", "else"])
def test_thinking_that_the_client_shortened_or_changed_otherwise_is_its_own(own: str) -> None:
    made: Said = (Thinking("\nI look.\n Then I write\n"), C1)
    assert recalled(made, (Thinking(own), C1)) == ([(Thinking(own), C1)], 0)


def test_an_empty_thinking_part_counts_as_none() -> None:
    assert recalled((T1, C1), (Thinking(""), C1)) == ([(T1, C1)], 1)


def test_a_turn_without_thinking_is_not_kept() -> None:
    memory = ReasoningCache()
    memory.keep("k", ASKED, (Text("hi"), Thinking(""), C1), 0.0)
    memory.keep("k", ASKED, (T1,), 0.0)
    assert (len(memory), memory.bytes) == (0, 0)


def test_a_request_that_lost_nothing_is_given_back_as_it_is() -> None:
    memory = ReasoningCache()
    memory.keep("k", ASKED, (T1, C1), 0.0)
    assert memory.recall("k", ASKED, 1.0)[0] is ASKED


# --- through the protocols ---

MADE: Said = (T1, Text("I look."), T2, ToolCall("functions.ls:0", "ls", '{"path": "."}'))
FACTS = ReplyFacts("r1", "M", 1)


def test_a_plain_loop_over_openai_chat_gets_back_what_it_dropped() -> None:
    dialect, target = OpenAIDialect(), RequestTarget()
    body: dict[str, Any] = {"model": "M", "messages": [{"role": "user", "content": "list"}]}
    asked = dialect.decode_request(json.dumps(body).encode(), target)
    memory = ReasoningCache()
    memory.keep("k", asked, MADE, 0.0)
    said = json.loads(dialect.encode_reply(Reply(MADE, Finish("tool_calls")), asked, FACTS))
    message = said["choices"][0]["message"]
    (call,) = message["tool_calls"]
    body["messages"] += [
        {"role": "assistant", "content": message["content"], "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "a.py"},
    ]
    again = dialect.decode_request(json.dumps(body).encode(), target)
    out, restored = memory.recall("k", again, 1.0)
    assert (turns(out), restored) == ([MADE], 1)


def test_a_client_of_messages_that_asked_for_no_thinking_gets_it_back_all_the_same() -> None:
    dialect, target = AnthropicDialect(), RequestTarget()
    body: dict[str, Any] = {
        "model": "M",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "list"}],
    }
    asked = dialect.decode_request(json.dumps(body).encode(), target)
    memory = ReasoningCache()
    memory.keep("k", asked, MADE, 0.0)
    shown = Reply(tuple(p for p in MADE if not isinstance(p, Thinking)), Finish("tool_calls"))
    said = json.loads(dialect.encode_reply(shown, asked, FACTS))["content"]
    result = {"type": "tool_result", "tool_use_id": said[-1]["id"], "content": "a.py"}
    body["messages"] += [
        {"role": "assistant", "content": said},
        {"role": "user", "content": [result]},
    ]
    again = dialect.decode_request(json.dumps(body).encode(), target)
    out, restored = memory.recall("k", again, 1.0)
    assert restored == 1
    assert turns(out)[0][:3] == MADE[:3]


# --- how much, how long ---


def test_the_longest_unused_goes_first() -> None:
    memory = ReasoningCache(max_bytes=5000)
    asked = [Request("M", (Message("user", (Text(f"q{n}"),)),)) for n in range(3)]
    big = "x" * 800
    memory.keep("k", asked[0], (Thinking(big), C1), 0.0)
    memory.keep("k", asked[1], (Thinking(big), C1), 0.0)
    assert memory.recall("k", answered(asked[0], (C1,)), 1.0)[1] == 1
    memory.keep("k", asked[2], (Thinking(big), C1), 2.0)
    assert [memory.recall("k", answered(a, (C1,)), 3.0)[1] for a in asked] == [1, 0, 1]


def test_a_turn_lives_until_it_was_not_needed_for_its_time() -> None:
    memory = ReasoningCache(ttl_s=10.0)
    memory.keep("k", ASKED, (T1, C1), 0.0)
    asked = answered(ASKED, (C1,))
    assert memory.recall("k", asked, 9.0)[1] == 1
    assert memory.recall("k", asked, 18.0)[1] == 1
    assert memory.recall("k", asked, 28.0)[1] == 0
    assert memory.bytes == 0


def test_a_turn_too_big_pushes_nothing_out() -> None:
    memory = ReasoningCache()
    memory.keep("k", ASKED, (T1, C1), 0.0)
    memory.keep("k", ASKED, (Thinking("x" * MAX_TURN_BYTES), C2), 0.0)
    many = tuple(ToolCall(f"c{n}", "f", "{}") for n in range(500))
    memory.keep("k", ASKED, (T1, *many), 0.0)
    assert len(memory) == 1


def test_the_latest_of_many_like_turns_is_found() -> None:
    """Conversations that begin with the same word, under one key and one id."""
    memory = ReasoningCache()
    for n in range(500):
        memory.keep("k", ASKED, (Thinking(f"t{n}"), ToolCall("call_0", "f", f'{{"n":{n}}}')), 0.0)
    for n in (499, 450):
        asked = answered(ASKED, (ToolCall("call_0", "f", f'{{"n":{n}}}'),))
        assert turns(memory.recall("k", asked, 1.0)[0])[0][0] == Thinking(f"t{n}")


def test_a_long_row_of_turns_is_searched_once_each() -> None:
    """Quadratic in the messages, this would take minutes."""
    memory = ReasoningCache()
    memory.keep("k", ASKED, (T1, C1), 0.0)
    row = [Message("assistant", (Text("I look."),)), Message("system", (Text("Go on."),))] * 50_000
    asked = msgspec.structs.replace(ASKED, messages=(*ASKED.messages, *row))
    assert memory.recall("k", asked, 1.0) == (asked, 0)


# --- gathering ---


def test_gathering_changes_nothing_and_ends_with_the_parts_in_order() -> None:
    gather = ReplyCollector()
    events = list(replay(Reply(INTERLEAVED, Finish("tool_calls", Usage(1, 1)))))
    assert [e for event in events for e in gather.feed([event])] == events
    assert gather.parts == INTERLEAVED


@pytest.mark.parametrize("end", [[], [Failed(Failure("upstream", "cut"))]])
def test_nothing_is_gathered_from_a_reply_that_did_not_finish(end: list[Event]) -> None:
    gather = ReplyCollector()
    gather.feed([Start(), PartStart("thinking"), Delta("a"), PartStop("s"), *end])
    assert gather.parts == ()
