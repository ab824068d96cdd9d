"use strict";

// The address that the page came from is that of the gateway.
if (location.protocol.startsWith("http")) {
  for (const base of document.querySelectorAll("[data-base]")) base.textContent = location.origin;
}

// Buttons that copy examples. Pages without TLS have no clipboard.
const said = document.getElementById("said");
if (navigator.clipboard) {
  for (const button of document.querySelectorAll(".copy")) {
    const [label, name] = button.children;
    let restore;
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(button.closest(".code").querySelector("code").textContent);
        label.textContent = "Copied";
      } catch {
        label.textContent = "Not copied";
      }
      said.textContent = label.textContent + name.textContent;
      clearTimeout(restore);
      restore = setTimeout(() => { label.textContent = "Copy"; said.textContent = ""; }, 3000);
    });
  }
}

// The search hides every item that lacks one of the words, groups without items, and links to
// what is hidden.
const search = document.getElementById("search");
const found = document.getElementById("found");
const textOf = (element) => element.textContent.toLowerCase();
const items = [...document.querySelectorAll("[data-item]")].map((element) => ({ element, text: textOf(element) }));
search.parentElement.hidden = false;
search.addEventListener("input", filter);
filter(); // A browser may have kept the text of the field.

// A link to what the search hides ends the search.
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (link && document.getElementById(link.hash.slice(1)).closest("[hidden]")) {
    search.value = "";
    filter();
  }
});

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter((word) => word);
  const matches = (text) => words.every((word) => text.includes(word));
  const counts = new Map();
  for (const { element, text } of items) {
    element.hidden = !matches(text);
    const kind = element.dataset.item;
    if (kind && !element.hidden) counts.set(kind, (counts.get(kind) ?? 0) + 1);
    for (const details of element.querySelectorAll("details")) details.open = words.length > 0 && matches(textOf(details));
  }
  for (const group of document.querySelectorAll("[data-group]")) group.hidden = !group.querySelector("[data-item]:not([hidden])");
  for (const entry of document.querySelectorAll("nav [data-of]")) entry.hidden = document.getElementById(entry.dataset.of).hidden;
  found.textContent = words.length === 0 ? "" : [...counts].map(([kind, n]) => n + " " + (n === 1 ? kind : kind + (kind.endsWith("s") ? "es" : "s"))).join(", ") || "Nothing found";
  document.body.classList.toggle("searching", words.length > 0);
  if (words.length > 0) scrollTo(0, 0);
}
