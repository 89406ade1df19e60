"""The skill as a plugin: the files by which Claude Code, Codex and Gemini CLI install it.

The only place that knows their manifests.  A directory of these files is a marketplace for Claude
Code and Codex with one plugin, `plugins/minimax`, which is an extension of Gemini CLI as well; the
skill in it is the one that is served (pages.py), rendered for one address.  Sources, read
2026-11-25: code.claude.com/docs/en/plugins/manifest-reference and plugin-marketplaces,
developers.openai.com/codex/plugins/build, Gemini CLI 0.61's docs/extensions/reference.md.

Note: it is the shipped catalog that is rendered, not an operator's, because plugins
are copied to other machines; so the repository's own copy is a function of the repository alone.
"""

import json
from datetime import date

from headgate.catalog.catalog import Catalog
from headgate.catalog.models import models
from headgate.web.site import pages, skill
from headgate.web.site.deployment import Site

NAME = "minimax"
MARKETPLACE = "headgate"
DEFAULT_URL = "http://127.0.0.1:8787"  # where `headgate serve` listens
_ROOT = f"plugins/{NAME}"
_KEYWORDS = ["minimax", "llm", "gateway", "openai", "anthropic", "gemini"]


def files(base_url: str = DEFAULT_URL) -> dict[str, str]:
    """Return the path below the marketplace's directory, and content; ValueError for an address like no other."""
    site = Site(base_url=base_url, on=date.min)  # the skill names no price
    page = pages.page(skill.SKILL, site, Catalog(tuple(models().values()), {}, {}))
    assert page is not None
    owner = {"name": "Headgate"}
    named = {"name": NAME, "version": site.version, "description": page.description}
    # Claude Code's plugin directory takes no other homepage.
    home = {"homepage": f"{base_url}/models/minimax"} if base_url.startswith("https:") else {}
    manifest = {
        **named,
        "author": owner,
        **home,
        "license": "Apache-2.0",
        "keywords": _KEYWORDS,
    }
    interface = {
        "displayName": "MiniMax",
        "shortDescription": "MiniMax's text models through Headgate",
        "developerName": owner["name"],
        "category": "Developer Tools",
    }
    trees: dict[str, object] = {
        f"{_ROOT}/.claude-plugin/plugin.json": manifest,
        f"{_ROOT}/.codex-plugin/plugin.json": {
            **manifest,
            "skills": "./skills/",
            "interface": interface,
        },
        f"{_ROOT}/gemini-extension.json": named,
        ".claude-plugin/marketplace.json": {
            "name": MARKETPLACE,
            "owner": owner,
            "description": "Skills for MiniMax's models behind Headgate.",
            "plugins": [{**named, "source": f"./{_ROOT}"}],
        },
        ".agents/plugins/marketplace.json": {
            "name": MARKETPLACE,
            "interface": {"displayName": "Headgate"},
            "plugins": [
                {
                    "name": NAME,
                    "source": {"source": "local", "path": f"./{_ROOT}"},
                    "policy": {"installation": "AVAILABLE", "authentication": "ON_INSTALL"},
                    "category": interface["category"],
                }
            ],
        },
    }
    written = {path: json.dumps(tree, indent=2) + "\n" for path, tree in trees.items()}
    return {f"{_ROOT}/skills/{NAME}/SKILL.md": page.markdown, **written}
