// Filters hide rows. One set of controls works on all tables of its scope: the numbers, the claims, or the runs.
{
  function partsOf(table) {
    const title = table.closest("figure") ? table.caption.textContent : "";
    const whole = table.matches(".words");
    return [...table.tBodies].map((body) => {
      const heading = body.querySelector(".heading")?.textContent ?? "";
      const rows = [...body.rows].filter((row) => !row.matches(".heading")).map((row) => ({
        row,
        text: `${title} ${heading} ${whole ? row.textContent : row.cells[0].textContent}`.toLowerCase(),
        verdicts: [...row.querySelectorAll("[data-verdict]")].map((cell) => cell.dataset.verdict),
        follows: row.matches(".fixed, .float"), // stays with whatever else of its part stays
      }));
      return { body, rows };
    });
  }

  function showPart({ body, rows }, matches) {
    const hits = new Set(rows.filter(matches));
    const own = [...hits].some((entry) => !entry.follows);
    let shown = 0;
    for (const entry of rows) {
      const visible = hits.has(entry) || (entry.follows && own);
      entry.row.hidden = !visible;
      shown += visible;
    }
    body.hidden = shown === 0;
    return shown;
  }

  for (const controls of document.querySelectorAll("[data-filters]")) {
    const tables = [...document.querySelectorAll(`table[data-scope="${controls.dataset.filters}"]`)];
    if (!tables.length) continue;
    controls.hidden = false;
    const [text, verdict, paper] = ["[data-words]", "select[data-verdict]", "select[data-table]"].map((name) => controls.querySelector(name));
    let index = null;
    const apply = () => {
      index ??= tables.map((table) => ({ table, parts: partsOf(table) }));
      const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
      const matches = (entry) => words.every((word) => entry.text.includes(word)) && (!verdict?.value || entry.verdicts.includes(verdict.value));
      let shown = 0;
      for (const { table, parts } of index) {
        const figure = table.closest("figure");
        const wanted = !paper?.value || figure.id === paper.value;
        const count = parts.map((part) => showPart(part, (entry) => wanted && matches(entry))).reduce((a, b) => a + b, 0);
        if (figure) figure.hidden = count === 0;
        const fold = figure?.querySelector("details.fold");
        if (fold && words.length) fold.open = true;
        shown += count;
      }
      const all = index.flatMap(({ parts }) => parts).reduce((sum, { rows }) => sum + rows.length, 0);
      controls.querySelector("output").textContent = shown === all ? "" : `${shown} of ${all} rows`;
    };
    let timer;
    controls.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(apply, 120);
    });
    controls.addEventListener("reveal", () => {
      for (const control of [text, verdict, paper]) if (control) control.value = "";
      apply();
    });
  }
}
