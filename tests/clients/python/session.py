"""A session of the Python SDK: its server JSON as the argument, then commands as in `commands.py`."""

import json
import sys

import anyio
from commands import serve
from mcp import Client, StdioServerParameters

anyio.run(serve, Client(StdioServerParameters(**json.loads(sys.argv[1]))))
