"""A session with a remote server, by the Python SDK or by FastMCP: what the JSON argument holds is the server's URL, which of
the two, and a folder for tokens. Commands are JSON lines on stdin, events JSON lines on stdout.

The session ends with stdin. `webbrowser` opens the addresses that a person is to see.
"""

import json
import sys
import threading
import time
import warnings
import webbrowser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import anyio
import fastmcp
import httpx2
import mcp
from fastmcp.client.auth import OAuth
from key_value.aio.stores.filetree import FileTreeStore, FileTreeV1KeySanitizationStrategy
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

clock, ahead = time.time, 0
time.time = lambda: clock() + ahead


def tell(**event):
    print(json.dumps(event), flush=True)


class Files(TokenStorage):
    """What the SDK keeps for an application, in files."""

    def __init__(self, folder):
        self.tokens, self.client = folder / "tokens.json", folder / "client.json"

    async def get_tokens(self):
        return OAuthToken.model_validate_json(self.tokens.read_text()) if self.tokens.exists() else None

    async def set_tokens(self, tokens):
        self.tokens.write_text(tokens.model_dump_json())

    async def get_client_info(self):
        return OAuthClientInformationFull.model_validate_json(self.client.read_text()) if self.client.exists() else None

    async def set_client_info(self, client_info):
        self.client.write_text(client_info.model_dump_json())


class Callback:
    """The address that the browser comes back to: a port that the system chooses."""

    def __init__(self):
        this = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                this.query = parse_qs(urlparse(self.path).query)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"You can close this window.")
                this.called.set()

            def log_message(self, *_arguments):
                pass

        self.called, self.query = threading.Event(), {}
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/callback"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    async def result(self):
        await anyio.to_thread.run_sync(self.called.wait)
        self.called.clear()
        code, state, iss = (self.query.get(name, [None])[0] for name in ("code", "state", "iss"))
        return AuthorizationCodeResult(code=code, state=state, iss=iss)


def sdk(url, folder):
    callback = Callback()

    async def open_browser(address):
        await anyio.to_thread.run_sync(webbrowser.open, address)

    auth = OAuthClientProvider(
        server_url=url,
        client_metadata=OAuthClientMetadata(client_name="Python SDK", redirect_uris=[callback.url]),
        storage=Files(folder),
        redirect_handler=open_browser,
        callback_handler=callback.result,
    )
    http = httpx2.AsyncClient(auth=auth, timeout=60)
    return mcp.Client(streamable_http_client(url, http_client=http))


def fast(url, folder):
    warnings.simplefilter("ignore")
    keys = FileTreeV1KeySanitizationStrategy(folder)
    return fastmcp.Client(url, auth=OAuth(token_storage=FileTreeStore(data_directory=folder, key_sanitization_strategy=keys)))


async def answer(client, command):
    number = command["id"]
    if "call" in command:
        result = await client.call_tool(command["call"], {})
        text = "\n".join(block.text for block in result.content if block.type == "text")
        tell(event="answer", id=number, isError=bool(result.is_error), text=text)
    else:
        listed = await client.list_tools()
        tell(event="listed", id=number, tools=[tool.name for tool in getattr(listed, "tools", listed)])


async def main():
    global ahead
    server = json.loads(sys.argv[1])
    client = {"mcp": sdk, "fastmcp": fast}[server["client"]](server["url"], Path(server["folder"]))
    async with client:
        tell(event="ready")
        async for line in anyio.wrap_file(sys.stdin):
            command = json.loads(line)
            if "ahead" in command:
                ahead = command["ahead"]
                continue
            try:
                await answer(client, command)
            except Exception as error:  # A client that ends would hide what became of this request.
                tell(event="failed", id=command["id"], error=f"{type(error).__name__}: {error}")


anyio.run(main)
