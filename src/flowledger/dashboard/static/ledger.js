// Charts, the live list and the order of small tables; everything else works without this.

const dark = matchMedia("(prefers-color-scheme: dark)");

function parsed(id) {
  const place = document.getElementById(id);
  return place && JSON.parse(place.textContent);
}

function words(datum) {
  const list = document.createElement("dl");
  for (const [name, value] of Object.entries(datum)) {
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = name;
    text.textContent = value;
    list.append(term, text);
  }
  return list;
}

const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);

function showTip(handler, event, item, value) {
  if (value === null || value === undefined || value === "") {
    tip.hidden = true;
    return;
  }
  tip.replaceChildren(words(typeof value === "object" ? value : { "": value }));
  tip.hidden = false;
  const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
  const over = event.clientY + 14 + tip.offsetHeight > innerHeight;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${over ? event.clientY - tip.offsetHeight - 14 : event.clientY + 14}px`;
}

async function draw(place, themes) {
  const spec = parsed(place.dataset.chart);
  const theme = themes[dark.matches ? "dark" : "light"];
  const columns = Math.max(1, Math.floor(place.clientWidth / 165));
  const config = { ...theme, legend: { ...theme.legend, columns } };
  place.view?.finalize();
  const made = await vegaEmbed(place, spec, {
    actions: false,
    ast: true,
    config,
    defaultStyle: false,
    logLevel: 1,
    renderer: "svg",
    tooltip: showTip,
  });
  place.view = made.view;
  const drawing = place.querySelector("svg");
  drawing.setAttribute("aria-label", document.getElementById(place.dataset.summary).textContent);
  drawing.setAttribute("role", "img");
  place.removeAttribute("role");
  for (const part of drawing.querySelectorAll("[role], [aria-label], [aria-roledescription]")) {
    for (const name of ["role", "aria-label", "aria-roledescription"]) part.removeAttribute(name);
  }
  place.dataset.theme = dark.matches ? "dark" : "light";
}

function drawAll() {
  const themes = parsed("themes");
  if (!themes || !globalThis.vegaEmbed) return;
  for (const place of document.querySelectorAll("[data-chart]")) draw(place, themes);
}

// Tables that are whole in the page are sorted here; others by their links, over every row there is.
const measure = /^\$?(-?[\d,]*\.?\d+) ?(ms|s|%|k|M|B|T)?(?: or more)?$/;
const sizes = { s: 1e3, k: 1e3, M: 1e6, B: 1e9, T: 1e12 };

function worth(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  const found = measure.exec(text);
  if (found) return Number(found[1].replaceAll(",", "")) * (sizes[found[2]] ?? 1);
  return text === "?" ? -1 : text;
}

function compare(one, other) {
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), undefined, { numeric: true });
}

function sort(button) {
  const heading = button.closest("th");
  const body = heading.closest("table").tBodies[0];
  const before = heading.getAttribute("aria-sort");
  const first = heading.classList.contains("number") ? "descending" : "ascending";
  const way = before ? { ascending: "descending", descending: "ascending" }[before] : first;
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", way);
  const sign = way === "ascending" ? 1 : -1;
  const column = heading.cellIndex;
  body.append(...[...body.rows].sort((a, b) => sign * compare(worth(a, column), worth(b, column))));
}

// The list of calls: rows that are new are put in their place. Whoever has scrolled down, or is in
// the table, is told first, and nothing moves until they say so.
function live(choice) {
  const rows = document.querySelector("[data-rows]");
  const status = document.querySelector("[data-live-status]");
  const newer = document.querySelector("[data-newer]");
  const most = 200;
  let waiting = null;
  choice.closest("label").hidden = false;

  function fresh(body) {
    const known = new Set([...rows.children].map((row) => row.dataset.id));
    return [...body.children].filter((row) => !known.has(row.dataset.id));
  }

  function show(body) {
    const added = fresh(body).length;
    const kept = new Map([...rows.children].map((row) => [row.dataset.id, row]));
    const first = [...body.children].map((row) => {
      if (kept.has(row.dataset.id)) return kept.get(row.dataset.id);
      row.classList.add("new");
      return row;
    });
    const ids = new Set(first.map((row) => row.dataset.id));
    const joined = first.some((row) => kept.has(row.dataset.id));
    const rest = joined ? [...rows.children].filter((row) => !ids.has(row.dataset.id)) : [];
    rows.replaceChildren(...[...first, ...rest].slice(0, most));
    newer.hidden = true;
    waiting = null;
    status.textContent = `${added} new ${added === 1 ? "call" : "calls"}`;
  }

  const isRead = () => scrollY > 0 && rows.getBoundingClientRect().top < 0;
  const isUsed = () => rows.contains(document.activeElement);

  async function look() {
    if (choice.checked && !document.hidden) {
      try {
        const answer = await fetch(choice.dataset.live, { credentials: "same-origin" });
        if (answer.ok) {
          const body = document.createElement("tbody");
          const page = new DOMParser().parseFromString(`<table>${await answer.text()}</table>`, "text/html");
          body.append(...page.querySelectorAll("tr"));
          const added = fresh(body).length;
          if (added && (isRead() || isUsed())) {
            waiting = body;
            newer.textContent = `Show ${added} new ${added === 1 ? "call" : "calls"}`;
            newer.hidden = false;
          } else if (added) show(body);
        }
      } catch {
        status.textContent = "The server does not answer; trying again.";
      }
    }
    setTimeout(look, 2000);
  }

  newer.addEventListener("click", () => {
    if (!waiting) return;
    show(waiting);
    scrollTo({ top: 0 });
  });
  setTimeout(look, 2000);
}

for (const button of document.querySelectorAll("[data-sort]")) {
  button.disabled = false;
  button.addEventListener("click", () => sort(button));
}
drawAll();
dark.addEventListener("change", drawAll);
const choice = document.querySelector("[data-live]");
if (choice) live(choice);
