"""Connecting tools: what is put into whose files, and that all of it can be undone.

The files before are as people write them: comments, odd indentation, tabs, CRLF, no last newline.
"""

import difflib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from headgate.cli import connect
from headgate.cli.codex_catalog import CODEX_INSTRUCTIONS
from headgate.cli.json_edit import EditError, Item, read_json, set_json
from headgate.cli.run import command as run_command
from headgate.cli.run import warning
from headgate.cli.textedit import BEGIN, Block, set_dotenv, set_toml, set_yaml
from headgate.cli.tool import Tool
from headgate.cli.tools import TOOLS

KEY = "hg_live_k"
URL = "http://gate:8787"
TOOL = {tool.name: tool for tool in TOOLS}
WITH_FILES = [tool.name for tool in TOOLS if tool.files]


# tool: {file: (before, after)}, connected with a key.
GOLDEN: dict[str, dict[str, tuple[str, str]]] = {
    "claude-code": {
        ".claude/settings.json": (
            """\
{
    "model": "opus",
    "permissions": {"allow": ["Bash(ls:*)"]},
    "env": {
        "ANTHROPIC_MODEL": "claude-x" ,
        "FOO": "bar"
    }
}
""",
            """\
{
    "model": "opus",
    "permissions": {"allow": ["Bash(ls:*)"]},
    "env": {
        "ANTHROPIC_MODEL": "MiniMax-M2" ,
        "FOO": "bar",
        "ANTHROPIC_BASE_URL": "http://gate:8787",
        "ANTHROPIC_AUTH_TOKEN": "hg_live_k",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "MiniMax-M2",
        "ANTHROPIC_DEFAULT_SONNET_MODEL": "MiniMax-M2",
        "ANTHROPIC_DEFAULT_OPUS_MODEL": "MiniMax-M2",
        "ANTHROPIC_DEFAULT_FABLE_MODEL": "MiniMax-M2",
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": "204800"
    }
}
""",
        ),
    },
    "codex": {
        ".codex/config.toml": (
            """\
#:schema https://x/config.json
# my codex
model = "gpt-5"   # the best
approval_policy = "never"

[mcp_servers.docs]
command = "docs"
args = [
  "a",
]
[model_providers.other]
name = "Other\"""",
            """\
#:schema https://x/config.json
# >>> headgate: put here by `headgate connect` >>>
model = "MiniMax-M2"
model_provider = "headgate"
model_context_window = 204800
model_catalog_json = "<home>/.codex/headgate-models.json"
# <<< headgate <<<
# my codex
# set aside by headgate: model = "gpt-5"   # the best
approval_policy = "never"

[mcp_servers.docs]
command = "docs"
args = [
  "a",
]
[model_providers.other]
name = "Other"
# >>> headgate: put here by `headgate connect` >>>
[model_providers.headgate]
name = "Headgate"
base_url = "http://gate:8787/v1"
env_key = "HEADGATE_API_KEY"
wire_api = "responses"
# <<< headgate <<<
""",
        ),
        ".codex/headgate-models.json": (
            """\
{"models": [{"slug": "mine"}]}
""",
            """\
{"models": [{"slug": "mine"}, {"slug": "MiniMax-M2", "display_name": "MiniMax M2", "description": "MiniMax M2 through Headgate.", "base_instructions": <instructions>, "context_window": 204800, "input_modalities": ["text"], "supported_reasoning_levels": [], "shell_type": "unified_exec", "apply_patch_tool_type": "freeform", "supports_parallel_tool_calls": true, "support_verbosity": false, "truncation_policy": {"mode": "tokens", "limit": 10000}, "experimental_supported_tools": [], "visibility": "list", "supported_in_api": true, "priority": 1}]}
""",
        ),
    },
    "gemini-cli": {
        ".gemini/settings.json": (
            """\
// mine
{"ui": {"theme": "x"}, "security": {"auth": {"selectedType": "oauth-personal"}}}""",
            """\
// mine
{"ui": {"theme": "x"}, "security": {"auth": {"selectedType": "gemini-api-key"}}, "model": {"name": "MiniMax-M2", "compressionThreshold": 0.15}, "modelConfigs": {"customAliases": {"chat-compression-default": {"modelConfig": {"model": "MiniMax-M2"}}}}}""",
        ),
        ".gemini/.env": (
            """\
# mine
export GEMINI_API_KEY=AIza-old
OTHER=1
""",
            """\
# mine
# set aside by headgate: export GEMINI_API_KEY=AIza-old
OTHER=1
# >>> headgate: put here by `headgate connect` >>>
GOOGLE_GEMINI_BASE_URL=http://gate:8787
GEMINI_API_KEY=hg_live_k
# <<< headgate <<<
""",
        ),
    },
    "opencode": {
        ".config/opencode/opencode.jsonc": (
            """\
{
\t"theme": "dark", /* mine */
\t"provider": {
\t\t"other": {"npm": "x",}, // old
\t},
}
""",
            """\
{
\t"theme": "dark", /* mine */
\t"provider": {
\t\t"other": {"npm": "x",}, // old
\t\t"headgate": {
\t\t\t"npm": "@ai-sdk/openai-compatible",
\t\t\t"name": "Headgate",
\t\t\t"options": {
\t\t\t\t"baseURL": "http://gate:8787/v1",
\t\t\t\t"apiKey": "{env:HEADGATE_API_KEY}"
\t\t\t},
\t\t\t"models": {
\t\t\t\t"MiniMax-M2": {
\t\t\t\t\t"name": "MiniMax M2",
\t\t\t\t\t"reasoning": true,
\t\t\t\t\t"tool_call": true,
\t\t\t\t\t"interleaved": {
\t\t\t\t\t\t"field": "reasoning_content"
\t\t\t\t\t},
\t\t\t\t\t"limit": {
\t\t\t\t\t\t"context": 204800,
\t\t\t\t\t\t"output": 65536
\t\t\t\t\t}
\t\t\t\t}
\t\t\t}
\t\t},
\t},
\t"model": "headgate/MiniMax-M2",
}
""",
        ),
    },
    "kilo": {
        ".config/kilo/kilo.jsonc": (
            """\
{
  "$schema": "https://app.kilo.ai/config.json", // theirs
  "model": "kilo/auto"
}
""",
            """\
{
  "$schema": "https://app.kilo.ai/config.json", // theirs
  "model": "headgate/MiniMax-M2",
  "provider": {
    "headgate": {
      "npm": "@ai-sdk/openai-compatible",
      "name": "Headgate",
      "options": {
        "baseURL": "http://gate:8787/v1",
        "apiKey": "{env:HEADGATE_API_KEY}"
      },
      "models": {
        "MiniMax-M2": {
          "name": "MiniMax M2",
          "reasoning": true,
          "tool_call": true,
          "interleaved": {
            "field": "reasoning_content"
          },
          "limit": {
            "context": 204800,
            "output": 65536
          }
        }
      }
    }
  }
}
""",
        ),
    },
    "cline": {
        ".cline/data/settings/providers.json": (
            """\
{
  "version": 1,
  "lastUsedProvider": "cline",
  "modes": {},
  "providers": {
    "cline": {
      "settings": {"provider": "cline"},
      "updatedAt": "2026-01-01T00:00:00.000Z",
      "tokenSource": "manual"
    }
  }
}""",
            """\
{
  "version": 1,
  "lastUsedProvider": "openai-compatible",
  "modes": {},
  "providers": {
    "cline": {
      "settings": {"provider": "cline"},
      "updatedAt": "2026-01-01T00:00:00.000Z",
      "tokenSource": "manual"
    },
    "openai-compatible": {
      "settings": {
        "provider": "openai-compatible",
        "apiKey": "hg_live_k",
        "model": "MiniMax-M2",
        "baseUrl": "http://gate:8787/v1"
      },
      "updatedAt": "2026-11-01T00:00:00.000Z",
      "tokenSource": "manual"
    }
  }
}""",
        ),
    },
    "continue": {
        ".continue/config.yaml": (
            """\
name: Mine
version: 0.0.1
schema: v1
models:   # all of them
    # the first
    - name: Old
      provider: ollama
      model: x
rules: [be kind]
""",
            """\
name: Mine
version: 0.0.1
schema: v1
models:   # all of them
    # >>> headgate: put here by `headgate connect` >>>
    - name: MiniMax M2 (Headgate)
      provider: openai
      model: MiniMax-M2
      apiBase: http://gate:8787/v1
      apiKey: ${{ secrets.HEADGATE_API_KEY }}
      roles: [chat, edit, apply]
      capabilities: [tool_use]
      defaultCompletionOptions:
        contextLength: 204800
        maxTokens: 32000
    # <<< headgate <<<
    # the first
    - name: Old
      provider: ollama
      model: x
rules: [be kind]
""",
        ),
    },
    "aider": {
        ".aider.conf.yml": (
            """\
# aider
model: gpt-5
dark-mode: true
read:
  - CONVENTIONS.md
""",
            """\
# aider
# set aside by headgate: model: gpt-5
dark-mode: true
read:
  - CONVENTIONS.md
# >>> headgate: put here by `headgate connect` >>>
model: openai/MiniMax-M2
openai-api-base: http://gate:8787/v1
openai-api-key: hg_live_k
# <<< headgate <<<
""",
        ),
        ".aider.model.metadata.json": (
            """\
{
  "a/b": {"max_tokens": 1}
}
""",
            """\
{
  "a/b": {"max_tokens": 1},
  "openai/MiniMax-M2": {
    "max_tokens": 65536,
    "max_input_tokens": 204800,
    "max_output_tokens": 65536,
    "litellm_provider": "openai",
    "mode": "chat"
  }
}
""",
        ),
    },
    "llm": {
        ".config/io.datasette.llm/extra-openai-models.yaml": (
            """\
# own
  - model_id: old
    model_name: old
    api_base: http://x/v1
""",
            """\
# own
  - model_id: old
    model_name: old
    api_base: http://x/v1
  # >>> headgate: put here by `headgate connect` >>>
  - model_id: headgate/MiniMax-M2
    model_name: MiniMax-M2
    api_base: http://gate:8787/v1
    api_key_name: headgate
    supports_tools: true
    supports_schema: true
  # <<< headgate <<<
""",
        ),
        ".config/io.datasette.llm/keys.json": (
            """\
{
  "// Note": "This file stores secret API credentials. Do not share!",
  "openai": "sk-x"
}
""",
            """\
{
  "// Note": "This file stores secret API credentials. Do not share!",
  "openai": "sk-x",
  "headgate": "hg_live_k"
}
""",
        ),
    },
    "qwen-code": {
        ".qwen/settings.json": (
            """\
{\r
  "modelProviders": {\r
    "openai": [\r
      {"id": "q", "name": "Q"}\r
    ]\r
  },\r
  "$version": 3\r
}\r
""",
            """\
{\r
  "modelProviders": {\r
    "openai": [\r
      {"id": "q", "name": "Q"},\r
      {\r
        "id": "MiniMax-M2",\r
        "name": "Headgate",\r
        "baseUrl": "http://gate:8787/v1",\r
        "envKey": "HEADGATE_API_KEY",\r
        "generationConfig": {\r
          "contextWindowSize": 204800\r
        }\r
      }\r
    ]\r
  },\r
  "$version": 3,\r
  "security": {\r
    "auth": {\r
      "selectedType": "openai"\r
    }\r
  },\r
  "model": {\r
    "name": "MiniMax-M2"\r
  }\r
}\r
""",
        ),
    },
    "kimi": {
        ".kimi-code/config.toml": (
            """\
default_model = "kimi-code/k3"
telemetry = false

[providers."managed:kimi-code"]
type = "kimi"

[providers.headgate]
type = "openai"
base_url = "http://old/v1"

[thinking]
mode = "on"
""",
            """\
# >>> headgate: put here by `headgate connect` >>>
default_model = "headgate/MiniMax-M2"
# <<< headgate <<<
# set aside by headgate: default_model = "kimi-code/k3"
telemetry = false

[providers."managed:kimi-code"]
type = "kimi"

[thinking]
mode = "on"
# >>> headgate: put here by `headgate connect` >>>
[providers.headgate]
type = "openai"
base_url = "http://gate:8787/v1"
api_key_env = "HEADGATE_API_KEY"

[models."headgate/MiniMax-M2"]
provider = "headgate"
model = "MiniMax-M2"
max_context_size = 204800
capabilities = ["thinking", "tool_use"]
display_name = "MiniMax M2"
# <<< headgate <<<
""",
        ),
    },
    "pi": {
        ".pi/agent/models.json": (
            """\
{
  "providers": {}
}
""",
            """\
{
  "providers": {
    "headgate": {
      "baseUrl": "http://gate:8787/v1",
      "api": "openai-completions",
      "apiKey": "$HEADGATE_API_KEY",
      "models": [
        {
          "id": "MiniMax-M2",
          "name": "MiniMax M2",
          "reasoning": true,
          "contextWindow": 204800,
          "maxTokens": 65536
        }
      ]
    }
  }
}
""",
        ),
    },
    "droid": {
        ".factory/settings.json": (
            """\
{
  // mine
  "autonomyLevel": "low"
}
""",
            """\
{
  // mine
  "autonomyLevel": "low",
  "customModels": [
    {
      "model": "MiniMax-M2",
      "displayName": "Headgate",
      "baseUrl": "http://gate:8787/v1",
      "apiKey": "${HEADGATE_API_KEY}",
      "provider": "generic-chat-completion-api",
      "maxOutputTokens": 65536
    }
  ],
  "model": "custom:MiniMax-M2"
}
""",
        ),
    },
    "goose": {
        ".config/goose/config.yaml": (
            """\
GOOSE_MODEL: gpt-4o
extensions:
  developer:
    enabled: true
""",
            """\
# set aside by headgate: GOOSE_MODEL: gpt-4o
extensions:
  developer:
    enabled: true
# >>> headgate: put here by `headgate connect` >>>
GOOSE_PROVIDER: openai
GOOSE_MODEL: MiniMax-M2
GOOSE_CONTEXT_LIMIT: 204800
OPENAI_HOST: http://gate:8787
OPENAI_BASE_PATH: v1/chat/completions
# <<< headgate <<<
""",
        ),
    },
    "zed": {
        ".config/zed/settings.json": (
            """\
// Zed settings
{
  "theme": "One Dark", // mine
  "agent": {
    "default_model": {
      "provider": "zed.dev",
      "model": "claude-sonnet-4"
    },
    "version": "2",
  },
  "language_models": {
    "openai_compatible": {
      "Other": { "api_url": "https://other.example/v1", "available_models": [] },
    },
  },
}
""",
            """\
// Zed settings
{
  "theme": "One Dark", // mine
  "agent": {
    "default_model": {
      "provider": "headgate",
      "model": "MiniMax-M2"
    },
    "version": "2",
  },
  "language_models": {
    "openai_compatible": {
      "Other": { "api_url": "https://other.example/v1", "available_models": [] },
      "headgate": {
        "api_url": "http://gate:8787/v1",
        "available_models": [
          {
            "name": "MiniMax-M2",
            "display_name": "MiniMax M2",
            "max_tokens": 204800,
            "capabilities": {
              "tools": true,
              "images": false,
              "parallel_tool_calls": true,
              "prompt_cache_key": false,
              "interleaved_reasoning": true
            }
          }
        ]
      },
    },
  },
}
""",
        ),
    },
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with nothing in it; `run` and `connect` keep their data outside of it."""
    for name in os.environ:
        if re.match(
            r"HEADGATE|MINIMAX|RUNAPI|OPENROUTER|XDG|.*_(HOME|DIR|USER_PATH)$|ANTHROPIC|OPENAI|GEMINI",
            name,
        ):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HEADGATE_DATA", str(tmp_path / "data"))
    return home


def call(*arguments: str) -> Result:
    return CliRunner().invoke(connect.command, arguments, prog_name="headgate connect")


def done(*arguments: str) -> Result:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result


def joined(tool: str, *more: str) -> Result:
    return done(tool, "--url", URL, "--key", KEY, "--model", "MiniMax-M2", *more)


def put(home: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(text.encode())
        (home / name).chmod(0o644)


def tree(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(p.relative_to(directory)): (p.read_bytes(), p.stat().st_mode & 0o777)
        for p in sorted(directory.rglob("*"))
        if p.is_file()
    }


def before(tool: str) -> dict[str, str]:
    return {name: pair[0] for name, pair in GOLDEN[tool].items()}


def test_every_tool_with_files_has_its_golden_pair() -> None:
    assert list(GOLDEN) == WITH_FILES
    for tool in WITH_FILES:
        assert len(GOLDEN[tool]) == len(TOOL[tool].files)


@pytest.mark.parametrize("tool", GOLDEN)
def test_a_hand_written_file_keeps_all_that_is_not_ours(home: Path, tool: str) -> None:
    put(home, before(tool))
    joined(tool)
    for name, (_, after) in GOLDEN[tool].items():
        after = after.replace("<home>", str(home))
        after = after.replace("<instructions>", json.dumps(CODEX_INSTRUCTIONS))
        assert (home / name).read_bytes().decode() == after


@pytest.mark.parametrize("state", ["missing", "empty", "written"])
@pytest.mark.parametrize("tool", WITH_FILES)
def test_restoring_gives_back_the_very_bytes_and_modes(home: Path, tool: str, state: str) -> None:
    if state == "written":
        put(home, before(tool))
    if state == "empty":
        put(home, dict.fromkeys(GOLDEN[tool], ""))
    was = tree(home)
    joined(tool)
    now = tree(home)
    assert URL in "".join(content.decode() for content, _ in now.values())
    for content, mode in now.values():
        if KEY.encode() in content:
            assert mode == 0o600
    done(tool, "--restore")
    assert tree(home) == was
    if state == "missing":
        assert list(home.iterdir()) == []
    assert call(tool, "--restore").exit_code == 1


@pytest.mark.parametrize("state", ["missing", "empty", "written"])
@pytest.mark.parametrize("tool", WITH_FILES)
def test_connecting_twice_is_connecting_once(home: Path, tool: str, state: str) -> None:
    if state != "missing":
        put(home, before(tool) if state == "written" else dict.fromkeys(GOLDEN[tool], ""))
    joined(tool)
    once = tree(home.parent)
    result = joined(tool)
    assert "nothing to change" in result.stdout
    assert tree(home.parent) == once


@pytest.mark.parametrize("tool", WITH_FILES)
def test_another_address_replaces_ours_and_the_first_file_comes_back(home: Path, tool: str) -> None:
    put(home, before(tool))
    was = tree(home)
    done(tool, "--url", "http://other:1", "--key", "hg_live_other", "--model", "MiniMax-M2.5")
    joined(tool)
    texts = "".join(content.decode() for content, _ in tree(home).values())
    assert URL in texts and "http://other:1" not in texts and "hg_live_other" not in texts
    done(tool, "--restore")
    assert tree(home) == was


@pytest.mark.parametrize("tool", WITH_FILES)
def test_print_changes_nothing_and_hides_the_key(home: Path, tool: str) -> None:
    put(home, before(tool))
    was = tree(home.parent)
    shown = joined(tool, "--print").stdout
    assert tree(home.parent) == was
    assert f"+++ {home}" in shown and URL in shown and KEY not in shown
    report = json.loads(joined(tool, "--print", "--json").stdout)
    assert report["diff"].replace("\r\n", "\n") == shown and report["written"] is False
    assert tree(home.parent) == was


def test_print_is_the_change_that_is_then_made(home: Path) -> None:
    put(home, before("opencode"))
    shown = joined("opencode", "--print").stdout.replace("\\ No newline at end of file\n", "")
    old = before("opencode")[".config/opencode/opencode.jsonc"].splitlines(keepends=True)
    joined("opencode")
    path = home / ".config/opencode/opencode.jsonc"
    new = path.read_text().splitlines(keepends=True)
    want = difflib.unified_diff(old, new, str(path), str(path))
    assert shown == "".join(x if x.endswith("\n") else x + "\n" for x in want)


BROKEN = {
    "json": [
        '{"a": 1',
        "[]",
        '{"a" 1}',
        '{"env": 1, "providers": 1, "security": 1, "provider": 1',
        "\x00",
        "{} // mine",
        '{"a": 1,}',
    ],
    "jsonc": [
        '{"a": 1',
        "[]",
        '{"a" 1}',
        "{/* }",
        '{"openai/MiniMax-M3": 1, "provider": 1',
        "\x00",
    ],
    "toml": ["a = ", "[a\n", "a = 1\na = 2\n", f"{BEGIN}\nx = 1\n"],
    "yaml": ["{a: 1}\n", "[1, 2]\n", "a:\n\tb: 1\n", "a: 1\n---\nb: 2\n", "words and words\n"],
    "dotenv": [f"{BEGIN}\nA=1\n"],
}


@pytest.mark.parametrize("tool", WITH_FILES)
def test_a_broken_file_is_named_and_nothing_is_touched(home: Path, tool: str) -> None:
    for file, name in zip(TOOL[tool].files, GOLDEN[tool], strict=True):
        for content in [*(text.encode() for text in BROKEN[file.kind]), b"\xff\xfe"]:
            put(home, before(tool))
            (home / name).write_bytes(content)
            was = tree(home.parent)
            result = call(tool, "--url", URL, "--key", KEY)
            assert result.exit_code == 1, (content, result.output)
            assert str(home / name) in result.stderr and "Nothing was changed" in result.stderr
            assert tree(home.parent) == was


KEYED = [t.name for t in TOOLS if any(connect.needs_key(f) for f in t.files)]


@pytest.mark.parametrize("tool", KEYED)
def test_no_key_goes_into_a_git_work_tree(home: Path, tool: str) -> None:
    put(home, before(tool))
    (home / ".git").mkdir()
    was = tree(home.parent)
    result = call(tool, "--url", URL, "--key", KEY)
    assert result.exit_code == 1 and "git work tree" in result.stderr
    assert KEY not in result.output
    assert tree(home.parent) == was
    if TOOL[tool].key_in:
        assert TOOL[tool].key_in in result.stderr
        done(tool, "--url", URL)
        assert KEY.encode() not in b"".join(content for content, _ in tree(home).values())


def test_a_link_into_a_git_work_tree_is_followed_and_refused(home: Path) -> None:
    dotfiles = home.parent / "dotfiles"
    put(dotfiles, {"settings.json": "{}\n"})
    (dotfiles / ".git").write_text("gitdir: elsewhere\n")
    (home / ".claude").mkdir()
    (home / ".claude" / "settings.json").symlink_to(dotfiles / "settings.json")
    assert "git work tree" in call("claude-code", "--key", KEY).stderr
    done("claude-code", "--url", URL)
    assert (home / ".claude" / "settings.json").is_symlink()
    assert URL in (dotfiles / "settings.json").read_text()
    done("claude-code", "--restore")
    assert (dotfiles / "settings.json").read_text() == "{}\n"


@pytest.mark.parametrize("tool", [name for name in WITH_FILES if name not in KEYED])
def test_a_tool_that_reads_a_variable_never_gets_the_key_written(home: Path, tool: str) -> None:
    result = joined(tool)
    assert KEY.encode() not in b"".join(c for c, _ in tree(home.parent).values())
    assert f"Set {TOOL[tool].key_in}" in result.stderr and KEY not in result.output


def test_the_mode_of_a_file_without_a_key_stays(home: Path) -> None:
    put(home, before("codex"))
    (home / ".codex/config.toml").chmod(0o640)
    joined("codex")
    assert (home / ".codex/config.toml").stat().st_mode & 0o777 == 0o640


def test_the_backup_is_the_file_of_before_and_for_its_owner_only(home: Path) -> None:
    put(home, before("claude-code"))
    report = json.loads(joined("claude-code", "--json").stdout)
    (backup,) = map(Path, report["backups"])
    assert re.fullmatch(r"settings\.json\.headgate-\d{8}-\d{6}\.bak", backup.name)
    assert backup.parent == home / ".claude" and backup.stat().st_mode & 0o777 == 0o600
    assert backup.read_text() == before("claude-code")[".claude/settings.json"]
    assert KEY not in (home.parent / "data/connect/claude-code.json").read_text()


def test_what_the_tool_wrote_since_is_kept_when_restoring(home: Path) -> None:
    put(home, before("claude-code"))
    was = tree(home)
    joined("claude-code")
    path = home / ".claude/settings.json"
    later = path.read_text().replace("bar", "later")
    path.write_text(later)
    (back,) = json.loads(done("claude-code", "--restore", "--json").stdout)["files"]
    assert back["done"] == "restored"
    assert Path(back["kept"]).read_text() == later
    Path(back["kept"]).unlink()
    assert tree(home) == was


def test_a_missing_or_changed_backup_stops_the_restoration(home: Path) -> None:
    put(home, before("gemini-cli"))
    backups = json.loads(joined("gemini-cli", "--json").stdout)["backups"]
    Path(backups[1]).write_text("x")
    was = tree(home.parent)
    result = call("gemini-cli", "--restore")
    assert result.exit_code == 1 and "Nothing was changed" in result.stderr
    assert tree(home.parent) == was


def test_the_tools_own_variable_says_where_its_files_are(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEX_HOME", str(home.parent / "elsewhere"))
    joined("codex")
    assert URL in (home.parent / "elsewhere/config.toml").read_text()
    assert list(home.iterdir()) == []


def test_the_context_window_is_the_catalogs(home: Path) -> None:
    done("codex", "--url", URL, "--model", "minimax/MiniMax-M3")
    done("claude-code", "--url", URL, "--model", "MiniMax-M2.7")
    codex = tomllib.loads((home / ".codex/config.toml").read_text())
    assert (codex["model"], codex["model_context_window"]) == ("MiniMax-M3", 1_000_000)
    claude = json.loads((home / ".claude/settings.json").read_text())["env"]
    assert claude["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "204800"
    assert "ANTHROPIC_AUTH_TOKEN" not in claude


def test_gemini_cli_sums_up_with_the_model_before_its_window_is_full(home: Path) -> None:
    """It takes every window for 1 048 576 tokens, and would ask a model of Google's for a summary."""
    for model, window in (("MiniMax-M2", 204_800), ("MiniMax-M3", 1_000_000)):
        done("gemini-cli", "--url", URL, "--model", model)
        read = json.loads((home / ".gemini/settings.json").read_text())
        assert 0.7 * window < read["model"]["compressionThreshold"] * 1_048_576 < 0.8 * window
        aliases = read["modelConfigs"]["customAliases"]
        assert aliases["chat-compression-default"] == {"modelConfig": {"model": model}}


def test_only_a_model_that_sees_is_offered_images(home: Path) -> None:
    for model, sees in (("MiniMax-M2", False), ("MiniMax-M3", True)):
        done("zed", "--url", URL, "--model", model)
        read = json.loads((home / ".config/zed/settings.json").read_text())
        offered = read["language_models"]["openai_compatible"]["headgate"]["available_models"]
        assert [m["capabilities"]["images"] for m in offered if m["name"] == model] == [sees]


def test_open_webui_is_told_by_variables(home: Path) -> None:
    lines = done("open-webui", "--url", URL, "--model", "MiniMax-M2").stdout.splitlines()
    assert f'export OPENAI_API_BASE_URL="{URL}/v1"' in lines
    assert list(home.iterdir()) == []


def test_without_a_tool_they_are_listed_with_what_is_connected(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(home))
    (home / "codex").write_text("#!/bin/sh\n")
    (home / "codex").chmod(0o755)
    joined("codex")
    rows = {row["name"]: row for row in json.loads(done("--json").stdout)}
    assert list(rows) == [tool.name for tool in TOOLS]
    assert rows["codex"]["installed"] and rows["codex"]["connected"] == URL
    assert not rows["claude-code"]["installed"] and rows["claude-code"]["connected"] is None
    assert f"codex\tCodex\tResponses\tyes\t{URL}\n" in done().stdout
    (home / ".codex/config.toml").write_text("")  # somebody undid it by hand
    assert json.loads(done("--json").stdout)[1]["connected"] is None


def test_a_tool_of_variables_only_gets_lines_for_the_shell(home: Path) -> None:
    lines = done("copilot", "--url", URL, "--model", "MiniMax-M2").stdout.splitlines()
    assert f'export COPILOT_PROVIDER_BASE_URL="{URL}/v1"' in lines
    assert 'export COPILOT_PROVIDER_API_KEY="$HEADGATE_API_KEY"' in lines
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("nope",),
        ("--restore",),
        ("--url", URL),
        ("codex", "--restore", "--key", KEY),
        ("codex", "--model", "llama-4"),
        ("codex", "--url", "gate:8787"),
        ("codex", "--url", 'http://x/"\n'),
        ("codex", "--url", "http://user:password@x"),
        ("codex", "--url", "http://[x"),
        ("codex", "--key", 'a"b'),
        ("claude-code", "--key", "a\nEVIL=1"),
        ("cline", "--url", URL),
    ],
)
def test_what_makes_no_sense_is_refused_with_exit_code_2(
    home: Path, arguments: tuple[str, ...]
) -> None:
    assert call(*arguments).exit_code == 2
    assert list(home.iterdir()) == []


