// Read the page again while its sweep runs, and keep what is in view, what is open and how tables are arranged: the state of the
// page's entry in the browser's history survives that, also for a file that no server sends.
const renewal = document.getElementById("renewal");
const keyOf = (details) => details.previousElementSibling.textContent;
const headsOf = (table) => table.tHead.textContent;
const boxes = [...document.querySelectorAll(".scroll")];

function keep() {
  const state = {
    top: scrollY,
    open: [...document.querySelectorAll("details[open]")].map(keyOf),
    tables: Object.fromEntries(sortable.map((table) => [headsOf(table), { ...table.dataset }])),
    aside: boxes.map((box) => box.scrollLeft),
  };
  history.replaceState(state, "");
}

function bringBack({ top, open, tables, aside }) {
  document.querySelectorAll("details").forEach((details) => (details.open = open.includes(keyOf(details))));
  for (const table of sortable) {
    Object.assign(table.dataset, tables[headsOf(table)]);
    table.arrange();
  }
  boxes.forEach((box, place) => (box.scrollLeft = aside[place] ?? 0));
  // Figures have their height when all is drawn.
  addEventListener("load", () => scrollTo(0, top));
}

// Nobody wants a page to move while they type, mark text, or drag in a figure.
const isBusy = () =>
  document.hidden || document.activeElement?.matches("input") || !getSelection().isCollapsed || document.querySelector(".dragcover");

function readAgain() {
  if (isBusy()) {
    setTimeout(readAgain, 1000);
  } else {
    keep();
    location.reload();
  }
}

if (history.state?.tables) {
  history.scrollRestoration = "manual";
  bringBack(history.state);
}
if (renewal.dataset.seconds) {
  const minutes = Math.round((Date.now() / 1000 - renewal.dataset.written) / 60);
  if (60 * minutes > renewal.dataset.stale) {
    renewal.textContent = `Nothing has renewed this page for ${minutes} minutes: its driver has died, or this machine's clock is wrong.`;
  }
  addEventListener("beforeunload", keep);
  setTimeout(readAgain, 1000 * renewal.dataset.seconds);
}
