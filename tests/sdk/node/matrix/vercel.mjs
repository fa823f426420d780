// Vercel's `ai` with its providers for OpenAI, Anthropic and Google.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, jsonSchema, streamText, tool } from "ai";

import { all, ASK, cancelled, differs, HELLO, refusals, scenario, SYSTEM, WEATHER } from "./common.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

differs("id", /^aitxt-[A-Za-z0-9]+$|^[A-Za-z0-9]{16}$/, "the library makes up ids where a vendor has none");
differs("toolCallId", /^[A-Za-z0-9]{16}$/, "and those of tool calls, which Gemini has none of");
differs("timestamp", /^20\d\d-/, "the library takes the time where a vendor tells none");
differs("headers", /./, "the head of the answer, which is about the connection");
differs("requestId", /./, "the same");

const PROVIDERS = {
  openai: (side, headers, suffix) =>
    createOpenAI({ baseURL: side.roots.openai, apiKey: side.key, headers }).chat("gpt-4o-mini" + suffix),
  openai_responses: (side, headers, suffix) =>
    createOpenAI({ baseURL: side.roots.openai, apiKey: side.key, headers }).responses("gpt-4o-mini" + suffix),
  anthropic: (side, headers, suffix) =>
    createAnthropic({ baseURL: side.roots.vercel_anthropic, apiKey: side.key, headers })("claude-sonnet-4-5" + suffix),
  google: (side, headers, suffix) =>
    createGoogleGenerativeAI({ baseURL: side.roots.google_beta, apiKey: side.key, headers })(
      "gemini-2.5-flash" + suffix,
    ),
};

const TOOLS = { get_weather: tool({ description: "Weather", inputSchema: jsonSchema(WEATHER) }) };

function scenarios(provider, make) {
  const name = "vercel_" + provider;
  const call = (side, more = {}, headers = {}, suffix = "") => ({
    model: make(side, headers, suffix),
    system: SYSTEM,
    prompt: HELLO,
    maxRetries: 0,
    onError: () => {},
    ...more,
  });
  const made = ({ text, toolCalls, finishReason, usage, response }) => ({
    text,
    toolCalls,
    finishReason,
    usage,
    response,
  });
  const plain = async (side, more) => made(await generateText(call(side, more)));
  const streamed = async (side, more) => all(streamText(call(side, more)).fullStream);

  scenario(name, (side) => plain(side));
  scenario(name + "_tools", (side) => plain(side, { prompt: ASK, tools: TOOLS }));
  scenario(name + "_stream", (side) => streamed(side));
  scenario(name + "_stream_tools", (side) => streamed(side, { prompt: ASK, tools: TOOLS }));
  refusals(
    name,
    (side, headers, suffix) => generateText(call(side, {}, headers, `-${name}${suffix}`)),
    ({ name, statusCode, responseBody, data, isRetryable, message }) => ({
      name,
      statusCode,
      responseBody,
      data,
      isRetryable,
      message,
    }),
  );
  cancelled(name, (side, headers, abortSignal) => streamText(call(side, { abortSignal }, headers)).textStream);
}

for (const [provider, make] of Object.entries(PROVIDERS)) scenarios(provider, make);
