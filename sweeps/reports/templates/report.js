// Sort a table by a column: numbers by value, text by locale, empty cells last in both directions.
// A table with data-rows shows so many rows at once, of those that have every word in its box. What a reader chose stands in the
// data of the table; `arrange` shows it.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const pager = table.dataset.rows ? makePager(table) : null;
  const value = (row) => row.cells[table.dataset.column].dataset.value ?? row.cells[table.dataset.column].textContent.trim();
  let texts = null;

  function found() {
    const words = (table.dataset.words ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return rows;
    texts ??= new Map(rows.map((row) => [row, [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase()]));
    return rows.filter((row) => words.every((word) => texts.get(row).includes(word)));
  }

  function sorted(part) {
    if (table.dataset.column === undefined) return part;
    const sign = table.dataset.order === "descending" ? -1 : 1;
    return [...part].sort((first, second) => {
      const [a, b] = [value(first), value(second)];
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
    });
  }

  table.arrange = () => {
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[table.dataset.column]?.setAttribute("aria-sort", table.dataset.order);
    const all = sorted(found());
    body.replaceChildren(...(pager ? pager.show(all, rows.length) : all));
  };
  // Paper has no next page to turn to by a click.
  table.arrangeAll = () => body.replaceChildren(...sorted(found()));
  table.turnTo = (id) => {
    const place = pager ? sorted(found()).findIndex((row) => row.id === id) : -1;
    if (place < 0) return;
    table.dataset.page = Math.floor(place / table.dataset.rows);
    table.arrange();
    document.getElementById(id).scrollIntoView();
  };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      table.dataset.order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      Object.assign(table.dataset, { column, page: 0 });
      table.arrange();
    });
  });
  table.arrange();
}

// The box and the buttons above a table that shows its rows a page at a time.
function makePager(table) {
  const bar = document.createElement("div");
  bar.className = "pager";
  bar.innerHTML =
    '<input type="search" placeholder="words that a row has" aria-label="show rows that have these words">' +
    '<button type="button" aria-label="previous rows">‹</button><output></output><button type="button" aria-label="next rows">›</button>';
  const [box, back, shown, on] = bar.children;
  const size = Number(table.dataset.rows);
  const turn = (pages) => {
    table.dataset.page = Number(table.dataset.page ?? 0) + pages;
    table.arrange();
  };
  back.addEventListener("click", () => turn(-1));
  on.addEventListener("click", () => turn(1));
  box.addEventListener("input", () => {
    Object.assign(table.dataset, { words: box.value, page: 0 });
    table.arrange();
  });
  table.parentElement.before(bar);
  return {
    show(found, total) {
      const last = Math.max(0, Math.ceil(found.length / size) - 1);
      const page = Math.min(Math.max(0, Number(table.dataset.page ?? 0)), last);
      table.dataset.page = page;
      if (box.value !== (table.dataset.words ?? "")) box.value = table.dataset.words ?? "";
      const part = found.slice(page * size, (page + 1) * size);
      const of = found.length === total ? `${total}` : `${found.length} found, ${total} in all`;
      shown.textContent = part.length ? `${page * size + 1} to ${page * size + part.length} of ${of}` : `none of ${total}`;
      back.hidden = on.hidden = last === 0;
      back.disabled = page === 0;
      on.disabled = page === last;
      return part;
    },
  };
}

const sortable = [...document.querySelectorAll("table.sortable")];
const turnToTarget = () => location.hash && sortable.forEach((table) => table.turnTo(decodeURIComponent(location.hash.slice(1))));
addEventListener("beforeprint", () => sortable.forEach((table) => table.arrangeAll()));
addEventListener("afterprint", () => sortable.forEach((table) => table.arrange()));
addEventListener("hashchange", turnToTarget);
turnToTarget();
