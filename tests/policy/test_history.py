"""History rules: repaired where the meaning is clear, refused in the caller's words where not."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.chat import Media, Message, Request, Text, Thinking, ToolCall, ToolResult
from headgate.dialects.capabilities import Capabilities
from headgate.errors import Failure, Refused
from headgate.policy import history, turns
from headgate.policy.history import repair

PLAIN = Capabilities()
PICTURE = Media("image", "https://example.com/cat.png")


def system(text: str, cache: str = "") -> Message:
    return Message("system", (Text(text, cache),))


def user(text: str) -> Message:
    return Message("user", (Text(text),))


def said(text: str) -> Message:
    return Message("assistant", (Text(text),))


def calls(*ids: str, arguments: str = "{}") -> Message:
    return Message("assistant", tuple(ToolCall(id, "f", arguments) for id in ids))


def result(id: str, text: str = "ok") -> Message:
    return Message("tool", (ToolResult(id, (Text(text),)),))


def repaired(
    *messages: Message, capabilities: Capabilities = PLAIN, dialect: str = "openai"
) -> tuple[list[Message], tuple[str, ...]]:
    request = repair(Request("m", messages), capabilities, dialect)
    return list(request.messages), request.warnings


def refused(
    *messages: Message, dialect: str = "openai", capabilities: Capabilities = PLAIN
) -> Failure:
    with pytest.raises(Refused) as caught:
        repair(Request("m", messages), capabilities, dialect)
    assert caught.value.failure.kind == "invalid"
    return caught.value.failure


def test_a_sound_history_is_left_as_it_is() -> None:
    messages = (
        system("be kind"),
        user("hi"),
        Message("assistant", (Thinking("hm", "s"), Text("\n\n"), ToolCall("a", "f", '{"x":1}'))),
        result("a"),
        said("done"),
        Message("user", (PICTURE,)),
    )
    assert repaired(*messages) == (list(messages), ())


# --- system messages ---


def test_leading_system_messages_become_one() -> None:
    got = repaired(system("a", "5m"), system("b"), said("hello"), system("c"), user("hi"))
    assert got == ([system("a\n\nb\n\nc"), said("hello"), user("hi")], ())


def test_cache_marks_between_system_messages_stay_where_the_wire_has_them() -> None:
    messages = (system("a", "5m"), system("b"), system("c", "1h"), system("d"), user("hi"))
    request = repair(Request("m", messages), Capabilities(reasoning_form="blocks"), "anthropic")
    assert request.messages[0].parts == (
        Text("a\n\n", "5m"),
        Text("b\n\nc\n\n", "1h"),
        Text("d"),
    )


def test_a_later_system_message_goes_into_the_next_user_text() -> None:
    messages, warnings = repaired(user("hi"), said("yo"), system("be brief"), user("go"))
    assert messages[2] == user("<system-reminder>\nbe brief\n</system-reminder>\n\ngo")
    assert warnings == ("history: system message folded into user text",)


def test_a_later_system_message_before_an_assistant_goes_to_the_user_before() -> None:
    messages, _ = repaired(user("hi"), system("be brief"), said("yo"), user("go"))
    assert messages[0] == user("hi\n\n<system-reminder>\nbe brief\n</system-reminder>")


def test_a_system_message_after_a_picture_becomes_text_of_its_own() -> None:
    messages, _ = repaired(Message("user", (PICTURE,)), system("be brief"))
    text = Text("<system-reminder>\nbe brief\n</system-reminder>")
    assert messages == [Message("user", (PICTURE, text))]


def test_a_system_message_among_results_waits_behind_them() -> None:
    messages, _ = repaired(user("hi"), calls("a"), system("be brief"), result("a"))
    assert [m.role for m in messages] == ["user", "assistant", "tool", "user"]


def test_system_messages_stay_where_the_upstream_takes_them() -> None:
    messages = (system("a"), system("b"), user("hi"), system("c"))
    assert repaired(*messages, capabilities=Capabilities(multi_system=True)) == (list(messages), ())


def test_a_prompt_that_is_all_system_is_asked_as_the_user() -> None:
    assert repaired(system("write a poem")) == (
        [user("write a poem")],
        ("history: lone system message sent as user message",),
    )


# --- calls and results ---


def test_results_stand_in_the_order_of_their_calls() -> None:
    got = repaired(user("hi"), calls("a", "b"), result("b"), result("a"))
    assert got == ([user("hi"), calls("a", "b"), result("a"), result("b")], ())


def test_results_in_one_message_are_taken_apart() -> None:
    both = Message("tool", (*result("b").parts, *result("a").parts))
    messages, _ = repaired(user("hi"), calls("a", "b"), both)
    assert messages[2:] == [result("a"), result("b")]


def test_a_result_behind_the_user_is_moved_to_its_call() -> None:
    messages, warnings = repaired(user("hi"), calls("a"), user("wait"), result("a"))
    assert messages == [user("hi"), calls("a"), result("a"), user("wait")]
    assert warnings == ("history: tool result moved to its call",)


def test_parallel_calls_sent_as_two_turns_are_one() -> None:
    messages, _ = repaired(user("hi"), calls("a"), calls("b"), result("a"), result("b"))
    assert messages[1] == calls("a", "b")


def test_thinking_sent_apart_belongs_to_the_turn_that_follows() -> None:
    thought = Message("assistant", (Thinking("hm"),))
    messages, _ = repaired(user("hi"), thought, calls("a"), result("a"))
    assert messages[1] == Message("assistant", (Thinking("hm"), ToolCall("a", "f", "{}")))


def test_ids_may_come_again_in_later_turns() -> None:
    messages = (user("hi"), calls("a"), result("a", "1"), calls("a"), result("a", "2"))
    assert repaired(*messages) == (list(messages), ())


def test_an_id_that_comes_twice_in_a_turn_is_made_unique_and_its_results_stay_in_order() -> None:
    messages, warnings = repaired(
        user("hi"), calls("a", "b", "a"), result("a", "1"), result("a", "2"), result("b", "3")
    )
    assert [p.id for p in messages[1].parts if isinstance(p, ToolCall)] == ["a", "b", "a_again1"]
    assert messages[2:] == [result("a", "1"), result("b", "3"), result("a_again1", "2")]
    assert "history: repeated id of a tool call made unique" in warnings


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "gemini", "responses"])
def test_a_call_without_its_result_gets_one_that_says_so(dialect: str) -> None:
    messages, warnings = repaired(
        user("hi"), calls("a", "b"), result("a"), user("go"), dialect=dialect
    )
    missing = Message("tool", (ToolResult("b", (Text(turns.NO_RESULT),), is_error=True),))
    assert messages == [user("hi"), calls("a", "b"), result("a"), missing, user("go")]
    assert warnings == ("history: missing tool result replaced by a note",)


def test_calls_that_nothing_follows_get_results_that_say_so() -> None:
    messages, _ = repaired(user("hi"), calls("a"))
    assert [m.role for m in messages] == ["user", "assistant", "tool"]


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "gemini", "responses"])
def test_a_result_without_its_call_is_kept_as_the_users_text(dialect: str) -> None:
    messages, warnings = repaired(
        user("hi"), said("yo"), result("x", "42"), user("go"), dialect=dialect
    )
    assert [m.role for m in messages] == ["user", "assistant", "user", "user"]
    assert "42" in messages[2].text
    assert warnings == ("history: tool result without its call kept as text",)


def test_a_model_without_tools_is_shown_calls_and_results_as_text() -> None:
    messages, warnings = repaired(
        user("hi"),
        calls("a"),
        result("a", "42"),
        user("go"),
        capabilities=Capabilities(tools=False),
    )
    assert [m.role for m in messages] == ["user", "assistant", "user", "user"]
    assert "[called f: {}]" in messages[1].text
    assert "42" in messages[2].text
    assert "history: tool calls kept as text" in warnings


def test_a_result_whose_call_was_cut_off_with_the_start_is_dropped() -> None:
    """MiniMax-M2#76: clients that compact their history leave one."""
    got = repaired(system("s"), result("x"), user("go"))
    assert got == ([system("s"), user("go")], ("history: orphan tool result dropped",))


