"""The catalog of models that Codex reads, with our models in it.

Codex takes a name that is not in its catalog for an unknown model: it warns, and guesses what the
model can do.
"""

from typing import Any

from headgate.cli.json_edit import Item

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
CODEX_CATALOG = "headgate-models.json"
# The fields are those that 0.171 insists on, and what our models differ in.
CODEX_MODELS: tuple[tuple[tuple[Any, ...], Any], ...] = (
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
