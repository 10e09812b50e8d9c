// A session of the TypeScript SDK with a remote server: its URL and a file for tokens as the JSON argument, commands JSON
// lines on stdin, events JSON lines on stdout. $BROWSER opens the addresses that a person is to see. The session ends with
// stdin.
"use strict";

const { spawn } = require("node:child_process");
const { existsSync, readFileSync, writeFileSync } = require("node:fs");
const { createServer } = require("node:http");
const { createInterface } = require("node:readline");
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { UnauthorizedError } = require("@modelcontextprotocol/sdk/client/auth.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");

const { url, file } = JSON.parse(process.argv[2]);

function tell(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

// What the SDK asks of an application: where the browser comes back to, and what is kept.
class Provider {
  #kept = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {};

  constructor(port) {
    this.redirectUrl = `http://127.0.0.1:${port}/callback`;
    this.clientMetadata = {
      client_name: "TypeScript SDK",
      redirect_uris: [this.redirectUrl],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
    };
  }

  #keep(change) {
    this.#kept = { ...this.#kept, ...change };
    writeFileSync(file, JSON.stringify(this.#kept));
  }

  clientInformation() {
    return this.#kept.client;
  }

  saveClientInformation(client) {
    this.#keep({ client });
  }

  tokens() {
    return this.#kept.tokens;
  }

  saveTokens(tokens) {
    this.#keep({ tokens });
  }

  codeVerifier() {
    return this.#kept.verifier;
  }

  saveCodeVerifier(verifier) {
    this.#keep({ verifier });
  }

  invalidateCredentials(scope) {
    const all = scope === "all";
    this.#keep({
      ...(all || scope === "tokens" ? { tokens: undefined } : {}),
      ...(all || scope === "client" ? { client: undefined } : {}),
    });
  }

  redirectToAuthorization(address) {
    spawn(process.env.BROWSER, [String(address)], { stdio: "ignore" });
  }
}

async function connect() {
  let called;
  const code = new Promise((resolve) => (called = resolve));
  const callback = createServer((request, response) => {
    response.end("You can close this window.");
    called(new URL(request.url, url).searchParams.get("code"));
  });
  await new Promise((resolve) => callback.listen(0, "127.0.0.1", resolve));
  const authProvider = new Provider(callback.address().port);
  const begin = async () => {
    const client = new Client({ name: "typescript-sdk", version: "1.0.0" });
    const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider });
    return { transport, connected: client.connect(transport).then(() => client) };
  };
  const first = await begin();
  try {
    return await first.connected;
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
    await first.transport.finishAuth(await code);
    return await (await begin()).connected;
  } finally {
    callback.close();
    callback.closeAllConnections();
  }
}

async function main() {
  const client = await connect();
  tell({ event: "ready" });
  for await (const line of createInterface({ input: process.stdin })) {
    const { id, call } = JSON.parse(line);
    try {
      if (call) {
        const { content, isError } = await client.callTool({ name: call, arguments: {} });
        tell({ event: "answer", id, isError: Boolean(isError), text: content.map(({ text }) => text).join("\n") });
      } else {
        const { tools } = await client.listTools();
        tell({ event: "listed", id, tools: tools.map(({ name }) => name) });
      }
    } catch (error) {
      tell({ event: "failed", id, error: error.message });
    }
  }
  await client.close();
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
