"""How a key is used, to be copied: requests in each language and protocol, and agents' lines.

The only place that puts a key into an example.  The requests are the docs' own (web/site/prose.py),
which take the key from the environment; here it stands where the variable was.  Note:
AGENTS repeats what cli/tools.py knows, as the console must not import commands; a test compares them.
"""

import re

import msgspec

from headgate.web.site import prose
from headgate.web.site.prose import Language, Protocol

VARIABLE = "HEADGATE_API_KEY"


class Snippet(msgspec.Struct, frozen=True):
    title: str
    text: str
    id: str  # of its element


class Tab(msgspec.Struct, frozen=True):
    protocol: Protocol
    title: str
    snippets: tuple[Snippet, ...]


class Agent(msgspec.Struct, frozen=True):
    name: str
    title: str
    program: str
    connects: bool = True  # it has files that can be pointed here
    runs: bool = True  # it can be started with nothing edited
    exports: bool = False  # it still needs VARIABLE once it is connected


AGENTS: tuple[Agent, ...] = (
    Agent("claude-code", "Claude Code", "claude"),
    Agent("codex", "Codex", "codex", exports=True),
    Agent("gemini-cli", "Gemini CLI", "gemini"),
    Agent("opencode", "opencode", "opencode", exports=True),
    Agent("kilo", "Kilo Code", "kilo", exports=True),
    Agent("cline", "Cline", "cline", runs=False),
    Agent("continue", "Continue", "cn", exports=True),
    Agent("aider", "aider", "aider"),
    Agent("llm", "llm", "llm", runs=False),
    Agent("qwen-code", "Qwen Code", "qwen", exports=True),
    Agent("kimi", "Kimi Code", "kimi", exports=True),
    Agent("pi", "pi", "pi", runs=False, exports=True),
    Agent("droid", "Factory Droid", "droid", runs=False, exports=True),
    Agent("goose", "goose", "goose"),
    Agent("openhands", "OpenHands", "openhands", connects=False),
    Agent("zed", "Zed", "zed", runs=False, exports=True),
    Agent("copilot", "GitHub Copilot CLI", "copilot", connects=False),
    Agent("open-webui", "Open WebUI", "open-webui", connects=False),
)

# Where the docs' examples have their key: pattern, and what stands there instead.
_KEY_AT: dict[Language, tuple[tuple[str, str], ...]] = {
    "bash": ((r"\$(?:OPENAI|ANTHROPIC|GEMINI)_API_KEY", "{key}"),),
    "python": ((r"\)  # key: \w+", ', api_key="{key}")'),),
    "typescript": (
        (r" \}\); // key: \w+", ', apiKey: "{key}" }});'),
        (r"process\.env\.\w+_API_KEY", '"{key}"'),
    ),
}


def tabs(base_url: str, model: str, key: str = "") -> tuple[Tab, ...]:
    """A request in each language over each protocol; without a key they read it from variables."""
    found = prose.examples(base_url, model)
    return tuple(
        Tab(
            protocol,
            title,
            tuple(
                Snippet(
                    prose.LANGUAGES[e.language],
                    keyed(e.language, e.text, key) if key else e.text,
                    f"{protocol}-{e.language}",
                )
                for e in found
                if e.protocol == protocol
            ),
        )
        for protocol, title in prose.PROTOCOLS.items()
    )


def keyed(language: Language, text: str, key: str) -> str:
    """The example with a key in the place of its variable."""
    for pattern, instead in _KEY_AT[language]:
        text = re.sub(pattern, lambda _, i=instead: i.format(key=key), text)  # type: ignore[misc]
    return text


def agents(base_url: str, model: str, key: str = "") -> tuple[Snippet, ...]:
    """For each agent the lines that point it here, for good or for once."""
    given = key or f'"${VARIABLE}"'
    reported = f"--url {base_url} --model {model} --key {given}"
    found = []
    for agent in AGENTS:
        lines = []
        if agent.connects:
            lines.append(f"headgate connect {agent.name} {reported}")
            if agent.exports and key:
                lines.append(f"export {VARIABLE}={key}")
        if agent.runs:
            lines.append(f"headgate run {agent.program} {reported}")
        found.append(Snippet(agent.title, "\n".join(lines), f"agent-{agent.name}"))
    return tuple(found)
