"""The coding agents and command-line clients that can be pointed here, as one table in the order in which they are listed.

vendor_tools.py, open_tools.py and app_tools.py say what each of them reads, tool.py how one is described, and
tool_files.py fills in what a gateway has.
"""

from typing import Any

import click

from headgate.cli.app_tools import LLM, OPEN_WEBUI, ZED
from headgate.cli.open_tools import AIDER, CLINE, CONTINUE, GOOSE, KILO, OPENCODE, OPENHANDS, PI
from headgate.cli.tool import Tool
from headgate.cli.vendor_tools import (
    CLAUDE_CODE,
    CODEX,
    COPILOT,
    DROID,
    GEMINI_CLI,
    KIMI,
    QWEN_CODE,
)

TOOLS: tuple[Tool, ...] = (
    CLAUDE_CODE,
    CODEX,
    GEMINI_CLI,
    OPENCODE,
    KILO,
    CLINE,
    CONTINUE,
    AIDER,
    LLM,
    QWEN_CODE,
    KIMI,
    PI,
    DROID,
    GOOSE,
    OPENHANDS,
    ZED,
    COPILOT,
    OPEN_WEBUI,
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
