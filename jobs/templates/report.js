// Conveniences of the report; the page is whole without them. Theme, copy buttons, the reading under a chart, print.
"use strict";
const root = document.documentElement;
root.classList.add("js");
const remembered = (() => { try { return localStorage.getItem("gristmill-theme"); } catch { return null; } })();
if (remembered) root.dataset.theme = remembered;
document.getElementById("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("gristmill-theme", root.dataset.theme); } catch { /* a page without storage forgets the theme */ }
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  event.preventDefault();
  navigator.clipboard.writeText(button.dataset.copy).then(() => {
    button.textContent = "copied";
    setTimeout(() => { button.textContent = "copy"; }, 1200);
  });
});
for (const figure of document.querySelectorAll("figure")) {
  const readout = figure.querySelector(".readout");
  if (!readout) continue;
  const still = [...readout.childNodes];
  const bars = figure.querySelectorAll("svg g");
  for (const bar of bars) {
    const title = bar.querySelector("title");
    const hint = title.textContent;
    title.remove();
    const show = () => readout.replaceChildren(hint);
    bar.addEventListener("pointerenter", show);
    bar.addEventListener("pointerdown", show);
  }
  figure.addEventListener("pointerleave", () => readout.replaceChildren(...still));
}
const openTarget = () => {
  const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
};
addEventListener("hashchange", openTarget);
openTarget();
addEventListener("beforeprint", () => { for (const details of document.querySelectorAll("details")) details.open = true; });
