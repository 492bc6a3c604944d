// A session of the TypeScript SDK 1.x: reads a plan from standard input, writes one line of JSON for each step.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { play } from "./session.mjs";

const require = createRequire(process.env.NODE_PATH + "/");
const load = (name) => import(pathToFileURL(require.resolve(`@modelcontextprotocol/sdk/${name}`)));
const { Client } = await load("client/index.js");
const { StreamableHTTPClientTransport } = await load("client/streamableHttp.js");
const { ElicitRequestSchema } = await load("types.js");

await play(async (plan, answer) => {
  const client = new Client({ name: "typescript-v1", version: "1" }, { capabilities: { elicitation: {} } });
  client.setRequestHandler(ElicitRequestSchema, answer);
  const headers = { Authorization: `Bearer ${plan.token}` };
  await client.connect(new StreamableHTTPClientTransport(new URL(plan.url), { requestInit: { headers } }));
  return {
    list: async () => (await client.listTools()).tools,
    call: (call, options) => client.callTool(call, undefined, options),
    close: () => client.close(),
  };
});
