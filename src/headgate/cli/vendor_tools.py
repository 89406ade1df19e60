"""The agents of vendors that have models or a platform of their own, and what each of them reads.

Sources: our own runs against a scripted server, connected and through `run`
where a tool has both, on 2026-11-25: Qwen Code 0.15.10, Kimi Code 2.1.0, Copilot CLI 1.0.102; on 2026-11-30: Claude
Code 2.1.332, Codex 0.171.0, Gemini CLI 0.61.0, droid 0.215.0.
"""

from typing import Any

from headgate.cli.codex_catalog import CODEX_CATALOG, CODEX_MODELS
from headgate.cli.json_edit import Item
from headgate.cli.textedit import Block
from headgate.cli.tool import KEY_VARIABLE, File, Overlay, Tool


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


# Gemini CLI 0.61 takes the window of any model that is not Google's for 1 048 576 tokens, sums up at
# half of it, and asks a model of Google's name for the summary (its docs/reference/configuration.md).
GEMINI_WINDOW = 1_048_576
_GEMINI: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("security", "auth", "selectedType"), "gemini-api-key"),
    (("model", "compressionThreshold"), "#compression"),
    (
        ("modelConfigs", "customAliases", "chat-compression-default"),
        {"modelConfig": {"model": "<model>"}},
    ),
)
CLAUDE_CODE = Tool(
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
)
CODEX = Tool(
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
                    f'model_catalog_json = "<home>/{CODEX_CATALOG}"\n',
                ),
                Block(
                    "bottom",
                    '[model_providers.headgate]\nname = "Headgate"\nbase_url = "<url>/v1"\n'
                    f'env_key = "{KEY_VARIABLE}"\nwire_api = "responses"\n',
                ),
            ),
        ),
        File("json", "~/.codex", (CODEX_CATALOG,), "CODEX_HOME", changes=CODEX_MODELS),
    ),
    variables={KEY_VARIABLE: "<key>"},
    overlay=Overlay("json", "codex-models.json", CODEX_MODELS),
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
)
GEMINI_CLI = Tool(
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
)
QWEN_CODE = Tool(
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
)
KIMI = Tool(
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
)
DROID = Tool(
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
)
COPILOT = Tool(
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
)
