// A session of the TypeScript SDK 2.x in either era: reads a plan from standard input, writes a line for each step.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { play } from "./session.mjs";

const require = createRequire(process.env.NODE_PATH + "/");
const { Client, StreamableHTTPClientTransport } = await import(
  pathToFileURL(require.resolve("@modelcontextprotocol/client"))
);

await play(async (plan, answer) => {
  const mode = plan.era === "legacy" ? "legacy" : { pin: plan.era };
  const capabilities = { elicitation: {} };
  const client = new Client({ name: "typescript-v2", version: "1" }, { capabilities, versionNegotiation: { mode } });
  client.setRequestHandler("elicitation/create", answer);
  const headers = { Authorization: `Bearer ${plan.token}` };
  await client.connect(new StreamableHTTPClientTransport(new URL(plan.url), { requestInit: { headers } }));
  return {
    list: async () => (await client.listTools()).tools,
    call: (call, options) => client.callTool(call, options),
    close: () => client.close(),
  };
});
