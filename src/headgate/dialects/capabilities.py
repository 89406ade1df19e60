"""What one route (a model on an upstream) can do, and the words it uses: data for encoders.

The values come from catalog/models.toml and catalog/upstreams.toml; nothing in Python asks for the
name of a vendor.  `policy/fit.py` compares a request with these, an encoder only picks its words.
"""

from typing import Literal

import msgspec

# Where thinking is put on assistant messages that go to the upstream.
ReasoningForm = Literal["details", "tags", "reasoning", "reasoning_content", "blocks", "none"]
# How thinking is switched: not at all; MiniMax's `thinking: {type: adaptive | disabled}`; vLLM and
# SGLang's `chat_template_kwargs`; OpenAI's `reasoning_effort`; Anthropic's enabled + budget.
ThinkingSwitch = Literal["none", "adaptive", "template", "effort", "budget"]

# From the least to the most.
Effort = Literal["minimal", "low", "medium", "high", "xhigh", "max"]

EFFORTS: tuple[Effort, ...] = ("minimal", "low", "medium", "high", "xhigh", "max")
# The tokens that stand for an effort where a wire has only a number; ours, as no vendor publishes any.
BUDGETS = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16_384,
    "xhigh": 24_576,
    "max": 32_768,
}


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    input: tuple[Literal["text", "image", "video"], ...] = ("text",)
    tools: bool = True
    reasoning_form: ReasoningForm = "reasoning_content"
    reasoning_split: bool = False  # send `reasoning_split: true` (MiniMax)
    starts_thinking: bool = False  # text begins inside the think block, only `</think>` comes
    thinking_switch: ThinkingSwitch = "none"
    thinking_off: bool = False  # thinking can be switched off
    thinking_default: Literal["on", "off"] = "on"  # what the upstream does when nothing is sent
    # How much the model thinks can be asked for in these words, the least first; (): it has no such knob.
    efforts: tuple[Effort, ...] = ()
    default_effort: Literal["", "minimal", "low", "medium", "high", "xhigh", "max"] = (
        ""  # what the upstream does when none is sent; "": not known
    )
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    stop: bool = False
    tool_choice: tuple[Literal["none", "required", "named"], ...] = ()  # "auto" goes without saying
    parallel_switch: bool = False  # honours parallel_tool_calls / disable_parallel_tool_use
    response_format: bool = False  # enforces JSON schemas (guided decoding)
    seed: bool = False
    penalties: bool = False
    top_k: bool = False
    multi_system: bool = False  # takes system messages anywhere
    prefill: bool = False  # continues a last assistant message
    service_tier: bool = False
    # how it counts a request that is not sent: not, vLLM's and SGLang's, or Anthropic's way
    counts: Literal["", "tokenize", "anthropic"] = ""
    stream_usage: bool = True  # knows `stream_options.include_usage`
    temperature_max: float = 2.0
