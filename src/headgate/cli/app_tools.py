"""The programs that are no agents of the command line, and what each of them reads.

Sources: our own run against a scripted server on 2026-11-25: llm 0.36.  Not run, only read about: Zed
(github.com/zed-industries/zed, language_models/src/provider/open_ai_compatible.rs) and Open WebUI
(docs.openwebui.com/reference/env-configuration).
"""

from headgate.cli.json_edit import Item
from headgate.cli.textedit import Block
from headgate.cli.tool import File, Tool

LLM = Tool(
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
)
ZED = Tool(
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
)
OPEN_WEBUI = Tool(
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
)
