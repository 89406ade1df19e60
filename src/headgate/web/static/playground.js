// The playground: conversations with one model or two, sent as any client sends them.
//
// What a model says goes into the page by textContent only.  The key lives in this page's memory.

import { FORMS } from "./playground_code.js";
import { Events, Reply } from "./playground_reply.js";

const $ = (id) => document.getElementById(id);
const root = $("playground");
const words = root.dataset;
const HEARD_MS = 450; // the gateway looks for new keys every 400
const WAIT_MS = 250;
const SETTLE_TRIES = 20; // the books have what ended before its end is told; what was stopped, soon
const SESSION_TRIES = 6;
const SPARE_MS = 60_000; // a key that ends sooner is not begun with
const SAMPLE = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "The weather in a city.",
      parameters: {
        type: "object",
        properties: { city: { type: "string" } },
        required: ["city"],
      },
    },
  },
];

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

class Shown extends Error {} // its message is for the person

// --- the key ---------------------------------------------------------------------------------------

const made = { text: "", id: "", ends_ms: 0 }; // by this machine's clock
let making = null;

// A pasted key, or one that is made once for both models.
async function keyText() {
  const own = $("key").value.trim();
  if (own) return own;
  if (made.text && made.ends_ms - SPARE_MS > Date.now()) return made.text;
  making ??= makeKey().finally(() => (making = null));
  return making;
}

async function makeKey() {
  const headers = { "x-csrf-token": words.csrf, accept: "application/json" };
  const answer = await fetch("/playground/key", { method: "POST", headers }).catch((error) => {
    throw new Shown(`${words.noKey} ${error.message}`);
  });
  if (!answer.ok) throw new Shown(`${words.noKey} ${(await answer.text()).trim()}`);
  const { key, id, lives_s } = await answer.json();
  for (let n = 0; n < SETTLE_TRIES; n++) {
    await wait(HEARD_MS);
    const known = await fetch("/v1/key", { headers: { authorization: `Bearer ${key}` } });
    if (known.status !== 401) break;
  }
  Object.assign(made, { text: key, id, ends_ms: Date.now() + lives_s * 1000 });
  tellKey();
  return key;
}

function tellKey() {
  const time = new Date(made.ends_ms).toLocaleTimeString([], {
    hour: "2-digit",
    minute: "2-digit",
  });
  let said = $("key_state").dataset.none;
  if (made.text) said = words.keyUntil.replace("{id}", made.id).replace("{time}", time);
  if ($("key").value.trim()) said = words.keyOwn;
  $("key_state").textContent = said;
}

// --- the form --------------------------------------------------------------------------------------

function number(id, low, high, whole = false) {
  const text = $(id).value.trim().replace(",", ".");
  if (!text) return undefined;
  const value = Number(text);
  const good = value >= low && value <= high && (!whole || Number.isInteger(value));
  if (good) return value;
  $("settings").open = true;
  $(id).focus();
  throw new Shown(`${words.badNumber} ${text} (${low}…${high})`);
}

function tools() {
  const text = $("tools").value.trim();
  if (!text) return undefined;
  let why = "";
  try {
    const list = JSON.parse(text);
    if (Array.isArray(list)) return list.length ? list : undefined;
  } catch (error) {
    why = error.message;
  }
  $("settings").open = true;
  $("tools").focus();
  throw new Shown(`${words.badTools} ${why}`);
}

// All of a request but the model, the messages and the conversation's name.
const settings = () => ({
  stream: true,
  stream_options: { include_usage: true },
  temperature: number("temperature", 0, 2),
  top_p: number("top_p", 0, 1),
  max_completion_tokens: number("most", 1, 10 ** 9, true),
  reasoning_effort: $("effort").value || undefined,
  tools: tools(),
});

function written() {
  const text = $("text").value;
  const url = $("image").value.trim();
  if (!url) return text.trim() ? { role: "user", content: text } : null;
  const image = { type: "image_url", image_url: { url } };
  const said = text.trim() ? [{ type: "text", text }] : [];
  return { role: "user", content: [...said, image] };
}

// --- one model's conversation ------------------------------------------------------------------------

const clone = (id) => $(id).content.firstElementChild.cloneNode(true);

class Column {
  constructor(element) {
    this.element = element;
    this.model = element.querySelector("select.model");
    this.turns = element.querySelector(".turns");
    element.querySelector(".view").addEventListener("click", () => viewAs(this));
    this.clear();
  }

  get on() {
    return this.model.value !== "";
  }

  // Replies with tool calls are answered before anything else is said.
  get waiting() {
    return this.turns.querySelector(".calls:not([hidden]) textarea:enabled");
  }

