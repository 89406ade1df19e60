"""The coding agents and command-line clients that can be pointed here, as one table.

The only place that knows what each tool reads: its files, variables and arguments, and where it
takes the key from.  Sources: our own runs against a scripted server, connected and through `run`
where a tool has both, on 2026-11-25: opencode 1.18.33, Cline 3.0.65, cn 1.5.47, aider 0.86.2, llm
0.36, Qwen Code 0.15.10, Kimi Code 2.1.0, Copilot CLI 1.0.102; on 2026-11-30: Claude Code 2.1.332,
Codex 0.171.0, Gemini CLI 0.61.0, pi 1.6.0, droid 0.215.0.  Not run, only read about: Kilo CLI 7.7.7
(its package's help and strings; it reads opencode's configuration under names of its own), goose
(goose-docs.ai, environment variables), OpenHands (docs.openhands.dev and its CLI's README), Zed
(github.com/zed-industries/zed, language_models/src/provider/open_ai_compatible.rs) and Open WebUI
(docs.openwebui.com/reference/env-configuration).

In every text of the table `<url>` (without /v1), `<model>`, `<title>` (the model's display name),
`<context>` and `<output>` (tokens), `<key>`, `<run>` (a directory of ours) and `<home>` (that of the
tool's first file, as a string of TOML) stand for what is filled in; a string that is just `#context`, `#output`, `#compression`, `#images` or `#modalities` becomes a number, a
truth value or a list.  What needs a key (`<key>`) is left out when there is none: the hint then says
which variable to set.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import click
from msgspec import Struct

from headgate.cli.json_edit import Default, Item, set_json
from headgate.cli.textedit import Block

KEY_VARIABLE = "HEADGATE_API_KEY"
Protocol = Literal["Messages", "Responses", "Gemini", "Chat"]


class ConnectTarget(Struct, frozen=True):
    """What a tool is pointed at."""

    url: str  # without a slash at the end, and without /v1
    model: str
    title: str
    context: int  # tokens
    output: int  # tokens
    key: str = ""  # a secret
    run: str = ""  # the directory of the files made for `headgate run`
    images: bool = False  # whether the model sees them
    home: str = ""  # the directory of the tool's first file


class File(Struct, frozen=True):
    """One file of a tool, and what is put into it."""

    kind: Literal["json", "jsonc", "toml", "yaml", "dotenv"]  # jsonc: it reads comments
    home: str  # the directory, unless `home_variable` names another; "app:x": click's
    names: tuple[str, ...]  # the first that exists is edited, else the first is made
    home_variable: str = ""
    below: str = ""  # the directory's name below what `home_variable` holds
    changes: tuple[Any, ...] = ()  # (path, value) for JSON, Blocks for the others


class Overlay(Struct, frozen=True):
    """A file of ours for `headgate run`, which the tool reads beside or instead of its own."""

    kind: Literal["json", "jsonc", "yaml"]
    name: str  # below `<run>`
    changes: tuple[Any, ...]  # as in File
    own: bool = False  # starts from the tool's first file as it is, not from nothing


class Tool(Struct, frozen=True):
    name: str
    title: str
    protocol: Protocol
    program: str
    install: str
    files: tuple[File, ...]
    variables: dict[str, str] = {}  # for `headgate run`
    arguments: tuple[str, ...] = ()  # for `headgate run`, before the user's own
    overlay: Overlay | None = None
    unset: tuple[str, ...] = ()  # variables that would win over ours
    key_in: str = KEY_VARIABLE  # the variable it takes the key from; "": only from its file
    runs: bool = True  # whether it can be started with nothing edited
    hints: tuple[str, ...] = ()


def claude_variables() -> dict[str, str]:
    return {
        "ANTHROPIC_BASE_URL": "<url>",
        "ANTHROPIC_AUTH_TOKEN": "<key>",
        "ANTHROPIC_MODEL": "<model>",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "<model>",
        "ANTHROPIC_DEFAULT_SONNET_MODEL": "<model>",
        "ANTHROPIC_DEFAULT_OPUS_MODEL": "<model>",
        "ANTHROPIC_DEFAULT_FABLE_MODEL": "<model>",
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": "<context>",  # else it assumes a million (2.1.330)
    }


CODEX_INSTRUCTIONS = """\
You are a coding agent in the Codex CLI, at work in a person's own folder.

