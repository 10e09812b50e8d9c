// A session of the TypeScript SDK: its server JSON as the argument, then commands as in `commands.cjs`. With
// `--url-elicitation` it declares that it opens addresses for the server.
"use strict";

const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = require("@modelcontextprotocol/sdk/client/stdio.js");
const { ElicitRequestSchema } = require("@modelcontextprotocol/sdk/types.js");
const { serve, tell } = require("./commands.cjs");

const server = JSON.parse(process.argv[2]);
const urlElicitation = process.argv.includes("--url-elicitation");

async function main() {
  const capabilities = urlElicitation ? { elicitation: { url: {} } } : {};
  const client = new Client({ name: "typescript-sdk", version: "1.0.0" }, { capabilities });
  if (urlElicitation) {
    client.setRequestHandler(ElicitRequestSchema, ({ params: { mode, url, message } }) => {
      tell({ event: "elicitation", mode, url, message });
      return { action: "accept" };
    });
  }
  await client.connect(new StdioClientTransport({ ...server, stderr: "inherit" }));
  await serve(client);
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