  clear() {
    this.abort?.abort();
    this.abort = null;
    this.history = [];
    this.sent = null;
    this.ids = new Set(); // of requests
    this.session = `playground-${crypto.randomUUID?.() ?? Math.random().toString(36).slice(2)}`;
    this.turns.replaceChildren();
  }

  // Go on where the other one is.
  follow(other) {
    this.clear();
    if (other.abort || other.waiting) return;
    this.history = structuredClone(other.history);
    this.turns.replaceChildren(...[...other.turns.children].map((turn) => turn.cloneNode(true)));
    for (const button of this.turns.querySelectorAll(".again")) button.remove();
  }

  // Whoever reads the end goes on doing so, whatever is added.
  keepLow(change) {
    const low = atEnd(this.turns);
    change();
    if (low) this.turns.scrollTop = this.turns.scrollHeight;
  }

  body(messages, rest = settings()) {
    const told = $("system").value.trim();
    const system = told ? [{ role: "system", content: told }] : [];
    const model = this.model.value;
    const all = { model, messages: [...system, ...messages], ...rest };
    all.prompt_cache_key = this.session;
    return Object.fromEntries(Object.entries(all).filter(([, v]) => v !== undefined));
  }

  say(message) {
    for (const button of this.turns.querySelectorAll(".again")) button.remove(); // too late for it
    this.history.push(message);
    const turn = clone("user_turn");
    const list = Array.isArray(message.content) ? message.content : [{ text: message.content }];
    turn.querySelector(".said").textContent = list.map((p) => p.text ?? "").join("");
    turn.querySelector(".image").textContent = list.map((p) => p.image_url?.url ?? "").join("");
    this.turns.append(turn);
  }

  // Unless another one runs by now.
  over(abort) {
    if (this.abort !== abort) return;
    this.abort = null;
    this.turns.removeAttribute("aria-busy");
    busy();
  }

  async run() {
    const turn = new Turn(this);
    const abort = (this.abort = new AbortController());
    this.turns.setAttribute("aria-busy", "true");
    busy();
    try {
      this.sent = this.body(this.history);
      const key = await keyText();
      await turn.stream(this.sent, key, abort);
    } catch (error) {
      turn.failed(error instanceof Shown ? error.message : String(error));
    } finally {
      this.over(abort);
    }
  }
}

// --- one reply ---------------------------------------------------------------------------------------

class Turn {
  constructor(column) {
    this.column = column;
    this.history = column.history; // of this conversation, should another begin meanwhile
    this.element = clone("reply_turn");
    for (const name of ["thinking", "thought", "said", "calls", "again", "figures"]) {
      this[name] = this.element.querySelector(`.${name}`);
    }
    [this.bad, this.warn] = this.element.querySelectorAll(".note");
    this.element.classList.add("running");
    this.again.addEventListener("click", () => {
      if (this.column.abort) return;
      if (this.kept && this.history.at(-1) === this.kept) this.history.pop();
      this.element.remove();
      this.column.run();
    });
    column.turns.append(this.element);
    column.turns.scrollTop = column.turns.scrollHeight;
  }

  async stream(body, key, abort) {
    const { signal } = abort;
    const reply = new Reply();
    const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
    const times = { began: performance.now(), first: 0, ended: 0 };
    let answer = null;
    let stopped = false;
    try {
      const request = { method: "POST", headers, body: JSON.stringify(body), signal };
      answer = await fetch("/v1/chat/completions", request);
      if (!answer.ok) await this.refused(answer, reply);
      else await this.read(answer.body, reply, times);
    } catch (error) {
      stopped = signal.aborted;
      if (!stopped) reply.error = { message: `${words.unreachable} ${error.message}` };
    }
    times.ended = performance.now();
    this.element.classList.remove("running");
    this.column.keepLow(() => this.ended(reply, stopped));
    this.column.over(abort); // what follows is only looked up
    await this.figure(reply, answer, times, key, stopped);
  }