def test_of_two_results_the_last_counts() -> None:
    messages, warnings = repaired(user("hi"), calls("a"), result("a", "1"), result("a", "2"))
    assert messages[2:] == [result("a", "2")]
    assert warnings == ("history: duplicate tool result dropped",)


# --- arguments ---


@pytest.mark.parametrize("arguments", ["", "  ", "null"])
def test_empty_arguments_become_an_empty_object(arguments: str) -> None:
    messages, warnings = repaired(user("hi"), calls("a", arguments=arguments), result("a"))
    assert messages[1] == calls("a", arguments="{}")
    assert warnings == ()


@pytest.mark.parametrize("arguments", ['{"path": "/tm', "[1]", '"x"', "rm -rf", '{"a":1}}'])
def test_arguments_that_are_no_object_are_wrapped_whole(arguments: str) -> None:
    messages, warnings = repaired(user("hi"), calls("a", arguments=arguments), result("a"))
    call = messages[1].parts[0]
    assert isinstance(call, ToolCall)
    assert json.loads(call.arguments) == {"_raw": arguments}
    assert warnings == ("history: invalid JSON arguments wrapped",)


def test_a_lone_surrogate_in_arguments_is_replaced() -> None:
    half = '{"a": "' + chr(92) + 'ud83d"}'
    messages, warnings = repaired(user("hi"), calls("a", arguments=half), result("a"))
    assert messages[1] == calls("a", arguments='{"a": "' + chr(92) + 'ufffd"}')
    assert warnings == ("history: lone surrogates in arguments replaced",)


