"use strict";

const OPTIONS = {
  renderer: "svg", actions: false, ast: true, defaultStyle: false,
  tooltip: { disableDefaultStyle: true },
};

function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function button(label, pressed, act) {
  const node = element("button", { type: "button" }, ...[label].flat());
  if (pressed !== null) node.setAttribute("aria-pressed", String(pressed));
  node.addEventListener("click", () => act(node));
  return node;
}

// Turns a button over and returns its new state.
function turned(node) {
  const pressed = node.getAttribute("aria-pressed") !== "true";
  node.setAttribute("aria-pressed", String(pressed));
  return pressed;
}

// A bar's axis that goes by powers of ten, the other way: from 0.
function linear(spec) {
  const copy = structuredClone(spec);
  for (const { encoding } of copy.layer) {
    if (encoding?.x?.scale?.type !== "log") continue;
    encoding.x.scale = { zero: true };
    encoding.x.title[0] = encoding.x.title[0].replace(/, logarithmic axis.*/, "");
    delete encoding.x.axis.values;
  }
  return copy;
}

// The middle half of the horizontal axis, or twice as much of it.
function zoom(view, factor) {
  const scale = view.scale("x");
  const [low, high] = scale.range();
  const middle = (low + high) / 2, half = (factor * (high - low)) / 2;
  const [{ field }] = view.signal("zoom_tuple_fields");
  view.signal(`zoom_${field}`, [scale.invert(middle - half), scale.invert(middle + half)]).run();
}

class Chart {
  constructor(place, figure) {
    this.place = place;
    this.hidden = new Set();
    this.panels = element("div", { class: "panels" });
    this.empty = element("p", { class: "empty", hidden: "" }, "All series are hidden.");
    this.drawn = this.show(figure);
  }

  async show(figure) {
    this.figure = figure;
    this.change = undefined;
    this.hidden.clear();
    const keys = Object.entries(figure.colours).map(([key, colour]) => {
      const swatch = element("span", { class: "swatch" });
      swatch.style.background = colour;
      return button([swatch, key], true, (node) => this.toggle(key, turned(node)));
    });
    const tools = [
      button("Zoom in", null, () => this.views.forEach((view) => zoom(view, 0.5))),
      button("Zoom out", null, () => this.views.forEach((view) => zoom(view, 2))),
      button("Show all of the axis", null, () => this.draw()),
    ];
    if (figure.log) {
      tools.push(button("Logarithmic axis", true, (node) => this.draw(turned(node) ? undefined : linear)));
    }
    this.place.replaceChildren(
      element("div", { class: "legend", role: "group", "aria-label": "Series" }, ...keys),
      element("div", { class: "tools", role: "group", "aria-label": "Axis" }, ...tools),
      this.empty, this.panels,
    );
    await this.draw();
  }

  async draw(change = this.change ?? ((spec) => spec)) {
    this.change = change;
    const places = this.figure.panels.map(() => element("div", { class: "panel" }));
    const columns = places.map((place, index) =>
      element("div", { class: "column" }, element("h4", {}, this.figure.titles[index]), place));
    this.panels.replaceChildren(...columns);
    const drawn = await Promise.all(
      this.figure.panels.map((spec, index) => vegaEmbed(places[index], change(spec), OPTIONS)),
    );
    this.views = drawn.map((one) => one.view);
    await this.apply();
  }

  async toggle(key, shown) {
    if (shown) this.hidden.delete(key);
    else this.hidden.add(key);
    await this.apply();
  }

  async apply() {
    const none = this.hidden.size === Object.keys(this.figure.colours).length;
    this.empty.hidden = !none;
    for (const view of this.views) await view.signal("hidden", [...this.hidden]).runAsync();
  }
}

// Figures of which one is shown at a time, chosen by name.
async function chooser(place, choices) {
  const id = `${place.dataset.chart}-choice`;
  const options = choices.map(({ label }, index) => element("option", { value: index }, label));
  const select = element("select", { id }, ...options);
  const inner = element("div", {});
  place.replaceChildren(element("p", { class: "choice" }, element("label", { for: id }, "Query "), select), inner);
  const chart = new Chart(inner, choices[0]);
  await chart.drawn;
  select.addEventListener("change", () => chart.show(choices[Number(select.value)]));
}

// Where the browser keeps nothing for files on the disk, a theme lasts as long as the page.
const kept = {
  read: () => { try { return localStorage.getItem("theme"); } catch { return null; } },
  write: (theme) => { try { localStorage.setItem("theme", theme); } catch { /* not kept */ } },
};

function themes() {
  const box = document.getElementById("theme");
  const choose = (theme) => {
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
    for (const node of box.querySelectorAll("button")) {
      node.setAttribute("aria-pressed", String(node.value === theme));
    }
  };
  box.addEventListener("click", (event) => {
    const node = event.target.closest("button");
    if (!node) return;
    choose(node.value);
    kept.write(node.value);
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

async function main() {
  themes();
  printing();
  const figures = JSON.parse(document.getElementById("data").textContent);
  for (const place of document.querySelectorAll("[data-chart]")) {
    const figure = figures[place.dataset.chart];
    if (figure.choices) await chooser(place, figure.choices);
    else await new Chart(place, figure).drawn;
  }
  document.documentElement.dataset.drawn = "true";
}

main();
