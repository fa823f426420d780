// Google's Gen AI SDK.

import { GoogleGenAI } from "@google/genai";

import { all, ASK, cancelled, differs, HELLO, refusals, scenario, SYSTEM, WEATHER } from "./common.mjs";

differs("sdkHttpResponse", /./, "the head of the answer, which is about the connection");

const MODEL = "gemini-2.5-flash";
const TOOLS = [{ functionDeclarations: [{ name: "get_weather", parametersJsonSchema: WEATHER }] }];

const models = (side, headers = {}) =>
  new GoogleGenAI({ apiKey: side.key, httpOptions: { baseUrl: side.roots.google, headers } }).models;
const body = (contents, config = {}) => ({ model: MODEL, contents, config: { systemInstruction: SYSTEM, ...config } });

scenario("google_generate", (side) => models(side).generateContent(body(HELLO)));
scenario("google_tools", (side) => models(side).generateContent(body(ASK, { tools: TOOLS })));
scenario("google_stream", (side) => all(models(side).generateContentStream(body(HELLO))));
scenario("google_stream_tools", (side) => all(models(side).generateContentStream(body(ASK, { tools: TOOLS }))));
scenario("google_count_tokens", (side) => models(side).countTokens({ model: MODEL, contents: HELLO }));
scenario("google_embed", (side) => models(side).embedContent({ model: "gemini-embedding-001", contents: HELLO }));

refusals(
  "google",
  (side, headers, suffix) =>
    models(side, headers).generateContent({ ...body(HELLO), model: MODEL + "-node" + suffix }),
  ({ name, status, message }) => ({ name, status, message }),
);

cancelled("google", (side, headers, abortSignal) =>
  models(side, headers).generateContentStream(body(HELLO, { abortSignal })),
);
