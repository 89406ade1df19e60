// One request to Chat Completions as a person would write it: with curl, Python, TypeScript, and in the
// other protocols.  Text in, text out; Node runs it in a test.
//
// The key is always a variable.  JSON goes to curl by a quoted here-document, in which a shell
// reads nothing: no line of JSON is `JSON`.

const TAB = "  ";

const curl = (url, auth, body) =>
  `curl -N '${url}' \\\n${TAB}-H "${auth}" \\\n${TAB}-H 'content-type: application/json' \\\n` +
  `${TAB}--data-binary @- <<'JSON'\n${JSON.stringify(body, null, 2)}\nJSON\n`;

// A JSON value as Python writes it; JSON's strings are Python's too.
function python(value, indent = "") {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const list = Array.isArray(value);
  const inner = indent + TAB + TAB;
  const items = list
    ? value.map((v) => python(v, inner))
    : Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${python(v, inner)}`);
  const [open, close] = list ? "[]" : "{}";
  if (!items.length) return open + close;
  return `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${indent}${close}`;
}

function inPython(base, body) {
  const fields = Object.entries(body).map(([k, v]) => `    ${k}=${python(v, "    ")},\n`);
  return `from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(`${base}/v1`)})  # the key is in OPENAI_API_KEY
stream = client.chat.completions.create(
${fields.join("")})
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
`;
}

function inTypeScript(base, body) {
  // OpenAI's types do not know the thinking that goes back with a turn.
  const thought = body.messages.some((m) => m.reasoning_details || m.reasoning_content);
  const lines = Object.entries(body).map(([k, v]) => {
    const text = JSON.stringify(v, null, 2).replaceAll("\n", `\n${TAB}`);
    const cast = k === "messages" && thought ? " as OpenAI.ChatCompletionMessageParam[]" : "";
    return `${TAB}${k}: ${text}${cast},\n`;
  });
  return `import OpenAI from "openai";

