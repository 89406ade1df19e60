// A button at each block of code that copies it.
for (const pre of document.querySelectorAll("main pre")) {
  const place = document.createElement("div");
  const button = document.createElement("button");
  place.className = "code";
  button.type = "button";
  button.className = "copy-code";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy this code");
  pre.before(place);
  place.append(pre, button);
  button.addEventListener("click", async () => {
    const text = pre.textContent.replace(/\n$/, "");
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Plain http from another machine has no clipboard: select it for the reader's own shortcut.
      getSelection().selectAllChildren(pre);
      button.textContent = "Selected";
      return;
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}
