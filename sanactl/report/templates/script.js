"use strict";
// What a reader can do on the page: values of marks, sorted and filtered tables, images side by side.
const find = (id) => document.getElementById(id);

// Values of the mark under the pointer.
const tip = find("tip");
document.addEventListener("pointermove", (event) => {
  const mark = event.target.closest ? event.target.closest("[data-tip]") : null;
  tip.style.visibility = mark ? "visible" : "hidden";
  if (!mark) return;
  tip.textContent = mark.dataset.tip;
  const right = event.clientX + 14 + tip.offsetWidth > document.documentElement.clientWidth;
  const x = right ? Math.max(4, event.clientX - 10 - tip.offsetWidth) : event.clientX + 14;
  const below = event.clientY + 18 + tip.offsetHeight < window.innerHeight;
  const y = below ? event.clientY + 18 : event.clientY - 10 - tip.offsetHeight;
  tip.style.transform = `translate(${x}px, ${y}px)`;
});

// Tables: a click on a heading sorts, a text keeps the rows that contain it.
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down === 1 ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => [row, row.cells[column]]);
      const value = (cell) => (cell.dataset.order === undefined ? NaN : Number(cell.dataset.order));
      const unknown = (cell) => cell.textContent.trim() === "-";
      rows.sort(([, a], [, b]) => {
        if (unknown(a) !== unknown(b)) return unknown(a) ? 1 : -1; // what is not known stands last, either way
        const order = value(a) - value(b);
        return down * (Number.isNaN(order) ? a.textContent.trim().localeCompare(b.textContent.trim(), "en", { numeric: true }) : order);
      });
      body.append(...rows.map(([row]) => row));
    });
  });
  if (body.rows.length < 6) continue;
  const filter = document.createElement("input");
  filter.type = "search";
  filter.className = "filter";
  filter.placeholder = "show rows with …";
  filter.setAttribute("aria-label", "show only the rows that contain this text");
  filter.addEventListener("input", () => {
    const wanted = filter.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
  table.parentElement.before(filter);
}

// Images: a click enlarges one, beside another of the same prompt.
const closer = find("closer");
const groups = new Map(); // prompt to its figures, each drawing once
for (const figure of document.querySelectorAll(".shot")) {
  const image = figure.querySelector("img");
  if (!image) continue;
  const group = groups.get(figure.dataset.prompt) || [];
  groups.set(figure.dataset.prompt, group);
  let place = group.findIndex((other) => other.figure.dataset.of === figure.dataset.of);
  if (place < 0) place = group.push({ figure, image }) - 1;
  image.classList.add("opens");
  image.tabIndex = 0;
  image.addEventListener("click", () => open(figure.dataset.prompt, place));
  image.addEventListener("keydown", (event) => { if (event.key === "Enter") open(figure.dataset.prompt, place); });
}
let shown = [];
const sides = [[find("closer-left"), find("closer-a"), find("closer-a-note")],
               [find("closer-right"), find("closer-b"), find("closer-b-note")]];

function open(prompt, place) {
  shown = groups.get(prompt);
  find("closer-prompt").textContent = prompt;
  for (const [select] of sides) {
    select.replaceChildren(...shown.map(({ figure }, i) => new Option(figure.dataset.of, i)));
  }
  // Beside the one that was clicked: the next of another checkpoint, else the next.
  const drawer = (i) => shown[i].figure.dataset.of.replace(/, image \d+$/, "");
  const others = shown.map((_, i) => (place + 1 + i) % shown.length);
  const other = others.find((i) => drawer(i) !== drawer(place));
  sides[0][0].value = place;
  sides[1][0].value = other === undefined ? others[0] : other;
  closer.classList.toggle("single", shown.length < 2);
  update();
  if (!closer.open) closer.showModal();
}

function update() {
  for (const [select, image, note] of sides) {
    const { figure, image: source } = shown[Number(select.value)];
    image.src = source.src;
    image.alt = figure.dataset.of;
    image.classList.toggle("small", source.classList.contains("small"));
    const said = figure.querySelector("figcaption").innerText.replace(/\s*\n\s*/g, " · ");
    note.textContent = figure.dataset.of + (said ? " · " + said : "");
  }
  slide();
}

function slide() {
  const part = closer.classList.contains("sliding") ? find("closer-slide").value : 100;
  find("closer-b").style.clipPath = part < 100 ? `inset(0 0 0 ${100 - part}%)` : "";
}

find("closer-toggle").addEventListener("click", (event) => {
  const on = closer.classList.toggle("sliding");
  event.target.setAttribute("aria-pressed", on);
  slide();
});
find("closer-slide").addEventListener("input", slide);
find("closer-shut").addEventListener("click", () => closer.close());
for (const [select] of sides) select.addEventListener("change", update);
closer.addEventListener("click", (event) => { if (event.target === closer) closer.close(); });
closer.addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step || ["SELECT", "INPUT"].includes(event.target.tagName)) return;
  const place = (Number(sides[0][0].value) + step + shown.length) % shown.length;
  open(find("closer-prompt").textContent, place);
});
