// A session of a TypeScript SDK with a remote server: its URL, a token and the version of the SDK (1 or 2) as the JSON
// argument, then commands as in `commands.cjs`.
"use strict";

const first = require("@modelcontextprotocol/sdk/client/index.js");
const firstTransport = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const second = require("@modelcontextprotocol/client");
const { serve } = require("./commands.cjs");

const { url, token, sdk } = JSON.parse(process.argv[2]);

async function main() {
  const options = { requestInit: { headers: { Authorization: `Bearer ${token}` } } };
  const { Client } = sdk === 1 ? first : second;
  const { StreamableHTTPClientTransport } = sdk === 1 ? firstTransport : second;
  const client = new Client(
    { name: "typescript-sdk", version: "1.0.0" },
    sdk === 1 ? {} : { versionNegotiation: { mode: "auto" } },
  );
  await client.connect(new StreamableHTTPClientTransport(new URL(url), options));
  await serve(client);
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
