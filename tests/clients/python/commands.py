"""Commands to a client of the Python SDK or FastMCP: JSON lines on stdin, each with an `id`. Events are JSON lines on stdout.

Commands run concurrently, and end with stdin.
"""

import json
import sys

import anyio


def tell(**event):
    print(json.dumps(event), flush=True)


def text(contents):
    return "\n".join(content.text for content in contents if getattr(content, "text", None) is not None)


def in_order(listed, name):
    """The entries of a list, which FastMCP returns without an envelope."""
    return getattr(listed, name, listed)


async def list_names(client, command):
    kind = command["list"]
    listed = in_order(await getattr(client, f"list_{kind}")(), kind)
    tell(event="listed", id=command["id"], names=[str(getattr(entry, "uri", entry.name)) for entry in listed])


async def call_tool(client, command):
    async def progress(done, _total, message):
        tell(event="progress", id=command["id"], progress=done, message=message)

    is_fastmcp = type(client).__module__.startswith("fastmcp.")
    options = {"progress_handler": progress, "raise_on_error": False} if is_fastmcp else {"progress_callback": progress}
    answer = await client.call_tool(command["call"], command.get("arguments", {}), **options)
    tell(event="answer", id=command["id"], isError=bool(answer.is_error), text=text(answer.content))


async def get_prompt(client, command):
    prompt = await client.get_prompt(command["get"], command.get("arguments", {}))
    tell(event="answer", id=command["id"], isError=False, text=text(message.content for message in prompt.messages))


async def read_resource(client, command):
    resource = await client.read_resource(command["read"])
    tell(event="answer", id=command["id"], isError=False, text=text(in_order(resource, "contents")))


async def listen(client, command):
    async with client.listen(tools_list_changed=True) as news:
        tell(event="listening", id=command["id"])
        async for change in news:
            tell(event="changed", what=type(change).__name__)


COMMANDS = {"list": list_names, "call": call_tool, "get": get_prompt, "read": read_resource, "listen": listen}


async def run(client, command, scope):
    with scope:
        try:
            await next(COMMANDS[name] for name in COMMANDS if name in command)(client, command)
        except Exception as error:  # A client that ends would hide what became of this request.
            tell(event="failed", id=command["id"], error=f"{type(error).__name__}: {error}")
    if scope.cancelled_caught:
        tell(event="failed", id=command["id"], error="cancelled")


async def serve(client, put_clock_ahead=None):
    async with client, anyio.create_task_group() as tasks:
        tell(event="ready")
        scopes = {}
        async for line in anyio.wrap_file(sys.stdin):
            command = json.loads(line)
            if "ahead" in command:
                put_clock_ahead(command["ahead"])
            elif "cancel" in command:
                scopes[command["cancel"]].cancel()
            else:
                scope = scopes[command["id"]] = anyio.CancelScope()
                tasks.start_soon(run, client, command, scope)
        tasks.cancel_scope.cancel()
