"""The agents that are played, as one table: how each is started without a screen.

Where it is pointed is not here: `headgate connect` does that, and the run uses it.  Sources: each
program's own --help, and what it did; the versions are in docs/clients.md.
"""

from dataclasses import dataclass, field

# `llm` has no tools of its own; this is given to it as `--functions`.
_WRITE = """
def write_file(path: str, content: str) -> str:
    "Write a file."
    with open(path, "w") as out:
        out.write(content)
    return "written"
"""
_AIDER = (
    *("--yes-always", "--no-git", "--no-pretty", "--no-check-update", "--no-analytics"),
    *("--no-show-model-warnings", "--no-show-release-notes", "--no-detect-urls"),
    *("--edit-format", "diff"),
)


@dataclass(frozen=True)
class Agent:
    """`<prompt>` stands for what the user says, `<key>` for a key, `<model>` for the model."""

    name: str  # headgate connect's
    title: str
    package: str
    program: str
    line: tuple[str, ...]  # after the program
    npm: bool = True
    wants: str = (
        ""  # the version of npm's package, or of the Python for PyPI's; "": the newest, ours
    )
    env: dict[str, str] = field(default_factory=dict)
    resume: tuple[str, ...] = ()  # the line that goes on with the last conversation
    sessions: str = (
        ""  # the files of its conversations below its home; `<session>` is a file's name
    )
    talk: tuple[str, ...] = ()  # instead: one process that reads its prompts line by line
    compacts: bool = True  # by usage near the window's end, or as `compact_*` say
    compact_characters: int = 0  # of a text that makes the conversation long, instead of the usage
    compact_line: tuple[str, ...] = ()  # more arguments
    compact_rounds: int = 1  # prompts that it takes
    tools: bool = True  # False: writes files by blocks of text
    runs: bool = True  # by `headgate run` too
    connects: bool = True  # by `headgate connect`; False: by `headgate run` only
    # How it learns of a server of the Model Context Protocol: more arguments, with `<config>` for the path of
    # a file of JSON, `<python>` and `<server>`; or a file where it works, with the key of its servers.
    mcp_line: tuple[str, ...] = ()
    mcp_file: tuple[str, str] = ("", "")
    mcp_add: tuple[str, ...] = ()  # or its own command that adds one
    mcp_tool: str = "mcp__probe__lookup"  # what it calls the server's tool
    reads: tuple[str, ...] = ()  # the kinds of files that a tool of it shows the model as media
    sub_agent: str = ""  # the kind of sub-agent that its tool is asked for
    # More arguments, in front, that choose a vendor's model where the file of `headgate connect` says ours.
    vendors: tuple[str, ...] = ()
    by_url: tuple[
        str, ...
    ] = ()  # more arguments, with `<url>`, that point it here as its vendor's own


