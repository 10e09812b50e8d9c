// A server of the TypeScript SDK with jose, and a tool that calls Microsoft Graph: PORT, WORKERS and `peer.json` as
// arguments. With `--version` it prints the versions of its parts.
"use strict";

const cluster = require("node:cluster");
const { readFileSync } = require("node:fs");
const { join } = require("node:path");

function version(name) {
  const main = require.resolve(name);
  const folder = join("node_modules", ...name.split("/").slice(0, name.startsWith("@") ? 2 : 1));
  const root = main.slice(0, main.indexOf(folder) + folder.length);
  return JSON.parse(readFileSync(join(root, "package.json"), "utf8")).version;
}

function serve(port, setting) {
  const { createRemoteJWKSet, jwtVerify } = require("jose");
  const { Server } = require("@modelcontextprotocol/sdk/server/index.js");
  const { createMcpExpressApp } = require("@modelcontextprotocol/sdk/server/express.js");
  const { InvalidTokenError } = require("@modelcontextprotocol/sdk/server/auth/errors.js");
  const { requireBearerAuth } = require("@modelcontextprotocol/sdk/server/auth/middleware/bearerAuth.js");
  const { StreamableHTTPServerTransport } = require("@modelcontextprotocol/sdk/server/streamableHttp.js");
  const { CallToolRequestSchema, ListToolsRequestSchema } = require("@modelcontextprotocol/sdk/types.js");

  const keys = createRemoteJWKSet(new URL(setting.jwks));
  const expected = { issuer: setting.issuer, audience: setting.audience, algorithms: ["RS256"] };

  async function verifyAccessToken(token) {
    const { payload } = await jwtVerify(token, keys, expected).catch((error) => {
      throw new InvalidTokenError(error.message);
    });
    return { token, clientId: payload.azp, scopes: (payload.scp ?? "").split(" "), expiresAt: payload.exp };
  }

  const tool = setting.tools.find(({ name }) => name === "get_user_details");
  const address = `${setting.graph}?$select=${Object.keys(tool.outputSchema.properties).join(",")}`;

  async function userDetails() {
    const answer = await fetch(address, { headers: { authorization: `Bearer ${setting.userToken}` } });
    if (!answer.ok) throw new Error(`Graph answers ${answer.status}`);
    const structuredContent = await answer.json();
    return { content: [{ type: "text", text: JSON.stringify(structuredContent) }], structuredContent };
  }

  // Without sessions, each request needs a separate server and transport, as the SDK documents.
  async function answer(request, response) {
    const server = new Server({ name: "bench", version: "1.0.0" }, { capabilities: { tools: {} } });
    server.setRequestHandler(ListToolsRequestSchema, () => ({ tools: setting.tools }));
    server.setRequestHandler(CallToolRequestSchema, userDetails);
    const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined, enableJsonResponse: true });
    response.on("close", () => server.close());
    await server.connect(transport);
    await transport.handleRequest(request, response, request.body);
  }

  const app = createMcpExpressApp();
  app.post("/mcp", requireBearerAuth({ verifier: { verifyAccessToken }, requiredScopes: [setting.scope] }), answer);
  app.listen(port, "127.0.0.1");
}

if (process.argv.includes("--version")) {
  const sdk = version("@modelcontextprotocol/sdk/server/index.js");
  console.log(`TypeScript SDK ${sdk} (jose ${version("jose")}, express ${version("express")}, Node ${process.version.slice(1)})`);
} else {
  const [port, workers, setting] = process.argv.slice(2);
  if (cluster.isPrimary && Number(workers) > 1) {
    for (let worker = 0; worker < Number(workers); worker += 1) cluster.fork();
  } else {
    serve(Number(port), JSON.parse(readFileSync(setting, "utf8")));
  }
}
