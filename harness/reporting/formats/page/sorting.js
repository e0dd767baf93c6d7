// A click on the head of a column sorts up, the next one down, the third restores. Every part of a table (a tbody, under its heading
// row) is sorted for itself; rows that are no method stay at its end, and what has no value comes after what has one.
{
  const words = new Intl.Collator("en", { numeric: true });
  const original = new WeakMap();

  function keysOf(rows, column, numeric) {
    return new Map(rows.map((row) => {
      const cell = row.cells[column];
      if (!cell) return [row, null];
      if (numeric) return [row, cell.dataset.value === undefined ? null : Number(cell.dataset.value)];
      return [row, cell.textContent.trim() || null];
    }));
  }

  function sortPart(body, column, order, numeric) {
    if (!original.has(body)) original.set(body, [...body.rows]);
    const rows = original.get(body);
    while (body.lastChild) body.lastChild.remove(); // from the end: taking thousands of rows from the front is slow
    if (order === "none") return body.append(...rows);
    const movable = rows.filter((row) => !row.matches(".heading, .fixed"));
    const keys = keysOf(movable, column, numeric);
    const sign = order === "ascending" ? 1 : -1;
    movable.sort((one, other) => {
      const [a, b] = [keys.get(one), keys.get(other)];
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (numeric ? (a > b) - (a < b) : words.compare(a, b));
    });
    body.append(...rows.filter((row) => row.matches(".heading")), ...movable, ...rows.filter((row) => row.matches(".fixed")));
  }

  function sort(table, head) {
    const column = Number(head.dataset.column);
    const order = { none: "ascending", ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")];
    const bodies = [...table.tBodies];
    const numeric = bodies.some((body) => [...body.rows].some((row) => row.cells[column]?.dataset.value !== undefined));
    for (const body of bodies) sortPart(body, column, order, numeric);
    for (const other of table.querySelectorAll("[aria-sort]")) other.setAttribute("aria-sort", other === head ? order : "none");
  }

  for (const head of document.querySelectorAll("table[data-sortable] th[data-column]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(head.firstChild ?? "");
    head.prepend(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sort(head.closest("table"), head));
  }
}