const client = new OpenAI({ baseURL: ${JSON.stringify(`${base}/v1`)} }); // the key is in OPENAI_API_KEY
const stream = await client.chat.completions.create({
${lines.join("")}});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta.content ?? "");
}
`;
}

const without = (fields) =>
  Object.fromEntries(Object.entries(fields).filter(([, v]) => v !== undefined && v !== ""));

const parts = (content) =>
  typeof content === "string" ? [{ type: "text", text: content }] : (content ?? []);

const texts = (content) =>
  parts(content)
    .map((p) => p.text ?? "")
    .join("");

// A data URL's type and data; null for an address.
function inline(url) {
  const found = /^data:([^;,]+);base64,(.*)$/s.exec(url);
  return found && { type: found[1], data: found[2] };
}

function object(text) {
  try {
    const value = JSON.parse(text || "{}");
    return value && typeof value === "object" && !Array.isArray(value) ? value : {};
  } catch {
    return {};
  }
}

const thoughts = (message) =>
  message.reasoning_details ??
  (message.reasoning_content ? [{ text: message.reasoning_content }] : []);

const off = (body) => body.reasoning_effort === "none";

// Turns of one role after another are one turn in the other protocols.
function merged(turns, key) {
  const out = [];
  for (const turn of turns) {
    const last = out.at(-1);
    if (last?.role === turn.role) last[key].push(...turn[key]);
    else out.push(turn);
  }
  return out;
}

export function anthropic(body) {
  const turns = [];
  for (const m of body.messages) {
    if (m.role === "user") turns.push({ role: "user", content: parts(m.content).map(block) });
    if (m.role === "tool") {
      const result = { type: "tool_result", tool_use_id: m.tool_call_id, content: texts(m.content) };
      turns.push({ role: "user", content: [result] });
    }
    if (m.role === "assistant") {
      const content = thoughts(m).map((t) => ({
        type: "thinking",
        thinking: t.text,
        signature: t.signature ?? "",
      }));
      if (texts(m.content)) content.push({ type: "text", text: texts(m.content) });
      for (const c of m.tool_calls ?? []) {
        const { name, arguments: text } = c.function;
        content.push({ type: "tool_use", id: c.id, name, input: object(text) });
      }
      turns.push({ role: "assistant", content });
    }
  }
  return without({
    model: body.model,
    max_tokens: body.max_completion_tokens ?? 8192, // which this protocol must be told
    system: system(body),
    messages: merged(turns, "content"),
    thinking: { type: off(body) ? "disabled" : "adaptive" },
    // Its range ends at 1.
    temperature: body.temperature === undefined ? undefined : Math.min(body.temperature, 1),
    top_p: body.top_p,
    tools: body.tools?.map(({ function: f }) =>
      without({
        name: f.name,
        description: f.description,
        input_schema: f.parameters ?? { type: "object" },
      }),
    ),
    stream: true,
  });
}

function block(part) {
  if (part.type === "text") return part;
  const url = part.image_url.url;
  const own = inline(url);
  return {
    type: "image",
    source: own
      ? { type: "base64", media_type: own.type, data: own.data }
      : { type: "url", url },
  };
}

const system = (body) =>
  body.messages
    .filter((m) => m.role === "system")
    .map((m) => texts(m.content))
    .join("\n\n");

export function gemini(body) {
  const turns = [];
  const names = new Map();
  for (const m of body.messages) {
    if (m.role === "user") turns.push({ role: "user", parts: parts(m.content).map(piece) });
    if (m.role === "tool") {
      const id = m.tool_call_id;
      const response = { output: texts(m.content) };
      const result = { id, name: names.get(id) ?? "", response };
      turns.push({ role: "user", parts: [{ functionResponse: result }] });
    }
    if (m.role === "assistant") {
      const said = thoughts(m).map((t) =>
        without({ text: t.text, thought: true, thoughtSignature: t.signature }),
      );
      if (texts(m.content)) said.push({ text: texts(m.content) });
      for (const c of m.tool_calls ?? []) {
        names.set(c.id, c.function.name);
        const args = object(c.function.arguments);
        said.push({ functionCall: { id: c.id, name: c.function.name, args } });
      }
      turns.push({ role: "model", parts: said });
    }
  }
  const told = system(body);
  const declared = body.tools?.map(({ function: f }) =>
    without({
      name: f.name,
      description: f.description,
      parametersJsonSchema: f.parameters ?? { type: "object" },
    }),
  );
  return without({
    systemInstruction: told ? { parts: [{ text: told }] } : undefined,
    contents: merged(turns, "parts"),
    tools: declared && [{ functionDeclarations: declared }],
    generationConfig: without({
      temperature: body.temperature,
      topP: body.top_p,
      maxOutputTokens: body.max_completion_tokens,
      thinkingConfig: off(body) ? { thinkingBudget: 0 } : { includeThoughts: true },
    }),
  });
}

function piece(part) {
  if (part.type === "text") return { text: part.text };
  const url = part.image_url.url;
  const own = inline(url);
  if (own) return { inlineData: { mimeType: own.type, data: own.data } };
  const ending = /\.(png|webp|gif)(?:[?#]|$)/i.exec(url)?.[1].toLowerCase();
  return { fileData: { mimeType: `image/${ending ?? "jpeg"}`, fileUri: url } };
}

const BEARER = "authorization: Bearer $OPENAI_API_KEY";

export const FORMS = {
  curl: (base, body) => curl(`${base}/v1/chat/completions`, BEARER, body),
  python: inPython,
  typescript: inTypeScript,
  anthropic: (base, body) =>
    curl(`${base}/v1/messages`, "x-api-key: $OPENAI_API_KEY", anthropic(body)),
  gemini: (base, body) =>
    curl(
      `${base}/v1beta/models/${body.model}:streamGenerateContent?alt=sse`,
      "x-goog-api-key: $OPENAI_API_KEY",
      gemini(body),
    ),
};
