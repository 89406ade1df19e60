// The official JavaScript SDKs against a running gateway: one line of JSON per check.
// Called by test_javascript.py as: node check.mjs BASE_URL KEY MODULES
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [, , url, key, modules] = process.argv;
const require = createRequire(`${modules}/node_modules/`);
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { default: OpenAI } = await load("openai");
const { default: Anthropic } = await load("@anthropic-ai/sdk");
const { GoogleGenAI } = await load("@google/genai");

const model = "MiniMax-M3";
const PAUSED = "MiniMax-M2.1"; // only refusals are asked of it, as those pause a model
// Five broken replies in a row pause a model, so each kind has one of its own.
const BROKEN = { break: "MiniMax-M2.5-highspeed", cut: "MiniMax-M2", trip: "MiniMax-M2.5" };
const HELLO = "Hello, Wörld 👋! It's “fine”.";
const THOUGHT = "The user wants a\nhello — easy.";
const CITY = { city: "Zürich", days: 3 };
const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const ask = (content) => [{ role: "user", content }];
const fails = async (run, status) => {
  try {
    await run();
  } catch (error) {
    if (status) assert.equal(error.status, status, String(error));
    return error;
  }
  assert.fail("it succeeded");
};

const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
const google = (version) =>
  new GoogleGenAI({ apiKey: key, vertexai: false, httpOptions: { baseUrl: url, apiVersion: version } });
const functions = [{ type: "function", function: { name: "get_weather", parameters: schema } },
  { type: "function", function: { name: "get_time", parameters: { type: "object", properties: {} } } }];
const tools = [{ name: "get_weather", input_schema: schema }, { name: "get_time", input_schema: { type: "object" } }];

