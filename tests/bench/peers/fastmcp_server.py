"""A FastMCP server with its JWT verifier, and a tool that calls Microsoft Graph: PORT, WORKERS and `peer.json` as arguments.

With `--version` it prints the versions of its parts.
"""

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from fastmcp import FastMCP
from fastmcp.server.auth.providers.jwt import JWTVerifier
from fastmcp.tools import Tool
from fastmcp.tools.base import ToolResult


class Listed(Tool):
    """A tool that is listed, and not called."""

    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        raise NotImplementedError


class UserDetails(Tool):
    """The signed-in user."""

    async def run(self, arguments: dict[str, Any]) -> ToolResult:
        answer = await graph.get(setting["graph"], params={"$select": ",".join(self.output_schema["properties"])})
        answer.raise_for_status()
        return ToolResult(structured_content=answer.json())


def definition(tool):
    kind = UserDetails if tool["name"] == "get_user_details" else Listed
    return kind(
        name=tool["name"],
        title=tool.get("title"),
        description=tool.get("description"),
        parameters=tool["inputSchema"],
        output_schema=tool.get("outputSchema"),
        annotations=tool.get("annotations"),
    )


if "--version" in sys.argv:
    print(f"FastMCP {version('fastmcp')} (mcp {version('mcp')}, uvicorn {version('uvicorn')}, Python {platform.python_version()})")
    sys.exit()
if __name__ == "__main__":
    port, workers, os.environ["PEER"] = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).parent))
    # The application by its name, which several workers need.
    name = f"{Path(__file__).stem}:app"
    uvicorn.run(name, port=int(port), workers=int(workers), log_level="warning", access_log=False)
else:
    setting = json.loads(Path(os.environ["PEER"]).read_text())
    # Trusts the authorities in SSL_CERT_FILE, as the verifier's own client does.
    graph = httpx2.AsyncClient(headers={"authorization": f"Bearer {setting['userToken']}"})
    verifier = JWTVerifier(
        jwks_uri=setting["jwks"],
        issuer=setting["issuer"],
        audience=setting["audience"],
        required_scopes=[setting["scope"]],
    )
    server = FastMCP("bench", auth=verifier, tools=[definition(tool) for tool in setting["tools"]])
    app = server.http_app(path="/mcp", json_response=True, stateless_http=True)
