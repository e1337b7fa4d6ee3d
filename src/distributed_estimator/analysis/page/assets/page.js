"use strict";

class Tooltip {
  constructor() {
    this.node = document.getElementById("tooltip");
    addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.hide();
    });
    // What has the focus was often scrolled to by it.
    addEventListener("scroll", () => (this.anchor ? this.follow() : this.hide()), { passive: true });
  }

  show(lines, x, y) {
    this.anchor = null;
    this.node.replaceChildren(...lines.map((line) => element("div", {}, line)));
    this.node.hidden = false;
    this.move(x, y);
  }

  showAt(lines, node) {
    this.show(lines, 0, 0);
    this.anchor = node;
    this.follow();
  }

  follow() {
    const box = this.anchor.getBoundingClientRect();
    this.move(Math.min(box.right, innerWidth - 20), box.bottom);
  }

  move(x, y) {
    const { width, height } = this.node.getBoundingClientRect();
    const right = x + 14 + width > innerWidth - 4;
    const below = y + 16 + height > innerHeight - 4;
    this.node.style.left = `${Math.max(4, right ? x - width - 10 : x + 14)}px`;
    this.node.style.top = `${Math.max(4, below ? y - height - 12 : y + 16)}px`;
  }

  hide() {
    this.anchor = null;
    this.node.hidden = true;
  }
}

// Where the browser keeps nothing for files on the disk, a theme lasts as long as the page.
const kept = {
  read: () => {
    try { return localStorage.getItem("theme"); } catch { return null; }
  },
  write: (theme) => {
    try { localStorage.setItem("theme", theme); } catch { /* not kept */ }
  },
};

function themes() {
  const box = document.getElementById("theme");
  const choose = (theme) => {
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    for (const button of box.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.value === theme));
    }
  };
  box.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    choose(button.value);
    kept.write(button.value);
  });
  const before = kept.read();
  choose(before === "light" || before === "dark" ? before : "system");
  box.hidden = false;
}

// On paper nothing can be unfolded.
function printing() {
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const details of closed) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of closed) details.open = false;
  });
}

// Charts of which one is shown at a time, chosen by name.
function chooser(place, choices, tooltip) {
  const id = `${place.dataset.chart}-choice`;
  const select = element("select", { id });
  const groups = new Map();
  choices.forEach((choice, index) => {
    if (!groups.has(choice.group)) groups.set(choice.group, element("optgroup", { label: choice.group }));
    groups.get(choice.group).append(element("option", { value: index }, choice.label));
  });
  select.append(...groups.values());
  const inner = element("div");
  const label = element("label", { for: id }, "Query ");
  place.replaceChildren(element("p", { class: "choice" }, label, select), inner);
  const chart = new Chart(inner, choices[0].chart, tooltip);
  select.addEventListener("change", () => chart.show(choices[Number(select.value)].chart));
}

function main() {
  themes();
  printing();
  const { charts: specs } = JSON.parse(document.getElementById("data").textContent);
  const tooltip = new Tooltip();
  for (const place of document.querySelectorAll("[data-chart]")) {
    const spec = specs[place.dataset.chart];
    if (spec.choices) chooser(place, spec.choices, tooltip);
    else new Chart(place, spec, tooltip);
  }
  document.documentElement.dataset.drawn = "true";
}

main();
