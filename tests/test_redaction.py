"""What is kept of an upstream's error text."""

import pytest

from headgate.redaction import MAX_CHARS, redacted


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("The model MiniMax-M2.7-highspeed is not available.",) * 2,
        ("Rate limit reached for claude-sonnet-4-5-20250929 in org.",) * 2,
        ("two\n  lines\tand \x00 control", "two lines and ? control"),
        ("", ""),
        ("Incorrect API key provided: sk-abcd1234efgh5678.", "Incorrect API key provided: ***."),
        ("It can't be served because the plan of this account isn't paid.",) * 2,
        ("invalid token: eyJhbGciOiJIUzI1NiJ9.e30.x", "invalid ***"),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: ***"),
        ("no account for ada@example.org here", "no account for *** here"),
        ("see http://user:pass@proxy/x", "see http://***@proxy/x"),
        ('bad value "short one"', 'bad value "short one"'),
    ],
)
def test_secrets_go_and_the_reason_stays(text: str, kept: str) -> None:
    assert redacted(text) == kept


@pytest.mark.parametrize("quote", ['"', "'", "`"])
def test_a_long_quotation_is_the_request_and_goes(quote: str) -> None:
    prompt = "my secret plan is to buy the whole company tomorrow"
    assert "secret plan" not in redacted(f"flagged: {quote}{prompt}{quote} is not allowed")
    assert "secret plan" not in redacted(f"flagged: {quote}{prompt}")  # cut before its end


@pytest.mark.parametrize(
    "text",
    [
        "1 validation error: Input should be a string [type=string_type, input_value={'a': 'secret plan'}]",
        "[{'type': 'missing', 'loc': ['body'], 'msg': 'Field required', 'input': {'x': 'secret plan'}}]",
        'invalid request, messages: [{"role": "user", "content": "secret plan"}]',
    ],
)
def test_what_a_validator_repeats_of_the_request_goes(text: str) -> None:
    assert "secret plan" not in redacted(text)


def test_the_text_is_bounded_and_its_time_is_linear() -> None:
    for piece in ("a" * 100_000, "' " * 50_000, '"' * 100_000, "x@" * 50_000, "key= " * 20_000):
        assert len(redacted(piece)) <= MAX_CHARS
