/* Dark or light. A plain script, run before the page is drawn: no flash of the other theme. */
"use strict";
(() => {
  const root = document.documentElement;
  const remembered = localStorage.getItem("theme");
  if (remembered === "dark" || remembered === "light") root.dataset.theme = remembered;

  const system = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const name = () => {
      const other = (root.dataset.theme ?? system()) === "dark" ? "light" : "dark";
      button.setAttribute("aria-label", `Change to ${other}`);
      button.title = `Change to ${other}`;
      return other;
    };
    button.addEventListener("click", () => {
      const chosen = name();
      if (chosen === system()) {
        delete root.dataset.theme; // as the system has it, also when that changes
        localStorage.removeItem("theme");
      } else {
        root.dataset.theme = chosen;
        localStorage.setItem("theme", chosen);
      }
      name();
    });
    name();
  });
})();