  async read(stream, reply, times) {
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    const events = new Events();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      for (const data of events.feed(value)) this.add(reply, reply.feed(data), times);
    }
  }

  add(reply, added, times) {
    if (!times.first && (added.thinking || added.text || added.calls)) times.first = performance.now();
    this.column.keepLow(() => this.show(reply, added));
  }

  show(reply, added) {
    if (added.thinking) {
      this.thinking.hidden = false;
      const near = atEnd(this.thought);
      this.thought.append(added.thinking);
      if (near) this.thought.scrollTop = this.thought.scrollHeight;
    }
    if (added.text) this.said.append(added.text);
    if (added.calls) this.call(reply.calls);
  }

  call(calls) {
    this.calls.hidden = false;
    calls.forEach((call, n) => {
      const box = this.calls.querySelectorAll(".call")[n] ?? clone("call");
      if (!box.parentNode) this.calls.lastElementChild.before(box);
      box.querySelector("strong").textContent = call.name;
      box.querySelector("pre").textContent = pretty(call.arguments);
    });
  }

  async refused(answer, reply) {
    const text = await answer.text();
    try {
      reply.error = JSON.parse(text).error;
    } catch {
      reply.error = null;
    }
    reply.error ??= { message: `${answer.status} ${text.slice(0, 500)}` };
    if (answer.status === 401) Object.assign(made, { text: "" });
  }

  ended(reply, stopped) {
    const { error, finish } = reply;
    const cut = !finish && !error && !stopped;
    if (error) this.failed([error.message, error.code && `(${error.code})`].filter(Boolean).join(" "));
    else if (stopped) this.note(words.stopped);
    else if (cut) this.failed(words.cut);
    else if (finish === "length") this.note(words.length);
    else if (finish === "content_filter") this.note(words.filtered);
    else if (reply.empty) this.note(words.nothing);
    if (!reply.empty) this.history.push((this.kept = reply.message()));
    if (finish && !error && reply.calls.length) this.answerable(reply.calls);
    else this.calls.querySelector("button").hidden = true;
    if (!finish) for (const box of this.calls.querySelectorAll("label")) box.hidden = true;
  }

  answerable(calls) {
    const fields = [...this.calls.querySelectorAll("textarea")];
    this.calls.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.column.abort || fields[0].disabled) return;
      calls.forEach((call, n) => {
        const result = { role: "tool", tool_call_id: call.id, content: fields[n].value };
        this.history.push(result);
        fields[n].disabled = true;
      });
      this.calls.querySelector("button").hidden = true;
      this.column.run();
    });
    if (this.column === first) fields[0].focus({ preventScroll: true });
  }

  failed(text) {
    this.element.classList.remove("running");
    this.bad.textContent = text;
    this.bad.hidden = this.again.hidden = false;
  }

  note(text) {
    this.warn.textContent = `${this.warn.textContent} ${text}`.trim();
    this.warn.hidden = false;
  }

  // What the reply took: tokens and money from the gateway's books, times as they were seen here.
  async figure(reply, answer, times, key, stopped) {
    const { column } = this;
    const warnings = answer?.headers.get("x-headgate-warnings");
    if (warnings) this.note(`${words.noted} ${warnings}`);
    const usage = reply.usage ?? {};
    const shown = {
      input: usage.prompt_tokens,
      cached: usage.prompt_tokens_details?.cached_tokens,
      output: usage.completion_tokens,
      reasoning: usage.completion_tokens_details?.reasoning_tokens,
      first: times.first ? times.first - times.began : null,
      total: times.ended - times.began,
      stream: times.first ? times.ended - times.first : 0,
      via: answer?.headers.get("x-headgate-upstream") ?? "",
      id: (reply.id.replace("chatcmpl-", "") || answer?.headers.get("x-request-id")) ?? "",
    };
    if (answer && !answer.ok) {
      this.figures.textContent = shown.id ? `${words.request} ${shown.id}` : "";
      if (!(await booked(shown.id, key, 1))) return; // refused before an upstream was asked
    }
    this.tell(shown, words.settling, null);
    let row = null;
    if (shown.id) row = await booked(shown.id, key, SETTLE_TRIES);
    else if (stopped) row = await lastOf(column, key);
    column.ids.add(shown.id || row?.request_id);
    if (!row) {
      this.tell(shown, shown.id ? words.unsettled : "", null);
      return;
    }
    const cost = row.cost_usd === null ? words.unknown : `$${row.cost_usd}`;
    const recorded = {
      input: row.input_tokens,
      cached: row.cached_tokens,
      output: row.output_tokens,
      reasoning: row.reasoning_tokens,
      id: row.request_id,
    };
    this.tell({ ...shown, ...recorded }, cost, row.request_id);
  }

  tell(shown, cost, link) {
    const said = [];
    const say = (value, label, after = false) => {
      if (value !== undefined && value !== null && value !== "") said.push([value, label, after]);
    };
    for (const name of ["input", "cached", "output", "reasoning"]) {
      say(shown[name]?.toLocaleString(), words[name]);
    }
    say(cost, words.cost);
    say(shown.first === null ? null : `${Math.round(shown.first)} ms`, words.first);
    say(`${Math.round(shown.total)} ms`, words.total);
    const rate = shown.stream > 0 && shown.output ? (shown.output * 1000) / shown.stream : null;
    say(rate?.toFixed(1), words.rate);
    say(shown.via, words.via);
    const items = said.map(([value, label]) => {
      const item = document.createElement("span");
      const figure = document.createElement("b");
      figure.textContent = value;
      item.append(`${label} `, figure);
      return item;
    });
    if (link) {
      const anchor = document.createElement("a");
      anchor.href = `/requests/${encodeURIComponent(link)}`;
      anchor.textContent = words.request;
      items.push(anchor);
    }
    this.column.keepLow(() => this.figures.replaceChildren(...items));
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // not whole yet, or never
  }
}