# --- empty messages, first and last ones ---


@pytest.mark.parametrize("parts", [(), (Text(""),), (Text(" \n"),)])
def test_an_empty_user_message_is_refused(parts: tuple[Text, ...]) -> None:
    assert "empty" in refused(Message("user", parts)).message


@pytest.mark.parametrize("parts", [(), (Text(""),), (Text(" \n"), Text(""))])
def test_an_empty_user_message_in_a_history_is_dropped(parts: tuple[Text, ...]) -> None:
    messages, warnings = repaired(
        user("hi"), calls("a"), result("a"), Message("user", parts), said("ok"), user("go")
    )
    assert messages == [user("hi"), calls("a"), result("a"), said("ok"), user("go")]
    assert warnings == ("history: empty user message dropped",)


def test_blank_texts_beside_others_are_dropped_and_their_cache_marks_move() -> None:
    picture = Media("image", url="https://x/a.png")
    blank = Text("\n", "5m")
    messages, _ = repaired(
        Message("user", (blank, Text("hi"), Text(""), picture, blank)),
        calls("a"),
        result("a"),
        Message("user", (Text(" ", "1h"),)),
    )
    assert messages[0] == Message(
        "user", (Text("hi"), msgspec.structs.replace(picture, cache="5m"))
    )
    (answered,) = messages[2].parts
    assert isinstance(answered, ToolResult) and answered.cache == "1h"
    assert len(messages) == 3


def test_arguments_encoded_twice_are_decoded_when_that_gives_an_object() -> None:
    twice = json.dumps(json.dumps({"a": 1}))
    messages, warnings = repaired(user("hi"), calls("a", arguments=twice), result("a"))
    assert messages[1] == calls("a", arguments='{"a": 1}')
    assert warnings == ("history: arguments encoded twice decoded",)


