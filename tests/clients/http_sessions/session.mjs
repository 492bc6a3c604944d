// What the programs of both TypeScript SDKs share: they play the steps of a plan, and say what came of each.
import { text } from "node:stream/consumers";

// Milliseconds for a step on a busy machine.
const PATIENCE = 60000;

// `connect(plan, answer)` returns { list, call, close }; `answer` handles a question of the server.
export async function play(connect) {
  const plan = JSON.parse(await text(process.stdin));
  let step, asked;
  const answer = async (request) => {
    asked.push(request.params.message);
    return { action: step.answer ?? "cancel" };
  };
  const client = await connect(plan, answer);
  const say = (done) => process.stdout.write(JSON.stringify(done) + "\n");
  say({ name: "tools", tools: (await client.list()).map((tool) => tool.name) });
  for (step of plan.steps) {
    asked = [];
    const progress = [];
    const giveUp = new AbortController();
    const onprogress = (notification) => {
      progress.push(notification.message ?? "");
      if (step.cancel) giveUp.abort("the person has cancelled it");
    };
    const options = { onprogress, signal: giveUp.signal, timeout: step.patience ?? PATIENCE };
    const done = { name: step.name, progress, asked };
    try {
      done.result = await client.call({ name: step.tool, arguments: step.arguments }, options);
    } catch (error) {
      done.error = String(error?.message ?? error);
    }
    say(done);
  }
  await client.close();
  process.exit(0);
}
