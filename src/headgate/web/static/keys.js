// The page of a new key: a test request with it, and one language for all tabs.
//
// The request goes from here to the gateway as any client's does.  What comes back is put into the page
// as text only.  A new key is known to the gateway within half a second: until then it says 401.

const TRIES = 20;
const WAIT_MS = 300;
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

document.addEventListener("change", (event) => {
  const language = event.target.dataset.language;
  if (!language) return;
  for (const other of document.querySelectorAll("[data-language]")) {
    if (other.dataset.language === language) other.checked = true;
  }
});

const panel = document.getElementById("try");

if (panel) {
  const $ = (id) => document.getElementById(id);
  const words = panel.dataset;
  panel.hidden = false;

  const ask = () =>
    fetch("/v1/chat/completions", {
      method: "POST",
      headers: {
        authorization: `Bearer ${$("key").textContent.trim()}`,
        "content-type": "application/json",
      },
      body: JSON.stringify({
        model: words.model,
        messages: [{ role: "user", content: words.prompt }],
        max_completion_tokens: 1024,
        stream: true,
        stream_options: { include_usage: true },
      }),
    });

  async function answered() {
    for (let n = 0; ; n++) {
      const response = await ask();
      if (response.status !== 401 || n === TRIES) return response;
      $("told").textContent = words.waiting;
      await wait(WAIT_MS);
    }
  }

  // Objects of a stream of server-sent events, as they come; the last one may say an error.
  async function* objects(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        const data = line.startsWith("data:") ? line.slice(5).trim() : "";
        if (data && data !== "[DONE]") yield JSON.parse(data);
      }
    }
  }

  function add(text, thought) {
    let last = $("text").lastElementChild;
    if (!last || last.classList.contains("thought") !== thought) {
      last = document.createElement("span");
      last.classList.toggle("thought", thought);
      if ($("text").childElementCount) $("text").append("\n\n");
      $("text").append(last);
    }
    last.textContent += text;
  }

  function status(text, good) {
    $("status").textContent = text;
    $("status").className = good ? "tag good" : "tag bad";
  }

  async function send() {
    $("answer").hidden = false;
    $("text").textContent = "";
    $("told").textContent = "";
    $("link").hidden = true;
    status("…", true);
    const began = performance.now();
    const response = await answered();
    const id = response.headers.get("x-request-id") ?? "";
    status(`${words.status} ${response.status}`, response.ok);
    $("told").textContent = "";
    if (!response.ok) {
      const said = await response.json().catch(() => ({}));
      add(said.error?.message ?? "", false);
      $("told").textContent = id;
      return;
    }
    let tokens = "";
    for await (const found of objects(response)) {
      if (found.error) {
        status(`${words.status} ${response.status}`, false);
        add(found.error.message ?? "", false);
      }
      const delta = found.choices?.[0]?.delta ?? {};
      if (delta.reasoning_content) add(delta.reasoning_content, true);
      if (delta.content) add(delta.content, false);
      if (found.usage) tokens = `${found.usage.prompt_tokens} + ${found.usage.completion_tokens} ${words.tokens}, `;
    }
    $("told").textContent = `${tokens}${Math.round(performance.now() - began)} ms`;
    // The row is written before the end of the stream is told.
    $("link").textContent = `${words.request} ${id}`;
    $("link").href = `/requests/${encodeURIComponent(id)}`;
    $("link").hidden = !id;
  }

  $("send").addEventListener("click", async () => {
    $("send").disabled = true;
    try {
      await send();
    } catch (error) {
      status("!", false);
      $("told").textContent = `${words.failed} ${error.message}`;
    } finally {
      $("send").disabled = false;
    }
  });
}