@pytest.mark.parametrize("parts", [(), (Text(""),), (Text(" "),), (Thinking("hm"),)])
def test_an_assistant_message_that_says_nothing_is_dropped(
    parts: tuple[Text | Thinking, ...],
) -> None:
    messages, warnings = repaired(user("hi"), Message("assistant", parts), user("go"))
    assert messages == [user("hi"), user("go")]
    assert len(warnings) == 1


def test_a_last_message_of_the_assistants_is_continued_in_words() -> None:
    """Kimi and opencode send what they were shown of a stream that was cut."""
    messages, warnings = repaired(user("hi"), said("The ans"))
    assert messages == [user("hi"), said("The ans"), user(history.CONTINUE)]
    assert warnings == ("history: continuation of the last assistant message asked for in words",)


def test_a_prefill_passes_where_it_is_continued() -> None:
    messages, _ = repaired(user("hi"), said("The ans"), capabilities=Capabilities(prefill=True))
    assert messages[-1] == said("The ans")


@pytest.mark.parametrize(
    ("dialect", "param"),
    [("openai", "$.messages"), ("anthropic", "$.messages"), ("gemini", "$.contents")],
)
def test_a_request_without_messages_is_refused(dialect: str, param: str) -> None:
    assert refused(dialect=dialect).param == param


def test_a_system_prompt_alone_is_no_conversation_for_anthropic() -> None:
    assert "at least one message" in refused(system("s"), dialect="anthropic").message


# --- any history ---

IDS = st.sampled_from(["a", "b"])
TEXTS = st.sampled_from(["", " ", "x", "y"])
MESSAGES = st.one_of(
    st.builds(system, TEXTS),
    st.builds(user, TEXTS),
    st.builds(
        lambda *parts: Message("assistant", parts),
        st.builds(Thinking, TEXTS),
        st.builds(Text, TEXTS),
    ),
    st.builds(calls, IDS, arguments=st.sampled_from(["", "{}", "{", "[]"])),
    st.builds(result, IDS),
)


@given(st.lists(MESSAGES, max_size=8), st.booleans(), st.booleans())
def test_a_quick_look_finds_no_history_sound_that_is_not(
    messages: list[Message], multi_system: bool, prefill: bool
) -> None:
    capabilities = Capabilities(multi_system=multi_system, prefill=prefill)
    request = Request("m", tuple(messages))
    if history._sound(request.messages, capabilities):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(history, "_sound", lambda *_: False)
            assert repair(request, capabilities, "openai") == request
        assert repair(request, capabilities, "openai") is request


def test_what_agents_send_is_found_sound_at_once() -> None:
    messages = (
        system("be kind"),
        user("hi"),
        said("hello"),
        user("work"),
        Message("assistant", (Thinking("hm"), ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}"))),
        result("a"),
        result("b"),
        calls("a"),
        result("a"),
        said("done"),
        user("more"),
    )
    assert history._sound(messages, PLAIN)
    assert not history._sound((*messages[:5], result("b"), result("a")), PLAIN)


@given(st.lists(MESSAGES, max_size=8), st.booleans())
def test_what_is_repaired_is_sound(messages: list[Message], multi_system: bool) -> None:
    capabilities = Capabilities(multi_system=multi_system)
    try:
        once = repair(Request("m", tuple(messages)), capabilities, "openai")
    except Refused:
        return
    assert repair(once, capabilities, "openai") == once
    open_calls: list[str] = []
    for n, message in enumerate(once.messages):
        if message.role == "tool":
            (part,) = message.parts
            assert isinstance(part, ToolResult)
            assert part.call_id == open_calls.pop(0)
            continue
        assert not open_calls
        assert message.role != "system" or n == 0 or multi_system
        assert message.text.strip() or any(isinstance(p, ToolCall) for p in message.parts)
        for part in message.parts:
            if isinstance(part, ToolCall):
                assert isinstance(json.loads(part.arguments), dict)
                open_calls.append(part.id)
    assert not open_calls
    assert once.messages[-1].role in ("user", "tool") or multi_system
