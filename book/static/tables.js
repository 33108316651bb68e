// Tables of data sort by a press on a column's head: once rising, again falling, a third time as they were.
(() => {
  const TABLES = [".pa-table", ".pa-board", ".pa-runs", ".pa-inside"].map((box) => `.bd-article ${box} table`).join() + ", .bd-article table.pa-which";
  const FEWEST = 4; // rows; less is seen at a glance
  const RAISED = "⁻⁰¹²³⁴⁵⁶⁷⁸⁹";
  const NUMBER = new RegExp(
    `^(?:[^\\d=]*=\\s*)?(?:[<>≤≥≈~±]\\s*)?([+−-]?)(?:(?!10[${RAISED}])` + // λ = −
      "(\\d{1,3}(?:,\\d{3})+(?!\\d)|\\d+))?(\\.\\d+)?(?:e([+-]?\\d+))?" + // 1,105.5e-06
      `(?:\\s?[×·]\\s?)?(?:10([${RAISED}]+))?(?![.:]?\\d)\\s*([kMG]?B\\b)?`, // ×10⁻³, kB
  );
  const BYTES = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9 };
  const collator = new Intl.Collator("en", { numeric: true });

  const words = (cell) => {
    const copy = cell.cloneNode(true);
    for (const formula of copy.querySelectorAll(".katex")) formula.replaceWith(formula.querySelector("annotation")?.textContent ?? "");
    return copy.textContent.replace(/\s+/g, " ").trim();
  };
  const number = (text) => {
    const [, sign, whole, part, exponent, raised, unit] = NUMBER.exec(text) ?? [];
    if (whole === undefined && part === undefined && !raised) return NaN;
    const digits = (whole ?? "").replaceAll(",", "") + (part ?? "") || 1;
    const power = exponent ?? [...(raised ?? "0")].map((one) => ({ "⁻": "-", "0": "0" })[one] ?? RAISED.indexOf(one) - 1).join("");
    return (sign && sign !== "+" ? -1 : 1) * Number(`${digits}e${power}`) * (BYTES[unit] ?? 1);
  };
  const missing = (text) => /^[–—-]?$|^nan$/i.test(text);

  // The rows in the order of one column: numbers, then words, then what is missing; equal ones stay as they were.
  function order(rows, cell, falling) {
    const texts = rows.map((row) => words(cell(row)));
    const there = texts.filter((text) => !missing(text));
    const numeric = 2 * there.filter((text) => !Number.isNaN(number(text))).length > there.length;
    const keys = texts.map((text, i) => {
      const value = numeric ? number(text) : NaN;
      return { row: rows[i], text, value, rank: missing(text) ? 2 : Number.isNaN(value) ? 1 : 0 };
    });
    const turn = falling ? -1 : 1;
    const compare = (a, b) => a.rank - b.rank || turn * (a.rank === 0 ? a.value - b.value : a.rank === 1 ? collator.compare(a.text, b.text) : 0);
    return keys.sort(compare).map(({ row }) => row);
  }

  // `heads` get a button each; `show` says of one how its column stands now: "none", "ascending", "descending".
  function sortable(heads, rows, cell, show) {
    const parent = rows[0].parentNode;
    let now = { column: -1, state: "none" };
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "pa-sort";
      button.append(...head.childNodes);
      head.append(button);
      show(head, button, "none");
      button.addEventListener("click", () => {
        const before = now.column === column ? now.state : "none";
        if (now.column >= 0) show(heads[now.column], heads[now.column].firstChild, "none");
        now = { column, state: { none: "ascending", ascending: "descending", descending: "none" }[before] };
        show(head, button, now.state);
        parent.append(...(now.state === "none" ? rows : order(rows, (row) => cell(row, column), now.state === "descending")));
      });
    });
  }

  function start() {
    for (const table of document.querySelectorAll(TABLES)) {
      if (table.tHead?.rows.length !== 1 || table.tBodies.length !== 1) continue;
      const [heads, rows] = [[...table.tHead.rows[0].cells], [...table.tBodies[0].rows]];
      const even = rows.every((row) => row.cells.length === heads.length) && !table.querySelector("[colspan], [rowspan]");
      if (rows.length < FEWEST || !even) continue;
      sortable(heads, rows, (row, i) => row.cells[i], (head, button, state) => head.setAttribute("aria-sort", state));
    }
    for (const head of document.querySelectorAll(".pa-board > .pa-head")) { // rows that open: no table, its head says so in words
      const rows = [...head.parentNode.querySelectorAll(":scope > details")];
      if (rows.length < FEWEST) continue;
      head.removeAttribute("aria-hidden");
      head.setAttribute("role", "group");
      head.setAttribute("aria-label", "Sort the claims below");
      const show = (_, button, state) => {
        button.setAttribute("aria-label", button.textContent + { none: "", ascending: ", sorted, rising", descending: ", sorted, falling" }[state]);
        button.setAttribute("aria-pressed", state !== "none");
        button.dataset.sort = state;
      };
      sortable([...head.children], rows, (row, i) => row.querySelector("summary").children[i], show);
    }
  }
  document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", start) : start();
})();
