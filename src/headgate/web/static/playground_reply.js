// A streamed reply of Chat Completions as it is put together: bytes of server-sent events -> chunks ->
// what was said.  No page and no network here, so that Node runs it in a test.

// The data of the events in what has come; what is not whole yet waits for the rest.
export class Events {
  #rest = "";
  #data = [];

  feed(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    const out = [];
    for (const raw of lines) {
      const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
      if (line.startsWith("data:")) this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      if (line || !this.#data.length) continue;
      out.push(this.#data.join("\n"));
      this.#data = [];
    }
    return out;
  }
}

// One assistant message.  `feed` says what a chunk has added: {thinking, text, calls}.
export class Reply {
  id = "";
  thinking = "";
  text = "";
  calls = []; // {id, name, arguments}
  finish = "";
  usage = null;
  error = null; // {message, code, type}
  done = false; // the last event has come
  #details = [];

  feed(data) {
    const added = { thinking: "", text: "", calls: false };
    if (data === "[DONE]") {
      this.done = true;
      return added;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) {
      this.error = chunk.error;
      return added;
    }
    this.id ||= chunk.id ?? "";
    this.usage = chunk.usage ?? this.usage;
    const choice = chunk.choices?.[0];
    if (!choice) return added;
    this.finish = choice.finish_reason ?? this.finish;
    const delta = choice.delta ?? {};
    for (const detail of delta.reasoning_details ?? []) {
      const kept = (this.#details[detail.index ?? 0] ??= { ...detail, text: "" });
      kept.text += detail.text ?? "";
      if (detail.signature) kept.signature = detail.signature;
    }
    added.thinking = delta.reasoning_content ?? "";
    added.text = delta.content ?? "";
    this.thinking += added.thinking;
    this.text += added.text;
    for (const call of delta.tool_calls ?? []) {
      const kept = (this.calls[call.index ?? 0] ??= { id: "", name: "", arguments: "" });
      kept.id ||= call.id ?? "";
      kept.name ||= call.function?.name ?? "";
      kept.arguments += call.function?.arguments ?? "";
      added.calls = true;
    }
    return added;
  }

  get empty() {
    return !this.thinking && !this.text && !this.calls.length;
  }

  // As the next request carries it.  A reply that was cut takes no calls along: their arguments may
  // be cut too, and nobody has answered them.
  message() {
    const whole = this.finish !== "";
    const said = { role: "assistant", content: this.text };
    const details = this.#details.filter(Boolean);
    if (details.length) said.reasoning_details = details;
    else if (this.thinking) said.reasoning_content = this.thinking;
    if (whole && this.calls.length) {
      if (!this.text) said.content = null;
      said.tool_calls = this.calls.map(({ id, name, arguments: text }) => ({
        id,
        type: "function",
        function: { name, arguments: text },
      }));
    }
    return said;
  }
}
