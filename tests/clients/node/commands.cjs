// Commands to a client of a TypeScript SDK: JSON lines on stdin, each with an `id`. Events are JSON lines on stdout.
// Commands run concurrently, and end with stdin.
"use strict";

const { createInterface } = require("node:readline");
const { ToolListChangedNotificationSchema } = require("@modelcontextprotocol/sdk/types.js");

const CHANGED = "notifications/tools/list_changed";
const LISTS = { tools: "listTools", prompts: "listPrompts", resources: "listResources" };

function tell(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

function answer(id, contents, isError) {
  const texts = contents.map(({ text }) => text).filter((text) => text !== undefined);
  return { event: "answer", id, isError: Boolean(isError), text: texts.join("\n") };
}

const COMMANDS = {
  async list(client, { id, list }) {
    const { [list]: entries } = await client[LISTS[list]]();
    return { event: "listed", id, names: entries.map(({ uri, name }) => uri ?? name) };
  },
  async call(client, { id, call, arguments: given = {} }, signal) {
    const onprogress = ({ progress, message }) => tell({ event: "progress", id, progress, message });
    const options = { onprogress, signal };
    // The first SDK has a schema of the result as an additional argument.
    const { content, isError } = await client.callTool(
      { name: call, arguments: given },
      ...(client.listen ? [options] : [undefined, options]),
    );
    return answer(id, content, isError);
  },
  async get(client, { id, get, arguments: given = {} }) {
    const { messages } = await client.getPrompt({ name: get, arguments: given });
    return answer(id, messages.map(({ content }) => content));
  },
  async read(client, { id, read }) {
    const { contents } = await client.readResource({ uri: read });
    return answer(id, contents);
  },
  async listen(client, { id }) {
    await client.listen({ toolsListChanged: true });
    return { event: "listening", id };
  },
};

// Serves until stdin ends, and closes the client.
async function serve(client) {
  client.setNotificationHandler(client.listen ? CHANGED : ToolListChangedNotificationSchema, () => {
    tell({ event: "changed", what: CHANGED });
  });
  tell({ event: "ready" });
  const controllers = new Map();
  for await (const line of createInterface({ input: process.stdin })) {
    const command = JSON.parse(line);
    if ("cancel" in command) {
      controllers.get(command.cancel).abort("the user pressed Esc");
      continue;
    }
    const { id } = command;
    const controller = new AbortController();
    controllers.set(id, controller);
    const name = Object.keys(COMMANDS).find((name) => name in command);
    COMMANDS[name](client, command, controller.signal).then(tell, (error) => {
      tell({ event: "failed", id, error: error.message });
    });
  }
  await client.close();
}

module.exports = { serve, tell };
