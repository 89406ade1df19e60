"""What the package's metadata says that depends on where the repository is: links, and the README's images.

The address comes from HEADGATE_REPOSITORY, or from the variables that a forge's CI sets.  Without one the
package names no links, and the README goes in without images and with its links' texts only, as
relative ones would be broken on a package index.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")


class RepositoryHook(MetadataHookInterface):
    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        # Any: as hatchling has it
        base = repository(os.environ)
        text = (Path(self.root) / "README.md").read_text("utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, base)}
        if base:
            metadata["urls"] = {
                "Homepage": base,
                "Documentation": f"{base}/tree/main/docs",
                "Source": base,
                "Changelog": f"{base}/blob/main/CHANGELOG.md",
                "Issues": f"{base}/issues",
            }


def repository(env: "os._Environ[str] | dict[str, str]") -> str:
    """Return the repository's address without a slash at its end; "" when nobody says it."""
    named = env.get("HEADGATE_REPOSITORY", "")
    if not named and env.get("GITHUB_SERVER_URL") and env.get("GITHUB_REPOSITORY"):
        named = f"{env['GITHUB_SERVER_URL']}/{env['GITHUB_REPOSITORY']}"
    return named.rstrip("/").removesuffix(".git")


def absolute(text: str, base: str) -> str:
    """Return the README with relative links and images made absolute, or taken out without a base."""

    def link(found: re.Match[str]) -> str:
        image, label, path = found.groups()
        if not base:
            return "" if image else label
        kind = "raw" if image else "blob"
        return f"{image}[{label}]({base}/{kind}/main/{path})"

    return _LINK.sub(link, text)