const checks = {
  async openai_text() {
    const reply = await openai.chat.completions.create({ model, messages: ask("hello") });
    assert.equal(reply.choices[0].message.content, HELLO);
    assert.equal(reply.usage.total_tokens, 155);
  },
  async openai_text_streamed() {
    let text = "";
    const stream = await openai.chat.completions.create({ model, messages: ask("hello"), stream: true });
    for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
    assert.equal(text, HELLO);
  },
  async openai_thinking_streamed() {
    let thought = "";
    const stream = await openai.chat.completions.create({ model, messages: ask("think"), stream: true });
    for await (const chunk of stream) thought += chunk.choices[0].delta.reasoning_content ?? "";
    assert.equal(thought, THOUGHT);
  },
  async openai_tools() {
    const reply = await openai.chat.completions.create({ model, messages: ask("tools"), tools: functions });
    const calls = reply.choices[0].message.tool_calls;
    assert.deepEqual(calls.map((c) => c.function.name), ["get_weather", "get_time"]);
    const results = calls.map((c) => ({ role: "tool", tool_call_id: c.id, content: "sunny" }));
    const messages = [...ask("tools"), reply.choices[0].message, ...results];
    const answer = await openai.chat.completions.create({ model, messages, tools: functions });
    assert.equal(answer.choices[0].message.content, "It is sunny in Zürich.");
  },
  async openai_tools_streamed() {
    const runner = openai.chat.completions.stream({ model, messages: ask("tools"), tools: functions });
    const message = await runner.finalMessage();
    assert.deepEqual(JSON.parse(message.tool_calls[0].function.arguments), CITY);
    assert.equal(message.tool_calls.length, 2);
  },
  async openai_errors() {
    await fails(() => openai.chat.completions.create({ model: PAUSED, messages: ask("fail 429") }), 429);
    await fails(() => openai.chat.completions.create({ model: "none", messages: ask("hello") }), 404);
    const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: "sk-none", maxRetries: 0 });
    await fails(() => stranger.chat.completions.create({ model, messages: ask("hello") }), 401);
    for (const word of ["break", "cut", "trip"]) {
      await fails(async () => {
        const stream = await openai.chat.completions.create({ model: BROKEN[word], messages: ask(word), stream: true });
        for await (const _ of stream);
      });
    }
  },
  async openai_models() {
    const models = [];
    for await (const m of openai.models.list()) models.push(m.id);
    assert.equal(models.length, 9);
  },
  async anthropic_text() {
    const reply = await anthropic.messages.create({ model, max_tokens: 99, messages: ask("hello") });
    assert.equal(reply.content[0].text, HELLO);
    assert.equal(reply.stop_reason, "end_turn");
    assert.equal(reply.usage.cache_read_input_tokens, 100);
  },
  async anthropic_text_streamed() {
    const reply = await anthropic.messages.stream({ model, max_tokens: 99, messages: ask("hello") }).finalMessage();
    assert.equal(reply.content[0].text, HELLO);
    assert.equal(reply.usage.output_tokens, 35);
  },
  async anthropic_thinking_and_tools() {
    const thinking = { type: "enabled", budget_tokens: 1024 };
    for (const stream of [false, true]) {
      const given = { model, max_tokens: 2048, thinking, tools, messages: ask("tool") };
      const reply = stream ? await anthropic.messages.stream(given).finalMessage() : await anthropic.messages.create(given);
      assert.deepEqual(reply.content.map((b) => b.type), ["thinking", "tool_use"]);
      assert.equal(reply.content[0].thinking, THOUGHT);
      assert.deepEqual(reply.content[1].input, CITY);
      const result = { type: "tool_result", tool_use_id: reply.content[1].id, content: "sunny" };
      const messages = [...ask("tool"), { role: "assistant", content: reply.content }, { role: "user", content: [result] }];
      const answer = await anthropic.messages.create({ ...given, messages });
      assert.equal(answer.content.at(-1).text, "It is sunny in Zürich.");
    }
  },
  async anthropic_parallel_tools() {
    const reply = await anthropic.messages.stream({ model, max_tokens: 99, tools, messages: ask("tools") }).finalMessage();
    assert.deepEqual(reply.content.map((b) => b.type), ["text", "tool_use", "tool_use"]);
  },
  async anthropic_errors() {
    const given = { model, max_tokens: 9 };
    await fails(() => anthropic.messages.create({ ...given, model: "MiniMax-M2.7-highspeed", messages: ask("fail 529") }), 529);
    await fails(() => anthropic.messages.create({ ...given, model: "none", messages: ask("hello") }), 404);
    for (const word of ["break", "cut", "trip"])
      await fails(() => anthropic.messages.stream({ ...given, model: BROKEN[word], messages: ask(word) }).finalMessage());
  },
  async anthropic_models() {
    const models = [];
    for await (const m of anthropic.models.list({ limit: 2 })) models.push(m.id);
    assert.equal(models.filter((id) => !id.startsWith("claude-")).length, 9);
    assert.ok(models.includes("claude-opus-5-5"));
  },
  async gemini_text() {
    for (const version of ["v1beta", "v1"]) {
      const reply = await google(version).models.generateContent({ model, contents: "hello" });
      assert.equal(reply.text, HELLO);
      assert.equal(reply.usageMetadata.totalTokenCount, 155);
    }
  },
  async gemini_text_streamed() {
    let text = "";
    for await (const chunk of await google("v1beta").models.generateContentStream({ model, contents: "hello" }))
      text += chunk.text ?? "";
    assert.equal(text, HELLO);
  },
  async gemini_thinking_and_tools() {
    const config = {
      thinkingConfig: { includeThoughts: true },
      tools: [{ functionDeclarations: [{ name: "get_weather", parametersJsonSchema: schema }, { name: "get_time" }] }],
    };
    const ai = google("v1beta");
    const reply = await ai.models.generateContent({ model, contents: "tool", config });
    const parts = reply.candidates[0].content.parts;
    assert.equal(parts.filter((p) => p.thought).map((p) => p.text).join(""), THOUGHT);
    assert.deepEqual(reply.functionCalls[0].args, CITY);
    const response = { name: "get_weather", response: { output: "sunny" } };
    const contents = [
      { role: "user", parts: [{ text: "tool" }] },
      reply.candidates[0].content,
      { role: "user", parts: [{ functionResponse: response }] },
    ];
    assert.equal((await ai.models.generateContent({ model, contents, config })).text, "It is sunny in Zürich.");
    const names = [];
    for await (const chunk of await ai.models.generateContentStream({ model, contents: "tools", config }))
      for (const call of chunk.functionCalls ?? []) names.push(call.name);
    assert.deepEqual(names, ["get_weather", "get_time"]);
  },
  async gemini_errors() {
    const ai = google("v1beta");
    await fails(() => ai.models.generateContent({ model: PAUSED, contents: "fail 429" }), 429);
    await fails(() => ai.models.generateContent({ model: "none", contents: "hello" }), 404);
    for (const word of ["break", "cut", "trip"])
      await fails(async () => {
        for await (const _ of await ai.models.generateContentStream({ model: BROKEN[word], contents: word }));
      });
  },
  async gemini_models() {
    const models = [];
    for await (const m of await google("v1beta").models.list()) models.push(m.name);
    assert.equal(models.length, 9);
  },
};

if (!url) {
  console.log(JSON.stringify(Object.keys(checks)));
} else {
  for (const [name, check] of Object.entries(checks)) {
    let error = null;
    try {
      await check();
    } catch (caught) {
      error = String(caught?.stack ?? caught);
    }
    console.log(JSON.stringify({ name, error }));
  }
  process.exit(0);
}
