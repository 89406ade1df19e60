"""The skill for agents, and the index in which installers find it."""

import hashlib
import json

from headgate.catalog.catalog import Catalog
from headgate.web.site import prose
from headgate.web.site.deployment import JSON, Page, Site, note

SKILL = "/skills/minimax/SKILL.md"
# The second is where installers looked before version 0.2.0 of the discovery, and still do.
SKILL_INDEXES = ("/.well-known/agent-skills/index.json", "/.well-known/skills/index.json")
_SKILL_SCHEMA = "https://schemas.agentskills.io/discovery/0.2.0/schema.json"
_SKILL_ABOUT = (
    "Calls MiniMax text models (MiniMax-M3, M3.1-Flash, M2.7, M2.5, M2.1, M2) through a Headgate gateway. Use when"
    " code or an agent should talk to MiniMax by the OpenAI, Anthropic or Gemini SDK, when someone sets"
    " OPENAI_BASE_URL, ANTHROPIC_BASE_URL or GOOGLE_GEMINI_BASE_URL to such a gateway, or runs Claude"
    " Code, Codex or Gemini CLI on MiniMax. Not for video (Hailuo), speech, music or images."
)


def skill_page(path: str, site: Site, catalog: Catalog) -> Page:
    """Return a skill that is valid by npm skills-ref. Note: OpenClaw shows the skill once the variables it requires are set."""
    base, default = site.base_url, catalog.models[0].id
    variables = {
        "OPENAI_API_KEY": "Key of this gateway, for OpenAI's SDKs.",
        "OPENAI_BASE_URL": f"{base}/v1",
        "ANTHROPIC_API_KEY": "Key of this gateway, for Anthropic's SDKs.",
        "ANTHROPIC_BASE_URL": base,
        "GEMINI_API_KEY": "Key of this gateway, for Google's SDKs.",
        "GOOGLE_GEMINI_BASE_URL": base,
        "RUNAPI_TOKEN": "Key of runapi.ai, used only there.",
    }
    openclaw = {
        "homepage": f"{base}/models/minimax",
        "primaryEnv": "OPENAI_API_KEY",
        "requires": {"env": ["OPENAI_API_KEY"]},
        "envVars": [
            {"name": name, "required": False, "description": about}
            for name, about in variables.items()
        ],
    }
    shown = {f"{e.protocol}_{e.language}": prose.code(e) for e in prose.examples(base, default)}
    models = prose.table(
        ("Model", "Use when"),
        (
            (f"`{m.id}`", prose.plain(prose.facts_of(m.id).use_when or m.description))
            for m in catalog.models
        ),
    )
    body = prose.fill(
        prose.text("skill.md"),
        base=base,
        version=site.version,
        note=note(site),
        models=models,
        model=default,
        description=json.dumps(_SKILL_ABOUT),
        openclaw=json.dumps(openclaw),
        **shown,
    )
    return Page(path, "MiniMax skill", _SKILL_ABOUT, body)


def skill_index(path: str, site: Site, catalog: Catalog) -> Page:
    skill = skill_page(SKILL, site, catalog)
    entry = {
        "name": "minimax",
        "type": "skill-md",
        "description": skill.description,
        # Relative to the index, as RFC 3986 has it: right under every host and prefix.
        "url": f"../..{SKILL}",
        "digest": f"sha256:{hashlib.sha256(skill.markdown.encode()).hexdigest()}",
    }
    body = json.dumps({"$schema": _SKILL_SCHEMA, "skills": [entry]}, indent=2) + "\n"
    return Page(path, "Skills", "Index of skills.", body, JSON)
