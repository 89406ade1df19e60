"""The agents that serve any provider, and what each of them reads.

Sources: our own runs against a scripted server, connected and through `run`
where a tool has both, on 2026-11-25: opencode 1.18.33, Cline 3.0.65, cn 1.5.47, aider 0.86.2; on 2026-11-30: pi 1.6.0.
Not run, only read about: Kilo CLI 7.7.7
(its package's help and strings; it reads opencode's configuration under names of its own), goose
(goose-docs.ai, environment variables), OpenHands (docs.openhands.dev and its CLI's README).
"""

from typing import Any

from headgate.cli.json_edit import Default, Item
from headgate.cli.textedit import Block
from headgate.cli.tool import KEY_VARIABLE, File, Overlay, Tool

OPENCODE_SETTINGS: tuple[tuple[tuple[str, ...], Any], ...] = (
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
OPENCODE = Tool(
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
            changes=OPENCODE_SETTINGS,
        ),
    ),
    variables={KEY_VARIABLE: "<key>", "OPENCODE_CONFIG_CONTENT": "<opencode>"},
)
KILO = Tool(
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
            changes=OPENCODE_SETTINGS,
        ),
    ),
    variables={KEY_VARIABLE: "<key>", "KILO_CONFIG_CONTENT": "<opencode>"},
)
CLINE = Tool(
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
)
CONTINUE = Tool(
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
)
AIDER = Tool(
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
)
PI = Tool(
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
)
GOOSE = Tool(
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
    hints=("goose takes no key from its file, and prefers one that `goose configure` has stored.",),
)
OPENHANDS = Tool(
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
)
