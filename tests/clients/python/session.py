"""A session of the Python SDK: its server JSON as the argument, commands JSON lines on stdin, events JSON lines on stdout.

The session ends with stdin.
"""

import json
import sys

import anyio
from mcp import Client, StdioServerParameters


def tell(**event):
    print(json.dumps(event), flush=True)


async def list_tools(client, command):
    listed = await client.list_tools()
    tell(event="listed", id=command["id"], tools=[tool.name for tool in listed.tools])


async def call_tool(client, command):
    async def progress(done, _total, message):
        tell(event="progress", id=command["id"], progress=done, message=message)

    answer = await client.call_tool(command["call"], command.get("arguments", {}), progress_callback=progress)
    tell(
        event="answer",
        id=command["id"],
        isError=bool(answer.is_error),
        text="\n".join(block.text for block in answer.content if block.type == "text"),
    )


async def run(client, command, scope):
    with scope:
        try:
            await (call_tool if "call" in command else list_tools)(client, command)
        except Exception as error:  # A client that ends would hide what became of this request.
            tell(event="failed", id=command["id"], error=f"{type(error).__name__}: {error}")
    if scope.cancelled_caught:
        tell(event="failed", id=command["id"], error="cancelled")


async def main():
    server = StdioServerParameters(**json.loads(sys.argv[1]))
    async with Client(server) as client, anyio.create_task_group() as tasks:
        tell(event="ready")
        scopes = {}
        async for line in anyio.wrap_file(sys.stdin):
            command = json.loads(line)
            if "cancel" in command:
                scopes[command["cancel"]].cancel()
            else:
                scope = scopes[command["id"]] = anyio.CancelScope()
                tasks.start_soon(run, client, command, scope)
        tasks.cancel_scope.cancel()


anyio.run(main)