Work
- Finish the task before you answer: look, change, check. Ask only when no reasonable choice is left.
- Read before you write. Search with `rg` and `rg --files`; use other tools where it is missing.
- Keep to the style of the code around you, change no more than the task needs, and fix causes.
- Leave changes alone that you did not make. No commit, branch or reset unless you are asked for it.
- Follow every AGENTS.md whose folder holds a file that you change; a deeper one goes before a higher
  one, and what the person says goes before both.
- Run the tests, the linter or the build that concern your change, and say what you could not check.

Tools
- Edit files with `apply_patch`. A patch begins with `*** Begin Patch` and ends with `*** End Patch`;
  in between are `*** Add File: path`, `*** Update File: path` or `*** Delete File: path`, and for an
  update hunks that begin with `@@`, each line with a space, `-` or `+` in front. Paths are relative.
- Independent calls may be made at once. Do not read a file again only to see that a patch was applied.
- Where a command is refused by the sandbox, follow the permissions that you were given.

Answer
- Before a group of calls say in a sentence what you are about to do.
- At the end say briefly what you changed, where (`path:line`), and what is left to do.
"""

_OPENCODE: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("provider", "headgate", "npm"), "@ai-sdk/openai-compatible"),
    (("provider", "headgate", "name"), "Headgate"),
    (("provider", "headgate", "options", "baseURL"), "<url>/v1"),
    (("provider", "headgate", "options", "apiKey"), "{env:HEADGATE_API_KEY}"),
    (
        ("provider", "headgate", "models", "<model>"),
        {
            "name": "<title>",
            "reasoning": True,
            "tool_call": True,
            # Sends the thinking of earlier turns back, which the models need.
            "interleaved": {"field": "reasoning_content"},
            "limit": {"context": "#context", "output": "#output"},
        },
    ),
    (("model",), "headgate/<model>"),
)


# Gemini CLI 0.61 takes the window of any model that is not Google's for 1 048 576 tokens, sums up at
# half of it, and asks a model of Google's name for the summary (its docs/reference/configuration.md).
_GEMINI_WINDOW = 1_048_576
_GEMINI: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("security", "auth", "selectedType"), "gemini-api-key"),
    (("model", "compressionThreshold"), "#compression"),
    (
        ("modelConfigs", "customAliases", "chat-compression-default"),
        {"modelConfig": {"model": "<model>"}},
    ),
)


# Codex takes a name that is not in its catalog for an unknown model: it warns, and guesses what the
# model can do.  The fields are those that 0.171 insists on, and what our models differ in.
_CODEX_CATALOG = "headgate-models.json"
_CODEX: tuple[tuple[tuple[Any, ...], Any], ...] = (
    (
        ("models", Item("slug", "<model>")),
        {
            "slug": "<model>",
            "display_name": "<title>",
            "description": "<title> through Headgate.",
            "base_instructions": CODEX_INSTRUCTIONS,
            "context_window": "#context",
            "input_modalities": "#modalities",
            "supported_reasoning_levels": [],
            "shell_type": "unified_exec",
            "apply_patch_tool_type": "freeform",
            "supports_parallel_tool_calls": True,
            "support_verbosity": False,
            "truncation_policy": {"mode": "tokens", "limit": 10_000},
            "experimental_supported_tools": [],
            "visibility": "list",
            "supported_in_api": True,
            "priority": 1,
        },
    ),
)


_CONTINUE = Block(
    "bottom",
    "name: Headgate\nversion: 1.0.0\nschema: v1\nmodels:\n"
    "  - name: <title> (Headgate)\n    provider: openai\n    model: <model>\n"
    "    apiBase: <url>/v1\n"
    f"    apiKey: ${{{{ secrets.{KEY_VARIABLE} }}}}\n"
    "    roles: [chat, edit, apply]\n    capabilities: [tool_use]\n"
    "    defaultCompletionOptions:\n"
    "      contextLength: <context>\n      maxTokens: 32000\n",
    "models",
)

TOOLS: tuple[Tool, ...] = (
    Tool(
        "claude-code",
        "Claude Code",
        "Messages",
        "claude",
        "npm install -g @anthropic-ai/claude-code",
        (
            File(
                "json",
                "~/.claude",
                ("settings.json",),
                "CLAUDE_CONFIG_DIR",
                changes=tuple((("env", name), value) for name, value in claude_variables().items()),
            ),
        ),
        variables=claude_variables(),
        unset=("ANTHROPIC_API_KEY",),
        key_in="ANTHROPIC_AUTH_TOKEN",
        hints=("Unset ANTHROPIC_API_KEY where it is set: Claude Code would send both keys.",),
    ),
    Tool(
        "codex",
        "Codex",
        "Responses",
        "codex",
        "npm install -g @openai/codex",
        (
            File(
                "toml",
                "~/.codex",
                ("config.toml",),
                "CODEX_HOME",
                changes=(
                    Block(
                        "top",
                        'model = "<model>"\nmodel_provider = "headgate"\n'
                        "model_context_window = <context>\n"
                        f'model_catalog_json = "<home>/{_CODEX_CATALOG}"\n',
                    ),
                    Block(
                        "bottom",
                        '[model_providers.headgate]\nname = "Headgate"\nbase_url = "<url>/v1"\n'
                        f'env_key = "{KEY_VARIABLE}"\nwire_api = "responses"\n',
                    ),
                ),
            ),
            File("json", "~/.codex", (_CODEX_CATALOG,), "CODEX_HOME", changes=_CODEX),
        ),
        variables={KEY_VARIABLE: "<key>"},
        overlay=Overlay("json", "codex-models.json", _CODEX),
        arguments=(
            *("-c", 'model="<model>"'),
            *("-c", 'model_provider="headgate"'),
            *("-c", "model_context_window=<context>"),
            *("-c", 'model_catalog_json="<run>/codex-models.json"'),
            *("-c", 'model_providers.headgate.name="Headgate"'),
            *("-c", 'model_providers.headgate.base_url="<url>/v1"'),
            *("-c", f'model_providers.headgate.env_key="{KEY_VARIABLE}"'),
            *("-c", 'model_providers.headgate.wire_api="responses"'),
        ),
    ),
    Tool(
        "gemini-cli",
        "Gemini CLI",
        "Gemini",
        "gemini",
        "npm install -g @google/gemini-cli",
        (
            File(
                "jsonc",
                "~/.gemini",
                ("settings.json",),
                "GEMINI_CLI_HOME",
                ".gemini",
                changes=((("model", "name"), "<model>"), *_GEMINI),
            ),
            File(
                "dotenv",
                "~/.gemini",
                (".env",),
                "GEMINI_CLI_HOME",
                ".gemini",
                changes=(Block("bottom", "GOOGLE_GEMINI_BASE_URL=<url>\nGEMINI_API_KEY=<key>\n"),),
            ),
        ),
        variables={
            "GOOGLE_GEMINI_BASE_URL": "<url>",
            "GEMINI_API_KEY": "<key>",
            "GEMINI_MODEL": "<model>",
            "GEMINI_CLI_HOME": "<run>/gemini",
            # Without a terminal it does nothing in a folder that is not trusted.
            "GEMINI_CLI_TRUST_WORKSPACE": "true",
        },
        # These variables alone make 0.61 choose the method "gateway" and then refuse it, and settings
        # named by a variable must be root's.  Those of Vertex AI's mode work (see env.py), but lose to a
        # method that was chosen before.  So it gets a home of its own for `run`: sessions,
        # extensions and trusted folders of the usual one are not seen.
        overlay=Overlay(
            "jsonc",
            "gemini/.gemini/settings.json",
            _GEMINI,
            own=True,
        ),
        unset=("GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_GCA"),
        key_in="GEMINI_API_KEY",
        hints=(
            "A project's own .gemini/.env or .env is read instead of the user's, and in a folder that"
            " is not trusted none is (without a terminal: GEMINI_CLI_TRUST_WORKSPACE=true).",
        ),
    ),
    Tool(
        "opencode",
        "opencode",
        "Chat",
        "opencode",
        "npm install -g opencode-ai",
        (
            File(
                "jsonc",
                "~/.config/opencode",
                ("opencode.json", "opencode.jsonc"),
                "XDG_CONFIG_HOME",
                "opencode",
                changes=_OPENCODE,
            ),
        ),
        variables={KEY_VARIABLE: "<key>", "OPENCODE_CONFIG_CONTENT": "<opencode>"},
    ),
    Tool(
        "kilo",
        "Kilo Code",
        "Chat",
        "kilo",
        "npm install -g @kilocode/cli",
        (
            File(
                "jsonc",
                "~/.config/kilo",
                ("kilo.json", "kilo.jsonc"),
                "XDG_CONFIG_HOME",
                "kilo",
                changes=_OPENCODE,
            ),
        ),
        variables={KEY_VARIABLE: "<key>", "KILO_CONFIG_CONTENT": "<opencode>"},
    ),
    Tool(
        "cline",
        "Cline",
        "Chat",
        "cline",
        "npm install -g cline",
        (
            File(
                "json",
                "~/.cline/data/settings",
                ("providers.json",),
                "CLINE_DIR",
                "data/settings",
                changes=(
                    (("version",), 1),
                    (("lastUsedProvider",), "openai-compatible"),
                    *(
                        (("providers", "openai-compatible", "settings", name), value)
                        for name, value in (
                            ("provider", "openai-compatible"),
                            ("apiKey", "<key>"),
                            ("model", "<model>"),
                            ("baseUrl", "<url>/v1"),
                        )
                    ),
                    # Without these two Cline 3.0.65 throws the whole file away.
                    (
                        ("providers", "openai-compatible", "updatedAt"),
                        Default("2026-11-01T00:00:00.000Z"),
                    ),
                    (("providers", "openai-compatible", "tokenSource"), Default("manual")),
                ),
            ),
        ),
        key_in="",
        runs=False,
    ),
    Tool(
        "continue",
        "Continue",
        "Chat",
        "cn",
        "npm install -g @continuedev/cli",
        (
            File(
                "yaml",
                "~/.continue",
                ("config.yaml",),
                "CONTINUE_GLOBAL_DIR",
                changes=(_CONTINUE,),
            ),
        ),
        variables={KEY_VARIABLE: "<key>"},
        arguments=("--config", "<run>/continue.yaml"),
        overlay=Overlay("yaml", "continue.yaml", (_CONTINUE,)),
        hints=("In an editor, put HEADGATE_API_KEY=... into ~/.continue/.env as well.",),
    ),
    Tool(
        "aider",
        "aider",
        "Chat",
        "aider",
        "pipx install aider-chat",
        (
            File(
                "yaml",
                "~",
                (".aider.conf.yml",),
                changes=(
                    Block(
                        "bottom",
                        "model: openai/<model>\nopenai-api-base: <url>/v1\nopenai-api-key: <key>\n",
                    ),
                ),
            ),
            File(
                "jsonc",
                "~",
                (".aider.model.metadata.json",),
                changes=(
                    (
                        ("openai/<model>",),
                        {
                            "max_tokens": "#output",
                            "max_input_tokens": "#context",
                            "max_output_tokens": "#output",
                            "litellm_provider": "openai",
                            "mode": "chat",
                        },
                    ),
                ),
            ),
        ),
        variables={
            "OPENAI_API_BASE": "<url>/v1",
            "OPENAI_API_KEY": "<key>",
            "AIDER_MODEL": "openai/<model>",
        },
        key_in="OPENAI_API_KEY",
    ),
    Tool(
        "llm",
        "llm",
        "Chat",
        "llm",
        "pipx install llm",
        (
            File(
                "yaml",
                "app:io.datasette.llm",
                ("extra-openai-models.yaml",),
                "LLM_USER_PATH",
                changes=(
                    Block(
                        "bottom",
                        "- model_id: headgate/<model>\n  model_name: <model>\n"
                        "  api_base: <url>/v1\n  api_key_name: headgate\n"
                        "  supports_tools: true\n  supports_schema: true\n",
                        "",
                    ),
                ),
            ),
            File(
                "json",
                "app:io.datasette.llm",
                ("keys.json",),
                "LLM_USER_PATH",
                changes=((("headgate",), "<key>"),),
            ),
        ),
        key_in="OPENAI_API_KEY",
        runs=False,
        hints=("Use it with `llm -m headgate/<model>`; `llm keys set headgate` keeps a key.",),
    ),
    Tool(
        "qwen-code",
        "Qwen Code",
        "Chat",
        "qwen",
        "npm install -g @qwen-code/qwen-code",
        (
            File(
                "jsonc",
                "~/.qwen",
                ("settings.json",),
                "QWEN_HOME",
                changes=(
                    (
                        ("modelProviders", "openai", Item("name", "Headgate")),
                        {
                            "id": "<model>",
                            "name": "Headgate",
                            "baseUrl": "<url>/v1",
                            "envKey": KEY_VARIABLE,
                            "generationConfig": {"contextWindowSize": "#context"},
                        },
                    ),
                    (("security", "auth", "selectedType"), "openai"),
                    (("model", "name"), "<model>"),
                ),
            ),
        ),
        variables={
            "OPENAI_BASE_URL": "<url>/v1",
            "OPENAI_API_KEY": "<key>",
            "OPENAI_MODEL": "<model>",
        },
        arguments=("--auth-type", "openai", "--model", "<model>"),
    ),
    Tool(
        "kimi",
        "Kimi Code",
        "Chat",
        "kimi",
        "npm install -g @moonshot-ai/kimi-code",
        (
            File(
                "toml",
                "~/.kimi-code",
                ("config.toml",),
                "KIMI_CODE_HOME",
                changes=(
                    Block("top", 'default_model = "headgate/<model>"\n'),
                    Block(
                        "bottom",
                        '[providers.headgate]\ntype = "openai"\nbase_url = "<url>/v1"\n'
                        f'api_key_env = "{KEY_VARIABLE}"\n\n'
                        '[models."headgate/<model>"]\nprovider = "headgate"\nmodel = "<model>"\n'
                        'max_context_size = <context>\ncapabilities = ["thinking", "tool_use"]\n'
                        'display_name = "<title>"\n',
                    ),
                ),
            ),
        ),
        variables={
            "KIMI_MODEL_NAME": "<model>",
            "KIMI_MODEL_API_KEY": "<key>",
            "KIMI_MODEL_PROVIDER_TYPE": "openai",
            "KIMI_MODEL_BASE_URL": "<url>/v1",
            "KIMI_MODEL_MAX_CONTEXT_SIZE": "<context>",
            "KIMI_MODEL_CAPABILITIES": "thinking",
        },
    ),
    Tool(
        "pi",
        "pi",
        "Chat",
        "pi",
        "npm install -g @earendil-works/pi-coding-agent",
        (
            File(
                "json",
                "~/.pi/agent",
                ("models.json",),
                "PI_CODING_AGENT_DIR",
                changes=(
                    (("providers", "headgate", "baseUrl"), "<url>/v1"),
                    (("providers", "headgate", "api"), "openai-completions"),
                    (("providers", "headgate", "apiKey"), f"${KEY_VARIABLE}"),
                    (
                        ("providers", "headgate", "models", Item("id", "<model>")),
                        {
                            "id": "<model>",
                            "name": "<title>",
                            "reasoning": True,
                            "contextWindow": "#context",
                            "maxTokens": "#output",
                        },
                    ),
                ),
            ),
        ),
        runs=False,
        hints=("Use it with `pi --provider headgate --model <model>`.",),
    ),
    Tool(
        "droid",
        "Factory Droid",
        "Chat",
        "droid",
        "npm install -g droid",
        (
            File(
                "jsonc",
                "~/.factory",
                ("settings.json",),
                changes=(
                    (
                        ("customModels", Item("displayName", "Headgate")),
                        {
                            "model": "<model>",
                            "displayName": "Headgate",
                            "baseUrl": "<url>/v1",
                            "apiKey": f"${{{KEY_VARIABLE}}}",
                            "provider": "generic-chat-completion-api",
                            "maxOutputTokens": "#output",
                        },
                    ),
                    (("model",), "custom:<model>"),
                ),
            ),
        ),
        runs=False,
        hints=("Use it with `droid exec -m custom:<model>`, or choose the model in it.",),
    ),
    Tool(
        "goose",
        "goose",
        "Chat",
        "goose",
        "see goose-docs.ai/docs/getting-started/installation",
        (
            File(
                "yaml",
                "~/.config/goose",
                ("config.yaml",),
                "XDG_CONFIG_HOME",
                "goose",
                changes=(
                    Block(
                        "bottom",
                        "GOOSE_PROVIDER: openai\nGOOSE_MODEL: <model>\n"
                        "GOOSE_CONTEXT_LIMIT: <context>\n"
                        "OPENAI_HOST: <url>\nOPENAI_BASE_PATH: v1/chat/completions\n",
                    ),
                ),
            ),
        ),
        variables={
            "GOOSE_PROVIDER": "openai",
            "GOOSE_MODEL": "<model>",
            "GOOSE_CONTEXT_LIMIT": "<context>",
            "OPENAI_HOST": "<url>",
            "OPENAI_BASE_PATH": "v1/chat/completions",
            "OPENAI_API_KEY": "<key>",
        },
        key_in="OPENAI_API_KEY",
        hints=(
            "goose takes no key from its file, and prefers one that `goose configure` has stored.",
        ),
    ),
    Tool(
        "openhands",
        "OpenHands",
        "Chat",
        "openhands",
        "uv tool install openhands --python 3.12",
        (),
        variables={
            "LLM_MODEL": "openai/<model>",
            "LLM_BASE_URL": "<url>/v1",
            "LLM_API_KEY": "<key>",
        },
        arguments=("--override-with-envs",),
        key_in="LLM_API_KEY",
        hints=("OpenHands reads these only when it is started with --override-with-envs.",),
    ),
    Tool(
        "zed",
        "Zed",
        "Chat",
        "zed",
        "see zed.dev/download",
        (
            File(
                "jsonc",
                "~/.config/zed",
                ("settings.json",),
                "XDG_CONFIG_HOME",
                "zed",
                changes=(
                    (("language_models", "openai_compatible", "headgate", "api_url"), "<url>/v1"),
                    (
                        (
                            *("language_models", "openai_compatible", "headgate"),
                            *("available_models", Item("name", "<model>")),
                        ),
                        {
                            "name": "<model>",
                            "display_name": "<title>",
                            "max_tokens": "#context",
                            "capabilities": {
                                "tools": True,
                                "images": "#images",
                                "parallel_tool_calls": True,
                                "prompt_cache_key": False,
                                # Sends the thinking of earlier turns back.
                                "interleaved_reasoning": True,
                            },
                        },
                    ),
                    (("agent", "default_model", "provider"), "headgate"),
                    (("agent", "default_model", "model"), "<model>"),
                ),
            ),
        ),
        runs=False,
        hints=(
            "Zed names the variable after the provider, and keeps a key that is given in its agent"
            " settings in the system's key chain instead.",
        ),
    ),
    Tool(
        "copilot",
        "GitHub Copilot CLI",
        "Chat",
        "copilot",
        "npm install -g @github/copilot",
        (),
        variables={
            "COPILOT_OFFLINE": "true",
            "COPILOT_PROVIDER_BASE_URL": "<url>/v1",
            "COPILOT_PROVIDER_TYPE": "openai",
            "COPILOT_PROVIDER_WIRE_API": "completions",
            "COPILOT_PROVIDER_API_KEY": "<key>",
            "COPILOT_PROVIDER_MAX_PROMPT_TOKENS": "<context>",
            "COPILOT_MODEL": "<model>",
        },
        key_in="COPILOT_PROVIDER_API_KEY",
    ),
    Tool(
        "open-webui",
        "Open WebUI",
        "Chat",
        "open-webui",
        "pipx install open-webui",
        (),
        variables={
            "OPENAI_API_BASE_URL": "<url>/v1",
            "OPENAI_API_KEY": "<key>",
            "DEFAULT_MODELS": "<model>",
            # Else what its first start has stored wins over these.
            "ENABLE_PERSISTENT_CONFIG": "False",
        },
        arguments=("serve",),
        key_in="OPENAI_API_KEY",
    ),
)
BY_NAME = {tool.name: tool for tool in TOOLS} | {tool.program: tool for tool in TOOLS}


class ToolName(click.ParamType[Tool]):
    """A tool by its name, or by that of its program."""

    name = "tool"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Tool:
        if isinstance(value, Tool):
            return value
        if found := BY_NAME.get(value.lower()):
            return found
        self.fail(f"`{value[:40]}` is none of {', '.join(t.name for t in TOOLS)}.", param, ctx)


def filled(text: Any, target: ConnectTarget) -> Any:  # Any: a template of whatever shape
    """Return the template with the target's values in it; parts that need a missing key are None."""
    if text == "#context":
        return target.context
    if text == "#output":
        return target.output
    if text == "#images":
        return target.images
    if text == "#modalities":
        return ["text", "image"] if target.images else ["text"]
    if text == "#compression":
        return int(80 * target.context / _GEMINI_WINDOW) / 100  # when four fifths are used
    if isinstance(text, str):
        if "<key>" in text and not target.key:
            return None
        if text == "<opencode>":
            return _opencode(target)
        values = (
            ("url", target.url),
            ("model", target.model),
            ("title", target.title),
            ("home", json.dumps(target.home, ensure_ascii=False)[1:-1]),
        )
        numbers = (("context", str(target.context)), ("output", str(target.output)))
        for name, value in (*values, *numbers, ("run", target.run), ("key", target.key)):
            text = text.replace(f"<{name}>", value)
        return text
    if isinstance(text, dict):
        return {k: filled(v, target) for k, v in text.items()}
    if isinstance(text, Block):
        kept = [x for x in text.lines.split("\n") if target.key or "<key>" not in x]
        return text._replace(lines=filled("\n".join(kept), target))
    if isinstance(text, Item):
        return Item(text.key, filled(text.value, target))
    if isinstance(text, tuple):
        return tuple(filled(part, target) for part in text)
    return text


