// The Vercel AI SDK in a tool loop of its own: `node vercel.mjs PROVIDER URL KEY MODEL=MARK ...`.
// Runs with the packages of .cache/retention, where run.py copies it.
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

const [provider, url, key, ...pairs] = process.argv.slice(2);
const again = "And then?";

const makers = {
  compatible: async () =>
    (await import("@ai-sdk/openai-compatible")).createOpenAICompatible({
      name: "headgate", baseURL: `${url}/v1`, apiKey: key,
    }),
  chat: async () =>
    (await import("@ai-sdk/openai")).createOpenAI({ baseURL: `${url}/v1`, apiKey: key }).chat,
  responses: async () =>
    (await import("@ai-sdk/openai")).createOpenAI({ baseURL: `${url}/v1`, apiKey: key }).responses,
  anthropic: async () =>
    (await import("@ai-sdk/anthropic")).createAnthropic({ baseURL: `${url}/v1`, apiKey: key }),
  google: async () =>
    (await import("@ai-sdk/google")).createGoogleGenerativeAI({
      baseURL: `${url}/v1beta`, apiKey: key,
    }),
};
const options = {
  anthropic: { anthropic: { thinking: { type: "enabled", budgetTokens: 2000 } } },
  google: { google: { thinkingConfig: { includeThoughts: true } } },
  responses: {
    openai: {
      store: false, include: ["reasoning.encrypted_content"], reasoningSummary: "auto",
      forceReasoning: true,
    },
  },
};
const place = { type: "object", properties: { place: { type: "string" } }, required: ["place"] };
const tools = {
  find: tool({ inputSchema: jsonSchema(place), execute: async (a) => `${a.place}: found.` }),
  ping: tool({
    inputSchema: jsonSchema({ type: "object", properties: {} }), execute: async () => "pong",
  }),
};

const make = await makers[provider]();
for (const pair of pairs) {
  const [model, mark] = pair.split(/=(.*)/s);
  const given = {
    model: make(model), tools, stopWhen: stepCountIs(30), maxRetries: 0,
    providerOptions: options[provider], onError: ({ error }) => { throw error; },
  };
  try {
    const messages = [{ role: "user", content: `${mark} Find a way from Zürich to Bern.` }];
    const streamed = streamText({ ...given, messages });
    await streamed.consumeStream();
    messages.push(...(await streamed.response).messages, { role: "user", content: again });
    await generateText({ ...given, messages });
  } catch (error) {
    console.log(`${mark} ${error.name}: ${String(error.message).slice(0, 300)}`);
  }
}
