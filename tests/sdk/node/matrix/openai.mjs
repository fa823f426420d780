// The OpenAI SDK.

import OpenAI from "openai";

import { all, ASK, cancelled, CHAT, HELLO, QUESTION, refusals, scenario, WEATHER } from "./common.mjs";

const MODEL = "gpt-4o-mini";
const TOOL = { type: "function", function: { name: "get_weather", description: "Weather", parameters: WEATHER } };
const RESPONSES_TOOL = { type: "function", name: "get_weather", parameters: WEATHER, strict: false };

const client = (side) => new OpenAI({ baseURL: side.roots.openai, apiKey: side.key, maxRetries: 0 });
const chat = (side, more = {}, options = {}) =>
  client(side).chat.completions.create({ model: MODEL, messages: CHAT, ...more }, options);
const responses = (side, more = {}, options = {}) =>
  client(side).responses.create({ model: MODEL, input: HELLO, ...more }, options);

scenario("openai_chat", (side) => chat(side));
scenario("openai_chat_tools", (side) => chat(side, { messages: QUESTION, tools: [TOOL] }));
scenario("openai_chat_stream", (side) => all(chat(side, { stream: true })));
scenario("openai_chat_stream_usage", (side) =>
  all(chat(side, { stream: true, stream_options: { include_usage: true } })),
);
scenario("openai_chat_stream_tools", (side) => all(chat(side, { messages: QUESTION, tools: [TOOL], stream: true })));
scenario("openai_chat_stream_helper", (side) =>
  client(side).chat.completions.stream({ model: MODEL, messages: CHAT }).finalChatCompletion(),
);
scenario("openai_responses", (side) => responses(side));
scenario("openai_responses_stream", (side) => all(responses(side, { stream: true })));
scenario("openai_responses_tools", (side) => responses(side, { input: ASK, tools: [RESPONSES_TOOL] }));
scenario("openai_embeddings", (side) =>
  client(side).embeddings.create({ model: "text-embedding-3-small", input: ["one", "two"] }),
);
scenario("openai_models", (side) => all(client(side).models.list()));

refusals(
  "openai",
  (side, headers, suffix) => chat(side, { model: MODEL + "-node" + suffix }, { headers }),
  ({ status, error, code, param, type, message }) => ({ status, error, code, param, type, message }),
);

cancelled("openai", (side, headers, signal) => chat(side, { stream: true }, { headers, signal }));
cancelled("openai_responses", (side, headers, signal) => responses(side, { stream: true }, { headers, signal }));
