// What the page cannot do without JavaScript: copy to the clipboard. Everything else works without this file.
"use strict";

// Browsers have a clipboard over HTTPS and on this machine only. Elsewhere the text is shown selected, to be copied by hand.
function show(text, button) {
  const field = document.createElement("input");
  field.readOnly = true;
  field.value = text;
  field.setAttribute("aria-label", "Selected: copy it");
  field.addEventListener("blur", () => field.remove());
  button.after(field);
  field.select();
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch {
    show(button.dataset.copy, button);
    return;
  }
  button.setAttribute("aria-live", "polite");
  const before = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = before; }, 1200);
});
