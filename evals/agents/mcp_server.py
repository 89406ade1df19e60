"""This is a server of the Model Context Protocol with one tool, over standard input and output.

After modelcontextprotocol.io, stdio transport (read 2026-11): one message of JSON-RPC in each line.
"""

import json
import sys
from typing import Any

FOUND = "heron 4711"  # what the tool returns
TOOL = {
    "name": "lookup",
    "description": "Looks a bird up.",
    "inputSchema": {
        "type": "object",
        "properties": {"bird": {"type": "string"}},
        "required": ["bird"],
    },
}


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """The result of one request; Any: JSON of the protocol."""
    match asked["method"]:
        case "initialize":
            version = asked["params"]["protocolVersion"]
            about = {"name": "probe", "version": "1"}
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}
        case "tools/list":
            return {"tools": [TOOL]}
        case "tools/call":
            return {"content": [{"type": "text", "text": FOUND}], "isError": False}
    return {}


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" in asked:
            reply = {"jsonrpc": "2.0", "id": asked["id"], "result": answer(asked)}
            print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