def changes(file: File | Overlay, target: ConnectTarget) -> list[Any]:
    """What goes into a file, without what needs a key when there is none."""
    return [c for c in filled(file.changes, target) if isinstance(c, Block) or c[1] is not None]


def needs_key(file: File) -> bool:
    """Whether the key itself, not the name of its variable, is written into the file."""
    return "<key>" in repr(file.changes)


def place(file: File, env: Mapping[str, str]) -> Path:
    """Where the file is or will be, links followed: what is edited is what they point to."""
    if file.home_variable and (root := env.get(file.home_variable)):
        directory = Path(root).expanduser() / file.below
    elif file.home.startswith("app:"):
        directory = Path(click.get_app_dir(file.home.removeprefix("app:")))
    else:
        directory = Path(file.home).expanduser()
    paths = [directory / name for name in file.names]
    return Path(os.path.realpath(next((p for p in paths if p.exists()), paths[0])))


def environment(tool: Tool, target: ConnectTarget) -> dict[str, str]:
    """The variables that start the tool pointed here with nothing edited."""
    found = {name: filled(text, target) for name, text in tool.variables.items()}
    return {name: value for name, value in found.items() if value is not None}


def _opencode(target: ConnectTarget) -> str:
    return set_json("{}", filled(_OPENCODE, target))