# -- run -------------------------------------------------------------------------------------------

FAKE = """#!/bin/sh
case "$1" in
exit) exit 7;;
wait) trap 'echo stopped; exit 9' TERM; echo ready; while :; do sleep 0.05; done;;
esac
env
for a in "$@"; do echo "ARG $a"; done
"""
MAIN = "from headgate.cli.run import command; command(prog_name='headgate run')"


def runner(home: Path, program: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    (home / "bin").mkdir(exist_ok=True)
    (home / "bin" / program).write_text(FAKE)
    (home / "bin" / program).chmod(0o755)
    env = {**os.environ, "PATH": f"{home}/bin:/usr/bin:/bin", **variables}
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


RUNS = [tool for tool in TOOLS if tool.runs]


@pytest.mark.parametrize("tool", RUNS, ids=lambda tool: tool.name)
def test_run_sets_the_environment_and_edits_nothing(home: Path, tool: Tool) -> None:
    put(home, before(tool.name) if tool.files else {})
    with runner(
        home,
        tool.program,
        *(tool.program, "--url", URL, "--key", KEY, "--model", "MiniMax-M2", "--", "-p", "a b"),
        **dict.fromkeys(tool.unset, "theirs"),
    ) as process:
        out = process.communicate()[0]
    assert process.returncode == 0
    assert out.endswith("ARG -p\nARG a b\n")
    for name in tool.unset:
        assert f"{name}=" not in out
    assert KEY in out
    made = tree(home.parent / "data")
    assert URL in out or any(URL.encode() in content for content, _ in made.values())
    assert all(mode == 0o600 for _, mode in made.values())
    after = {name: content for name, (content, _) in tree(home).items()}
    after.pop(f"bin/{tool.program}")
    wanted = before(tool.name) if tool.files else {}
    assert after == {name: text.encode() for name, text in wanted.items()}


def test_runs_exit_code_is_the_tools(home: Path) -> None:
    with runner(home, "claude", "claude", "--key", KEY, "--", "exit") as process:
        assert process.wait() == 7


def test_a_signal_reaches_the_tool(home: Path) -> None:
    with runner(home, "claude", "claude", "--", "wait", HEADGATE_API_KEY=KEY) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopped\n"
        assert process.wait() == 9


@pytest.mark.parametrize("tool", RUNS, ids=lambda tool: tool.name)
def test_run_says_what_to_install(home: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    result = CliRunner().invoke(run_command, [tool.name, "--key", KEY])
    assert result.exit_code == 1 and tool.install in result.stderr


def test_run_names_the_other_command_for_tools_that_read_files_only(home: Path) -> None:
    for tool in TOOLS:
        if not tool.runs:
            result = CliRunner().invoke(run_command, [tool.name, "--key", KEY])
            assert result.exit_code == 1 and f"headgate connect {tool.name}" in result.stderr


def test_run_warns_when_no_gateway_answers_or_the_key_is_unknown(home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert "No gateway answers at" in warning(nowhere, KEY)
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            right = self.headers["authorization"] == f"Bearer {KEY}"
            self.send_response(200 if right else 401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert warning(url, KEY) == ""
        assert "does not accept this key" in warning(url, "hg_live_other")
        server.shutdown()
    assert asked == ["/v1/key", "/v1/key"]


def test_run_starts_the_tool_though_no_gateway_answers(home: Path) -> None:
    with runner(
        home, "claude", "claude", "--url", "http://127.0.0.1:9", "--key", KEY, "--", "exit"
    ) as process:
        assert "Warning: No gateway answers" in process.communicate()[1]
        assert process.returncode == 7


def test_run_without_a_key_is_refused(home: Path) -> None:
    result = CliRunner().invoke(run_command, ["claude"])
    assert result.exit_code == 2 and "HEADGATE_API_KEY" in result.stderr


# -- The edits by themselves -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("", '{\n  "a": {\n    "b": 1\n  }\n}\n'),
        ("{}", '{\n  "a": {\n    "b": 1\n  }\n}'),
        ("{ }", '{\n  "a": {\n    "b": 1\n  }\n}'),
        ('{"a": {"c": 2}}', '{"a": {"c": 2, "b": 1}}'),
        ('{"a": {"c": 2,}}', '{"a": {"c": 2, "b": 1}}'),
        ('{"a": {"b": 1}}', '{"a": {"b": 1}}'),
        ('{"a": {"b": "x"}, "a": {"b": 7}}', '{"a": {"b": "x"}, "a": {"b": 1}}'),
        ("{\n  // none yet\n}", '{\n  // none yet\n  "a": {\n    "b": 1\n  }\n}'),
        (
            '{\n  "x": 1 /* long\n comment */\n}',
            '{\n  "x": 1,\n  "a": {\n    "b": 1\n  } /* long\n comment */\n}',
        ),
        ('\ufeff{"a": {"b": true}}', '\ufeff{"a": {"b": 1}}'),
        ('{"a//": "}", "a": {}}', '{"a//": "}", "a": {\n  "b": 1\n}}'),
    ],
)
def test_a_value_is_set_where_it_belongs(text: str, after: str) -> None:
    assert set_json(text, [(("a", "b"), 1)]) == after


def test_an_item_of_a_list_is_found_by_its_name() -> None:
    change = (("m", Item("id", "b")), {"id": "b", "n": 2})
    assert set_json('{"m": [{"id": "a"}, {"id": "b", "n": 1}]}', [change]) == (
        '{"m": [{"id": "a"}, {\n  "id": "b",\n  "n": 2\n}]}'
    )
    assert read_json(set_json("", [change])) == {"m": [{"id": "b", "n": 2}]}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", 'q"', "//", "ü"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(
    _JSON.filter(lambda v: isinstance(v, dict)),
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3),
    _JSON,
    st.sampled_from([None, 1, 4, "\t"]),
)
def test_setting_changes_that_value_and_no_other(
    tree: dict[str, object], path: list[str], value: object, indent: int | str | None
) -> None:
    text = json.dumps(tree, indent=indent, ensure_ascii=False)
    want: object = tree
    for step in path[:-1]:
        if not isinstance(want, dict):
            break
        want = want.setdefault(step, {})
    try:
        after = set_json(text, [(tuple(path), value)])
    except EditError:
        assert not isinstance(want, dict)
        return
    assert isinstance(want, dict)
    want[path[-1]] = value
    assert json.loads(after) == tree
    assert set_json(after, [(tuple(path), value)]) == after


