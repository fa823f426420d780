// The Anthropic SDK.

import Anthropic from "@anthropic-ai/sdk";

import { all, cancelled, HELLO, QUESTION, refusals, scenario, SYSTEM, WEATHER } from "./common.mjs";

const MODEL = "claude-sonnet-4-5";
const TOOLS = [{ name: "get_weather", description: "Weather", input_schema: WEATHER }];

const messages = (side) =>
  new Anthropic({ baseURL: side.roots.anthropic, apiKey: side.key, maxRetries: 0 }).messages;
const body = (more = {}) => ({
  model: MODEL,
  max_tokens: 1000,
  system: SYSTEM,
  messages: [{ role: "user", content: HELLO }],
  ...more,
});

scenario("anthropic_message", (side) => messages(side).create(body()));
scenario("anthropic_tools", (side) => messages(side).create(body({ messages: QUESTION, tools: TOOLS })));
scenario("anthropic_stream", (side) => all(messages(side).create(body({ stream: true }))));
scenario("anthropic_stream_helper", (side) => messages(side).stream(body()).finalMessage());
scenario("anthropic_stream_tools", (side) =>
  messages(side)
    .stream(body({ messages: QUESTION, tools: TOOLS }))
    .finalMessage(),
);
scenario("anthropic_count_tokens", (side) => {
  const { max_tokens: _, ...counted } = body();
  return messages(side).countTokens(counted);
});

refusals(
  "anthropic",
  (side, headers, suffix) => messages(side).create(body({ model: MODEL + "-node" + suffix }), { headers }),
  ({ status, error, type, message }) => ({ status, error, type, message }),
);

cancelled("anthropic", (side, headers, signal) =>
  messages(side).create(body({ stream: true }), { headers, signal }),
);
