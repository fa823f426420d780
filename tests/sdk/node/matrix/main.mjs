// Runs every scenario of every Node SDK on both sides; told and telling as
// ../../matrix/main.py.

import "./anthropic.mjs";
import "./google.mjs";
import "./openai.mjs";
import "./vercel.mjs";

import { comparable, Cut, SCENARIOS } from "./common.mjs";

const task = JSON.parse(process.argv[2]);
const keys = JSON.parse(process.env.MATRIX_KEYS);

for (const [name, roots] of Object.entries(task.sides)) {
  const side = { name, roots, key: keys[name], mock: task.mock };
  for (const [scenario, run] of SCENARIOS) {
    const line = { side: name, name: "node_" + scenario, seconds: null };
    try {
      let result = await run(side);
      if (result instanceof Cut) {
        line.seconds = result.seconds;
        result = result.pieces;
      }
      line.dump = comparable(JSON.parse(JSON.stringify(result)));
    } catch (error) {
      line.failed = String(error);
    }
    console.log(JSON.stringify(line));
  }
}
process.exit(0);
