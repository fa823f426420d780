// What the official Node SDKs make of a refusal: whether they give up at once
// or wait and are served. Told and telling as retries.py.

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const task = JSON.parse(process.argv[2]);
const tokens = JSON.parse(process.env.RETRIES_TOKENS);
const hello = [{ role: "user", content: "Say hello." }];

const sdks = {
  openai_node: (gateway, key) => {
    const client = new OpenAI({ baseURL: gateway + "/v1/openai", apiKey: key });
    return () => client.chat.completions.create({ model: "gpt-4o-mini", messages: hello, max_tokens: 20 });
  },
  anthropic_node: (gateway, key) => {
    const client = new Anthropic({ baseURL: gateway + "/v1/anthropic", apiKey: key });
    return () => client.messages.create({ model: "claude-sonnet-4-5", max_tokens: 20, messages: hello });
  },
};

const post = (url, body, headers) =>
  fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  }).then(async (answer) => {
    await answer.arrayBuffer();
    return answer.status;
  });

/** One more request of a bot, without any SDK. */
const plain = (kase, name, headers) =>
  post(
    task.gateways[kase] + "/v1/openai/chat/completions",
    { model: "gpt-4o-mini", messages: hello },
    { authorization: "Bearer " + tokens[kase][name], ...headers },
  );

async function untilRefused(kase, name) {
  for (let turn = 0; turn < 100; turn++) {
    if ((await plain(kase, name, {})) === 429) return;
  }
  throw new Error("never refused");
}

/** Takes the node's only place for a second and a half; says how to wait for its end. */
async function occupied(kase) {
  const mine = "holder-" + process.pid;
  const held = plain(kase, "holder", { "x-mock-delay": "1500", "x-request-id": mine });
  for (;;) {
    const now = await (await fetch(task.mock + "/__mock/inflight")).json();
    if (now.requests.some((request) => request.request_id === mine)) return () => held;
  }
}

async function measure(kase, name, call) {
  let ended = async () => {};
  if (kase === "rate") await untilRefused(kase, name);
  else if (kase === "shed") ended = await occupied(kase);
  else if (kase === "overloaded") {
    await post(task.mock + "/__mock/rules", { credential: task.credential, knobs: { status: 529 }, times: 1 }, {});
  }
  const began = performance.now();
  let served = true;
  let code = null;
  try {
    await call();
  } catch (error) {
    served = false;
    const body = error.error?.error ?? error.error ?? {};
    code = body.code ?? body.type ?? String(error);
  }
  const seconds = (performance.now() - began) / 1000;
  await ended();
  console.log(JSON.stringify({ case: kase, name, served, code, seconds }));
}

for (const [name, make] of Object.entries(sdks)) {
  // An SDK's first call loads half of it.
  await make(task.gateways.rate, tokens.rate.holder)();
  for (const [kase, gateway] of Object.entries(task.gateways)) {
    await measure(kase, name, make(gateway, tokens[kase][name]));
  }
}
