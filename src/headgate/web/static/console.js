// What several pages need: copy buttons, the navigation on a phone, times in the reader's zone.

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  await navigator.clipboard.writeText(source.value ?? source.textContent);
  const label = button.textContent;
  button.textContent = button.dataset.copied ?? "✓";
  setTimeout(() => (button.textContent = label), 1500);
});

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

// On a phone the navigation is one line that scrolls: the page's own entry is in sight.
{
  const current = document.querySelector("aside.nav nav [aria-current]");
  if (current) current.parentElement.scrollLeft = current.offsetLeft - current.parentElement.offsetLeft - 16;
}

// Filters: what is chosen from a list or ticked applies at once, what is typed with Enter or the button.
for (const form of document.querySelectorAll("form.filters")) {
  const span = form.elements.namedItem("span");
  const ends = form.querySelectorAll("[data-custom]");
  const typed = form.querySelector("input[type=text], input[type=search]");
  const button = form.querySelector("button");
  const settle = () => {
    const own = span?.value === "custom";
    for (const end of ends) end.hidden = !own;
    for (const input of form.querySelectorAll("[data-custom] input")) input.disabled = !own;
    button.hidden = !own && !typed;
  };
  form.addEventListener("change", (event) => {
    settle();
    // Both ends of a time of one's own are typed before they are meant.
    const field = event.target;
    if (field.closest("details")) return; // several boxes are ticked before they are meant
    if ((field.tagName === "SELECT" && field.value !== "custom") || field.type === "checkbox") form.requestSubmit();
  });
  // Empty fields say nothing: the address stays one that can be read and passed on.
  form.addEventListener("submit", () => {
    for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
  });
  addEventListener("pageshow", () => {
    for (const field of form.elements) field.disabled = false;
    settle();
  });
  settle();
}

// Times: as the server writes them, in UTC, or in the reader's own zone.
{
  const button = document.getElementById("zone");
  const two = (number) => String(number).padStart(2, "0");
  const local = (at, year) =>
    `${year ? `${at.getFullYear()}-` : ""}${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  const chosen = () => localStorage.getItem("zone") === "local";

  const write = () => {
    const own = chosen();
    for (const time of document.querySelectorAll("time[datetime]")) {
      time.dataset.utc ??= time.textContent;
      time.textContent = own ? local(new Date(time.dateTime), /^\d{4}-/.test(time.dataset.utc)) : time.dataset.utc;
    }
    for (const zone of document.querySelectorAll("[data-zone]")) {
      zone.dataset.utc ??= zone.textContent;
      zone.textContent = own ? zone.dataset.zone : zone.dataset.utc;
    }
    if (button) button.textContent = own ? button.dataset.utc : button.dataset.local;
  };

  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      localStorage.setItem("zone", chosen() ? "utc" : "local");
      write();
    });
  }
  document.addEventListener("times", write);
  document.addEventListener("htmx:after:swap", write);
  if (chosen()) write();
}
