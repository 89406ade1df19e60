"""Writes docs/configuration.md from the settings: `PYTHONPATH=src python evals/reference/configuration.py --write`."""

import sys
from pathlib import Path
from typing import Any

from headgate import config
from headgate.config import descriptions, explain

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "configuration.md"
HEAD = """# Configuration

Written by `evals/reference/configuration.py`; a test compares it with the code. The same descriptions are in
`headgate config schema` (JSON Schema, for editors) and `headgate config show` (what is in force, and from where).

A value is looked for on the command line, then in the environment, then in the file (`--config` or
`HEADGATE_CONFIG`), then here. `headgate config check` says what is wrong and where. Secrets are named, not written:
`env:NAME` or `file:/path`.

## Examples

Two upstreams, one model on both, names of your own:

```toml
[upstreams.minimax]
preset = "minimax"
key = "env:MINIMAX_API_KEY"

[upstreams.gpu]
preset = "vllm"
base_url = "http://10.0.0.5:8000/v1"
allow_http = true

[models."MiniMax-M2"]
routes = [{ upstream = "gpu" }, { upstream = "minimax" }]

[aliases]
"our-default" = "MiniMax-M2"
```

A model of your own, with its price in dollars per million tokens:

```toml
[upstreams.gpu]
preset = "vllm"
base_url = "http://127.0.0.1:8000/v1"

[models."acme-coder"]
routes = [{ upstream = "gpu", model = "acme/coder-7b" }]
context_window = 131072
max_output = 32768
prices = [{ input = "0.10", output = "0.40" }]
```

Behind a proxy, with more time for slow models:

```toml
public_url = "https://llm.example.com"
trusted_proxies = ["10.0.0.0/8"]

[timeouts]
first_token = 180
total = 1200
```
"""


def text() -> str:
    """Return the whole page."""
    schema = explain.schema()["$defs"]
    variables = {place: variable for place, variable in config.VARIABLES.items()}
    parts = [HEAD, "\n## Top level\n\n", _table(schema["Settings"], "", variables)]
    for key, name in descriptions.TABLES.items():
        parts += [
            f"\n## [{key}]\n\n{descriptions.description(key)}\n\n",
            _table(schema[name], key, variables),
        ]
    for key, name in descriptions.NAMED_TABLES.items():
        parts += [
            f"\n## [{key}.NAME]\n\n{descriptions.description(key)}\n\n",
            _table(schema[name], key, {}),
        ]
    parts += ["\n## Routes of a model\n\n", _table(schema["RouteTo"], "", {})]
    parts += ["\n## Prices\n\n", _table(schema["Price"], "", {})]
    return "".join(parts)


def _table(schema: dict[str, Any], key: str, variables: dict[tuple[str, ...], str]) -> str:
    rows = ["| setting | default | variable | meaning |\n|---|---|---|---|\n"]
    for name, shown in schema["properties"].items():
        if not key and name in descriptions.TABLES | descriptions.NAMED_TABLES:
            continue
        default = shown.get("default", "")
        if isinstance(default, dict | list | tuple) and not default:
            default = ""
        variable = variables.get((key, name) if key else (name,), "")
        value = (
            f"`{default}`".replace("True", "true").replace("False", "false")
            if default not in ("", None)
            else ""
        )
        words = shown.get("description", "").replace("|", "\\|")
        rows.append(f"| `{name}` | {value} | {f'`{variable}`' if variable else ''} | {words} |\n")
    return "".join(rows)


if __name__ == "__main__":
    if "--write" in sys.argv:
        FILE.write_text(text())
    print(f"{FILE.relative_to(ROOT)}: {len(text().splitlines())} lines")
