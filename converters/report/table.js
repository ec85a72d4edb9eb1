"use strict";
/* Sorts and filters the table of models. */
const table = document.querySelector("#models table"), body = table.tBodies[0], rows = [...body.rows];
const headers = [...table.tHead.rows[0].cells], filter = document.getElementById("filter");

const valueOf = (row, column) => {
  const {value} = row.cells[column].dataset;
  return value === undefined ? row.cells[column].textContent.trim() : Number(value);
};

headers.forEach((header, column) => header.querySelector("button").addEventListener("click", () => {
  const rises = header.getAttribute("aria-sort") !== "ascending";
  headers.forEach(other => other.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", rises ? "ascending" : "descending");
  rows.sort((a, b) => {
    const [x, y] = [valueOf(a, column), valueOf(b, column)];
    return (rises ? 1 : -1) * (x < y ? -1 : x > y ? 1 : 0);
  });
  body.append(...rows);
}));

filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/);
  for (const row of rows) {
    const text = `${row.textContent} ${row.title}`.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
  }
  const n = rows.filter(row => !row.hidden).length;
  document.getElementById("count").textContent = `${n} of ${rows.length} models`;
});
