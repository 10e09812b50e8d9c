// A session of the TypeScript SDK: its server JSON as the argument, commands JSON lines on stdin, events JSON lines on
// stdout. With `--url-elicitation` it declares that it opens addresses for the server. The session ends with stdin.
"use strict";

const { createInterface } = require("node:readline");
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = require("@modelcontextprotocol/sdk/client/stdio.js");
const { ElicitRequestSchema } = require("@modelcontextprotocol/sdk/types.js");

const server = JSON.parse(process.argv[2]);
const urlElicitation = process.argv.includes("--url-elicitation");
const calls = new Map();

function tell(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

async function listTools(client, { id }) {
  const { tools } = await client.listTools();
  return { event: "listed", id, tools: tools.map((tool) => tool.name) };
}

async function callTool(client, { id, call, arguments: given = {} }, signal) {
  const onprogress = ({ progress, message }) => tell({ event: "progress", id, progress, message });
  const answer = await client.callTool({ name: call, arguments: given }, undefined, { onprogress, signal });
  const text = answer.content.filter((block) => block.type === "text").map((block) => block.text);
  return { event: "answer", id, isError: Boolean(answer.isError), text: text.join("\n") };
}

async function main() {
  const capabilities = urlElicitation ? { elicitation: { url: {} } } : {};
  const client = new Client({ name: "typescript-sdk", version: "1.0.0" }, { capabilities });
  if (urlElicitation) {
    client.setRequestHandler(ElicitRequestSchema, ({ params: { mode, url, message } }) => {
      tell({ event: "elicitation", mode, url, message });
      return { action: "accept" };
    });
  }
  const transport = new StdioClientTransport({ ...server, stderr: "inherit" });
  await client.connect(transport);
  tell({ event: "ready" });
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    if ("cancel" in command) {
      calls.get(command.cancel).abort("the user pressed Esc");
      continue;
    }
    const { id } = command;
    const controller = new AbortController();
    calls.set(id, controller);
    const run = "call" in command ? callTool : listTools;
    run(client, command, controller.signal).then(tell, (error) => {
      tell({ event: "failed", id, error: error.message });
    });
  }
  await client.close();
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
