"""A FastMCP server: over stdio, or over streamable HTTP with PORT as the argument."""

import sys

import anyio
from fastmcp import Context, FastMCP
from fastmcp.server.dependencies import get_http_headers

server = FastMCP("greeter", version="1.0.0", instructions="Greets people.")


@server.tool
def greet(name: str) -> str:
    """Greets a person."""
    return f"Hello, {name}!"


@server.tool
async def slow(seconds: float, ctx: Context) -> str:
    """Waits, and reports its progress ten times."""
    for step in range(10):
        await ctx.report_progress(step, 10, f"step {step}")
        await anyio.sleep(seconds / 10)
    return "done"


@server.tool
def who(ctx: Context) -> dict[str, str | None]:
    """Returns the assertion of the caller as the request brought it."""
    meta = ctx.request_context.meta if ctx.request_context else None
    return {
        "header": get_http_headers(include={"mcp-entra-assertion"}).get("mcp-entra-assertion"),
        "meta": dict(meta or {}).get("dev.mcp-entra/assertion"),
    }


@server.prompt
def greeting(name: str) -> str:
    """Asks for a greeting."""
    return f"Please greet {name}."


@server.resource("greetings://hello", mime_type="text/plain")
def hello() -> str:
    """The greeting of everybody."""
    return "Hello!"


@server.resource("greetings://{name}", mime_type="text/plain")
def hello_to(name: str) -> str:
    """The greeting of one person."""
    return f"Hello, {name}!"


if len(sys.argv) > 1:
    server.run("http", host="127.0.0.1", port=int(sys.argv[1]), path="/mcp", show_banner=False, log_level="warning")
else:
    server.run("stdio", show_banner=False, log_level="warning")
