"use strict";
// Long lists open short; rows are sorted and hidden where they stand; no text of the corpus is ever turned into markup here.
(() => {
  const words = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  const sortTable = (table, column, direction) => {
    const heads = [...table.tHead.rows[0].cells];
    const isNumber = heads[column].dataset.kind === "number";
    const value = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
    const sign = direction === "descending" ? -1 : 1;
    const compare = isNumber
      ? (a, b) => Number(value(a)) - Number(value(b))
      : (a, b) => words.compare(value(a), value(b));
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => sign * compare(a, b)));
    heads.forEach((head, i) => (i === column ? head.setAttribute("aria-sort", direction) : head.removeAttribute("aria-sort")));
    table.dispatchEvent(new CustomEvent("sorted", { detail: `${column} ${direction}` }));
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      head.querySelector("button")?.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const first = head.dataset.kind === "number" ? "descending" : "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        sortTable(table, column, now === first ? other : first);
      });
    });
  }

  const form = document.querySelector("form.tools");
  if (!form) return;
  const table = document.querySelector("table.doubtful");
  const empty = document.querySelector("p.empty");
  const rows = [...table.tBodies[0].rows].map((row) => [row, row.textContent.toLowerCase()]);
  const { search, label, reason, sort } = form.elements;
  const more = document.querySelector("button.more");
  const few = 30;
  let isLong = false;

  const matches = () => {
    const wanted = search.value.trim().toLowerCase();
    return new Set(
      rows
        .filter(
          ([row, text]) =>
            (!wanted || text.includes(wanted)) &&
            (!label.value || row.dataset.label === label.value) &&
            (!reason.value || row.dataset.reason === reason.value),
        )
        .map(([row]) => row),
    );
  };

  const show = () => {
    const wanted = matches();
    let n = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = !wanted.has(row) || (!isLong && n >= few);
      n += !row.hidden;
    }
    const all = wanted.size === 1 ? "1 text" : `${wanted.size.toLocaleString("en")} texts`;
    form.querySelector("output").textContent = n < wanted.size ? `${all}, ${n} shown` : all;
    more.hidden = n === wanted.size;
    more.textContent = `Show all ${all}`;
    empty.hidden = n > 0;
  };

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target === sort) {
      const [column, direction] = sort.value.split(" ");
      sortTable(table, Number(column), direction);
    } else show();
  });
  form.addEventListener("reset", () => {
    // The fields are empty only after this event.
    setTimeout(() => {
      isLong = false;
      sortTable(table, 1, "ascending");
    });
  });
  table.addEventListener("sorted", (event) => {
    sort.value = event.detail;
    show();
  });
  more.addEventListener("click", () => {
    const next = [...table.tBodies[0].rows].find((row) => row.hidden && matches().has(row));
    isLong = true;
    show();
    next.tabIndex = -1;
    next.focus({ preventScroll: true });
  });
  show();
})();
