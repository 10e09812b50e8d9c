"""A session with a remote server, by the Python SDK or by FastMCP. The JSON argument has the server's URL, the client, the
`mode` if it is not the client's default, and a token, or a folder for tokens. Commands follow as in `commands.py`.

`webbrowser` opens the addresses for the user.
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
from commands import serve
from fastmcp.client.auth import OAuth
from key_value.aio.stores.filetree import FileTreeStore, FileTreeV1KeySanitizationStrategy
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

clock, ahead = time.time, 0
time.time = lambda: clock() + ahead


def put_clock_ahead(seconds):
    global ahead
    ahead = seconds


class Files(TokenStorage):
    """Storage of the SDK for an application, in files."""

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
    """The redirect address of the browser, on a port from the system."""

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


def sdk(server, **options):
    url = server["url"]
    if "token" in server:
        http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {server['token']}"}, timeout=60)
        return mcp.Client(streamable_http_client(url, http_client=http), **options)
    callback = Callback()

    async def open_browser(address):
        await anyio.to_thread.run_sync(webbrowser.open, address)

    auth = OAuthClientProvider(
        server_url=url,
        client_metadata=OAuthClientMetadata(client_name="Python SDK", redirect_uris=[callback.url]),
        storage=Files(Path(server["folder"])),
        redirect_handler=open_browser,
        callback_handler=callback.result,
    )
    http = httpx2.AsyncClient(auth=auth, timeout=60)
    return mcp.Client(streamable_http_client(url, http_client=http), **options)


def fast(server, **options):
    if "token" in server:
        return fastmcp.Client(server["url"], auth=server["token"], **options)
    warnings.simplefilter("ignore")
    folder = Path(server["folder"])
    keys = FileTreeV1KeySanitizationStrategy(folder)
    auth = OAuth(token_storage=FileTreeStore(data_directory=folder, key_sanitization_strategy=keys))
    return fastmcp.Client(server["url"], auth=auth, **options)


def main():
    server = json.loads(sys.argv[1])
    options = {"mode": server["mode"]} if "mode" in server else {}
    client = {"mcp": sdk, "fastmcp": fast}[server["client"]](server, **options)
    anyio.run(serve, client, put_clock_ahead)


main()