AGENTS = (
    Agent(
        "claude-code",
        "Claude Code",
        "@anthropic-ai/claude-code",
        "claude",
        ("-p", "<prompt>", "--dangerously-skip-permissions"),
        env={
            "IS_SANDBOX": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_AUTOUPDATER": "1",
        },
        resume=("--continue", "-p", "<prompt>", "--dangerously-skip-permissions"),
        mcp_line=("--mcp-config", "<config>"),
        reads=("png", "pdf"),
        sub_agent="general-purpose",
        vendors=("--model", "claude-opus-5-5"),
    ),
    Agent(
        "codex",
        "Codex",
        "@openai/codex",
        "codex",
        ("exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "<prompt>"),
        env={"HEADGATE_API_KEY": "<key>"},
        resume=(
            *("exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
            *("resume", "--last", "<prompt>"),
        ),
        mcp_line=(
            *("-c", 'mcp_servers.probe.command="<python>"'),
            *("-c", 'mcp_servers.probe.args=["<server>"]'),
        ),
        reads=("png",),
        by_url=("-c", 'openai_base_url="<url>/v1"'),
        vendors=("-m", "gpt-5.6-codex"),
    ),
    Agent(
        "gemini-cli",
        "Gemini CLI",
        "@google/gemini-cli",
        "gemini",
        ("--yolo", "-p", "<prompt>"),
        env={"GEMINI_CLI_TRUST_WORKSPACE": "true"},
        resume=("--yolo", "--resume", "latest", "-p", "<prompt>"),
        # It sums up between prompts only, and a conversation that it takes up again it counts itself.
        compact_characters=800_000,
        compact_rounds=2,
        mcp_file=(".gemini/settings.json", "mcpServers"),
        reads=("png", "pdf"),
        vendors=("-m", "gemini-3.8-pro"),
    ),
    Agent(
        "opencode",
        "opencode",
        "opencode-ai",
        "opencode",
        ("run", "<prompt>"),
        env={
            "HEADGATE_API_KEY": "<key>",
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
        },
        resume=("run", "--continue", "<prompt>"),
        mcp_file=("opencode.json", "mcp"),
        reads=("png", "pdf"),
        sub_agent="general",
    ),
    Agent(
        "qwen-code",
        "Qwen Code",
        "@qwen-code/qwen-code",
        "qwen",
        ("--yolo", "-p", "<prompt>"),
        env={"HEADGATE_API_KEY": "<key>"},
        resume=("--yolo", "--continue", "-p", "<prompt>"),
        compacts=False,
        mcp_file=(".qwen/settings.json", "mcpServers"),
        reads=("png", "pdf"),
        sub_agent="general-purpose",
        vendors=("-m", "gpt-5.6-codex"),
    ),
    Agent(
        "pi",
        "pi",
        "@earendil-works/pi-coding-agent",
        "pi",
        ("--provider", "headgate", "--model", "<model>", "-p", "<prompt>"),
        env={"HEADGATE_API_KEY": "<key>", "PI_OFFLINE": "1"},
        resume=("--continue", "--provider", "headgate", "--model", "<model>", "-p", "<prompt>"),
        runs=False,
        mcp_add=("mcp", "add", "probe", "--", "<python>", "<server>"),
        reads=("png",),
    ),
    Agent(
        "droid",
        "Factory Droid",
        "droid",
        "droid",
        ("exec", "--skip-permissions-unsafe", "-m", "custom:<model>", "<prompt>"),
        env={"HEADGATE_API_KEY": "<key>"},
        runs=False,
        compacts=False,
        mcp_add=("mcp", "add", "probe", "<python>", "<server>"),
        mcp_tool="probe___lookup",
        reads=("png", "pdf"),  # its sub-agents ask for its maker's own service
    ),
    Agent(
        "kimi",
        "Kimi Code",
        "@moonshot-ai/kimi-code",
        "kimi",
        ("-p", "<prompt>"),
        env={"HEADGATE_API_KEY": "<key>"},
        resume=("--continue", "-p", "<prompt>"),
        runs=False,
        mcp_file=("../home/.kimi-code/mcp.json", "mcpServers"),
        reads=("png",),
        sub_agent="coder",
    ),
    Agent(
        "copilot",
        "GitHub Copilot CLI",
        "@github/copilot",
        "copilot",
        ("--allow-all-tools", "-s", "-p", "<prompt>"),
        resume=("--allow-all-tools", "-s", "--continue", "-p", "<prompt>"),
        connects=False,
        mcp_add=("mcp", "add", "probe", "--", "<python>", "<server>"),
        reads=("png",),
        sub_agent="general-purpose",
        vendors=("--model", "gpt-5.6-codex"),
    ),
    Agent(
        "continue",
        "Continue",
        "@continuedev/cli",
        "cn",
        ("--auto", "-p", "<prompt>"),
        env={"HEADGATE_API_KEY": "<key>"},
        resume=("--auto", "--resume", "-p", "<prompt>"),
        runs=False,
        mcp_file=("../home/.continue/config.yaml", "mcpServers"),
    ),
    Agent(
        "cline",
        "Cline",
        "cline",
        "cline",
        ("-P", "openai-compatible", "-m", "<model>", "<prompt>"),
        runs=False,
        mcp_add=("mcp", "add", "--yes", "probe", "--", "<python>", "<server>"),
        reads=("png",),
        sub_agent="any",
        vendors=("-m", "claude-sonnet-5"),
    ),
    Agent(
        "kilo",
        "Kilo Code",
        "@kilocode/cli",
        "kilo",
        ("run", "--auto", "<prompt>"),
        wants="7.7.7",  # 7.8.1, the newest, asks for a binary that is not on npm
        env={
            "HEADGATE_API_KEY": "<key>",
            "KILO_DISABLE_AUTOUPDATE": "1",
            "KILO_DISABLE_MODELS_FETCH": "1",
            "KILO_DISABLE_LSP_DOWNLOAD": "1",
            "KILO_DISABLE_DEFAULT_PLUGINS": "1",
        },
        resume=("run", "--auto", "--continue", "<prompt>"),
        mcp_file=("kilo.json", "mcp"),
        reads=("png", "pdf"),
        sub_agent="general",
    ),
    Agent(
        "openhands",
        "OpenHands",
        "openhands",
        "openhands",
        ("--headless", "-t", "<prompt>"),
        resume=("--headless", "--resume", "<session>", "-t", "<prompt>"),
        sessions=".openhands/conversations/*",
        npm=False,
        wants="3.12",
        compacts=False,
        connects=False,
        mcp_add=(*("mcp", "add", "probe", "--transport", "stdio", "<python>", "--", "<server>"),),
        reads=("png",),
        sub_agent="general-purpose",
    ),
    Agent(
        "aider",
        "aider",
        "aider-chat",
        "aider",
        ("--message", "<prompt>", *_AIDER),
        npm=False,
        talk=("--no-fancy-input", *_AIDER),
        compact_line=("--max-chat-history-tokens", "16"),
        compact_rounds=2,
        tools=False,
    ),
    Agent(
        "llm",
        "llm",
        "llm",
        "llm",
        ("-m", "headgate/<model>", "--functions", _WRITE, "<prompt>"),
        npm=False,
        resume=("-c", "-m", "headgate/<model>", "--functions", _WRITE, "<prompt>"),
        compacts=False,
        runs=False,
    ),
)
