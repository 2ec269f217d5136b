"use strict";
// Tables are sorted by the buttons in their headers; without scripts they are read as they are.
function value(row, column) {
  const cell = row.cells[column];
  const number = parseFloat(cell.dataset.value);
  return "value" in cell.dataset ? (Number.isNaN(number) ? Infinity : number) : cell.textContent.trim();
}
function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? (a < b ? -1 : a > b ? 1 : 0)
    : String(a).localeCompare(String(b), "en", { numeric: true });
}
for (const table of document.querySelectorAll("table")) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.title = "Sort by this column";
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = Array.from(table.tBodies[0].rows);
      rows.sort((a, b) => compare(value(a, column), value(b, column)) * (down ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  });
}
// In print everything is to be seen.
let closed = [];
window.addEventListener("beforeprint", () => {
  closed = Array.from(document.querySelectorAll("details:not([open])"));
  closed.forEach((part) => { part.open = true; });
});
window.addEventListener("afterprint", () => closed.forEach((part) => { part.open = false; }));