const atEnd = (box) => box.scrollHeight - box.scrollTop - box.clientHeight < 40;

async function asked(path, key, found) {
  const headers = { authorization: `Bearer ${key}` };
  const answer = await fetch(path, { headers }).catch(() => null);
  return answer?.ok ? found(await answer.json()) : null;
}

async function booked(id, key, tries) {
  for (let n = 0; n < tries; n++) {
    const row = await asked(`/v1/generations/${encodeURIComponent(id)}`, key, (found) => found);
    if (row) return row;
    if (n + 1 < tries) await wait(WAIT_MS);
  }
  return null;
}

// The row of a request that was stopped before we heard its id, if an upstream was asked at all.
async function lastOf(column, key) {
  for (let n = 0; n < SESSION_TRIES; n++) {
    const rows = await asked(`/v1/sessions/${column.session}`, key, (found) => found.generations);
    const row = rows?.findLast((one) => !column.ids.has(one.request_id));
    if (row) return row;
    await wait(WAIT_MS);
  }
  return null;
}

// --- the page ----------------------------------------------------------------------------------------

const columns = [...root.querySelectorAll(".column")].map((element) => new Column(element));
const [first, second] = columns;

function busy() {
  const some = columns.some((column) => column.abort);
  $("stop").hidden = !some;
  $("send").disabled = some;
}

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

function send() {
  if ($("send").disabled) return;
  problem("");
  const used = columns.filter((column) => column.on);
  try {
    settings();
    const waiting = used.find((column) => column.waiting);
    if (waiting) {
      waiting.waiting.focus();
      throw new Shown(words.answerFirst);
    }
  } catch (error) {
    problem(error.message);
    return;
  }
  const message = written();
  if (!message || !used.length) {
    $("text").focus();
    return;
  }
  for (const column of used) {
    column.say(message);
    column.run();
  }
  $("text").value = $("image").value = "";
}

function arrange() {
  $("columns").classList.toggle("two", second.on);
  const blind = columns.some((c) => c.on && !("image" in c.model.selectedOptions[0].dataset));
  $("blind").hidden = !blind;
}

let viewed = null;
let form = "curl";

function viewAs(column) {
  const message = written();
  let body = column.sent;
  let said = message || !body ? words.now : words.last;
  try {
    if (message || !body) body = column.body(message ? [...column.history, message] : column.history);
  } catch (error) {
    problem(error.message);
    return;
  }
  if (!body.messages.some((m) => m.role !== "system")) {
    body = column.body([{ role: "user", content: "Say hello." }]);
    said = words.sample;
  }
  viewed = body;
  $("code_what").textContent = said;
  writeCode();
  $("code").showModal();
}

function writeCode() {
  for (const button of $("code").querySelectorAll("[data-form]")) {
    button.setAttribute("aria-pressed", String(button.dataset.form === form));
  }
  $("code_text").textContent = FORMS[form](words.base, viewed);
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
root.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
  event.preventDefault();
  (event.target.closest("form.calls") ?? $("composer")).requestSubmit();
});
$("stop").addEventListener("click", () => columns.forEach((column) => column.abort?.abort()));
$("anew").addEventListener("click", () => {
  columns.forEach((column) => column.clear());
  problem("");
  busy();
  $("text").focus();
});
$("sample").addEventListener("click", () => {
  $("tools").value = JSON.stringify(SAMPLE, null, 2);
});
$("key").addEventListener("input", tellKey);
first.model.addEventListener("change", arrange);
second.model.addEventListener("change", () => {
  if (!second.on) second.clear();
  else if (!second.history.length) second.follow(first);
  arrange();
  busy();
});
$("code").addEventListener("click", (event) => {
  if (event.target.dataset.form) {
    form = event.target.dataset.form;
    writeCode();
  }
  if (event.target.id === "code_close" || event.target === $("code")) $("code").close();
});

root.hidden = $("anew").hidden = false;
if (matchMedia("(max-width: 1100px)").matches) $("settings").open = false;
tellKey();
arrange();
busy();