@pytest.mark.parametrize(
    "text",
    ['key = """\nmodel = "x"\n"""\n', 'a = [\n[1],\n]\nmodel = "x"\n'],
)
def test_toml_that_lines_cannot_show_is_refused_not_spoilt(text: str) -> None:
    with pytest.raises(EditError, match="safely"):
        set_toml(text, [Block("top", 'model = "y"\n')])


def test_a_yaml_list_in_flow_style_is_refused() -> None:
    block = Block("bottom", "name: N\nmodels:\n  - name: x\n", "models")
    with pytest.raises(EditError, match="flow style"):
        set_yaml("name: a\nmodels: []\n", [block])
    assert set_yaml("name: a\n", [block]) == (
        f"name: a\n{BEGIN}\nmodels:\n  - name: x\n# <<< headgate <<<\n"
    )
    assert set_yaml("models:", [block]) == (
        f"models:\n  {BEGIN}\n  - name: x\n  # <<< headgate <<<\n"
    )


def test_a_variable_is_set_aside_and_comes_back() -> None:
    once = set_dotenv("A=1\nB=2\n", [Block("bottom", "A=9\n")])
    assert once.startswith("# set aside by headgate: A=1\nB=2\n")
    assert set_dotenv(once, [Block("bottom", "C=3\n")]).startswith("A=1\nB=2\n" + BEGIN)


def test_a_value_of_several_lines_is_not_cut_in_two() -> None:
    for text in ("model: >\n  gpt\nx: 1\n", "model:\n- a\n"):
        with pytest.raises(EditError, match="`model` has a value of several lines"):
            set_yaml(text, [Block("bottom", "model: y\n")])
    with pytest.raises(EditError, match="`A` has a value of several lines"):
        set_dotenv('export A="1\n2"\n', [Block("bottom", "A=9\n")])
    assert "A=9" in set_dotenv('A="1"\n', [Block("bottom", "A=9\n")])
    assert "model: y" in set_yaml("model: x\n# c\nread:\n  - a\n", [Block("bottom", "model: y\n")])
