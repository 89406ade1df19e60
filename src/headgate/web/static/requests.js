// The log: new rows as they come, and times in the reader's zone.

const rows = document.querySelector("tbody[data-tail]");
const live = document.getElementById("live");
const EVERY_MS = 2000;
const MOST_ROWS = 500; // of the page; the oldest leave it

if (rows && live) {
  let running = false;
  let timer = 0;
  let waiting = false;
  const address = new URL(rows.dataset.tail, location.href);

  const stop = (why = "") => {
    running = false;
    clearInterval(timer);
    live.setAttribute("aria-pressed", "false");
    live.title = why;
    live.classList.toggle("bad", why !== "");
  };

  const look = async () => {
    if (waiting || document.hidden) return;
    waiting = true;
    try {
      const first = rows.querySelector("[data-seq]");
      if (first) address.searchParams.set("after", first.dataset.seq);
      const answer = await fetch(address, { headers: { "hx-request": "true" }, redirect: "error" });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const html = await answer.text();
      if (running && html.trim()) {
        rows.insertAdjacentHTML("afterbegin", html);
        const all = rows.querySelectorAll("tr:not(.more)");
        for (let n = all.length - 1; n >= MOST_ROWS; n--) all[n].remove();
        document.dispatchEvent(new Event("times"));
      }
    } catch {
      stop(live.dataset.lost);
    } finally {
      waiting = false;
    }
  };

  live.hidden = false;
  live.addEventListener("click", () => {
    if (running) return stop();
    running = true;
    live.title = "";
    live.classList.remove("bad");
    live.setAttribute("aria-pressed", "true");
    timer = setInterval(look, EVERY_MS);
    look();
  });
}
