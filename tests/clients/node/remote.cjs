// A session of the TypeScript SDK with a remote server: its URL and a file for tokens as the JSON argument, then commands as
// in `commands.cjs`. $BROWSER opens the addresses for the user.
"use strict";

const { spawn } = require("node:child_process");
const { existsSync, readFileSync, writeFileSync } = require("node:fs");
const { createServer } = require("node:http");
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { UnauthorizedError } = require("@modelcontextprotocol/sdk/client/auth.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { serve } = require("./commands.cjs");

const { url, file } = JSON.parse(process.argv[2]);

// Interface of the SDK to an application: the redirect address, and the stored data.
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
  await serve(await connect());
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
