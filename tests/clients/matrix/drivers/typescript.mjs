// The official SDK for TypeScript: `node typescript.mjs v1|v2`. The checks are those of probe.py.
import { createRequire } from "node:module";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const [era] = process.argv.slice(2);
const given = JSON.parse(process.env.MATRIX_SERVER);
// The packages are in the folder of the environment and not beside this file.
const load = (name) => import(createRequire(join(process.env.MATRIX_PACKAGES, "x.js")).resolve(name));
const { Client } = await load(era === "v1" ? "@modelcontextprotocol/sdk/client/index.js" : "@modelcontextprotocol/client");
const { StdioClientTransport } = await load(
  era === "v1" ? "@modelcontextprotocol/sdk/client/stdio.js" : "@modelcontextprotocol/client/stdio",
);
const { DEFAULT_REQUEST_TIMEOUT_MSEC } = await load(
  era === "v1" ? "@modelcontextprotocol/sdk/shared/protocol.js" : "@modelcontextprotocol/client",
);

const PATIENCE = 90_000; // milliseconds for whatever must happen on a busy machine
const LOOK = 50;
const SHORT = 4_000;
const ENDLESS = "sleep 987";

const report = (check, outcome, said) => console.log(JSON.stringify({ check, outcome, said: String(said).slice(0, 1500) }));
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

function assert(truth, seen) {
  if (!truth) throw new Error(`not as it should be: ${JSON.stringify(seen)}`);
}

async function eventually(look, what) {
  for (let n = 0; n < PATIENCE / LOOK; n += 1) {
    if (look()) return;
    await pause(LOOK);
  }
  throw new Error(`in ${PATIENCE / 1000} s it did not happen: ${what}`);
}

function decided(command) {
  const log = join(given.folder, "state", "taskcell", "audit.jsonl");
  const lines = existsSync(log) ? readFileSync(log, "utf8").split("\n").filter((line) => line.endsWith("}")) : [];
  return lines.map((line) => JSON.parse(line)).filter((one) => one.event === "decision" && one.command === command).length;
}

async function nothingRuns(client) {
  for (let n = 0; n < PATIENCE / 1000; n += 1) {
    const seen = await terminal(client, "pgrep -x sleep > /dev/null || echo nothing runs");
    if (seen.text.includes("nothing runs")) return;
    await pause(LOOK);
  }
  throw new Error("the command goes on");
}

async function connect() {
  const transport = new StdioClientTransport({ command: given.command, args: given.args, env: given.env });
  const client = new Client({ name: "matrix", version: "1" });
  await client.connect(transport, { timeout: PATIENCE });
  return client;
}

async function call(client, name, args, options = {}, meta = undefined) {
  const request = { name, arguments: args, ...(meta ? { _meta: meta } : {}) };
  const settings = { timeout: PATIENCE, ...options };
  const result =
    era === "v1" ? await client.callTool(request, undefined, settings) : await client.callTool(request, settings);
  const text = result.content.filter((one) => one.type === "text").map((one) => one.text).join("\n");
  const pictures = result.content.filter((one) => one.type === "image").length;
  return { text, pictures, isError: result.isError, fields: result.structuredContent };
}

const terminal = (client, command, options, more = {}) => call(client, "terminal", { command, ...more }, options);

const checks = {
  async list(client) {
    const { tools } = await client.listTools();
    const names = tools.map((tool) => tool.name);
    assert(["terminal", "process", "read_file", "write_file"].every((name) => names.includes(name)), names);
    return `${names.length} tools`;
  },
  async call(client) {
    const seen = await terminal(client, "echo out; echo err >&2; exit 3");
    assert(seen.text.includes("out\nerr"), seen);
    return seen.text;
  },
  async job(client) {
    await call(client, "write_file", { path: "draw.py", content: given.program });
    const ran = await terminal(client, "python3 draw.py");
    assert(ran.text.includes("drawn 64"), ran);
    const seen = await call(client, "read_file", { path: "picture.png" });
    assert(!seen.isError, seen);
    return seen.text;
  },
  async picture(client) {
    const seen = await call(client, "read_file", { path: "picture.png" });
    assert(seen.pictures === 1, seen);
    return seen.text;
  },
  async error(client) {
    const seen = await call(client, "read_file", { path: "no-such-file" });
    assert(seen.isError && seen.text.includes("no-such-file"), seen);
    const next = await terminal(client, "echo and on");
    assert(next.text.includes("and on"), next);
    return seen.text;
  },
  async structured(client) {
    const seen = await call(client, "terminal", { command: "exit 42" }, {}, { "taskcell/structured": true });
    assert(seen.fields && seen.fields.exit_code === 42, seen);
    return JSON.stringify(seen.fields);
  },
  async progress(client) {
    const said = [];
    const onprogress = ({ message }) => said.push(message ?? "");
    await terminal(client, "for n in 1 2 3; do echo line $n; sleep 0.3; done", { onprogress });
    assert(said.some((one) => one.includes("line")), said);
    return said.join("; ");
  },
  async resources(client) {
    await terminal(client, "echo content-of-a-file > listed.txt");
    const { resources } = await client.listResources();
    const { uri } = resources.find((one) => one.uri.endsWith("listed.txt"));
    const { contents } = await client.readResource({ uri });
    assert(contents[0].text.includes("content-of-a-file"), contents);
    return uri;
  },
  async cancel(client) {
    const started = decided(ENDLESS);
    const controller = new AbortController();
    const running = terminal(client, ENDLESS, { signal: controller.signal }).catch((error) => error);
    await eventually(() => decided(ENDLESS) > started, "the call has arrived");
    controller.abort("enough");
    await running;
    await nothingRuns(client);
    return "the command has ended";
  },
  async "time-out"(client) {
    const options = { timeout: SHORT };
    const error = await terminal(client, ENDLESS, options, { wait: PATIENCE / 1000 }).catch((one) => one);
    assert(error instanceof Error, error);
    await nothingRuns(client);
    return String(error);
  },
};

async function cleanExit() {
  const notes = () => readFileSync(join(given.folder, "exits"), "utf8").trim().split("\n");
  const isAlive = (pid) => existsSync(`/proc/${pid}`);
  const started = notes().filter((note) => note.startsWith("start")).map((note) => note.split(" ")[1]);
  await eventually(() => !started.some(isAlive), "every server has ended");
  const codes = notes().filter((note) => note.startsWith("exit"));
  assert(!codes.some((code) => code.startsWith("exit -")), codes);
  assert(codes.length === 0 || codes.includes("exit 0"), codes);
  return `${started.length} servers`;
}

async function make(check, made) {
  try {
    report(check, "held", await made());
  } catch (error) {
    console.error(error);
    report(check, "failed", error);
  }
}

const client = await connect();
for (const [check, made] of Object.entries(checks)) await make(check, () => made(client));
await client.close();
await make("clean exit", cleanExit);
report("default time-out", "fact", JSON.stringify(DEFAULT_REQUEST_TIMEOUT_MSEC / 1000));
