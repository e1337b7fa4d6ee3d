"use strict";

// A chart in its place on the page: legend, zoom, marks that pointer and keyboard reach.
const PATTERNS = {
  stripes: ["M-1 1l2 -2M0 8l8 -8M7 9l2 -2", 8],
  dots: ["M2 2h.01M6 6h.01", 8],
  crosses: ["M0 0l8 8M8 0l-8 8", 8],
  backward: ["M-1 7l2 2M0 0l8 8M7 -1l2 2", 8],
  level: ["M0 3h6", 6],
  upright: ["M3 0v6", 6],
};
const LEAST_VIEW = 1e-4;
let charts = 0;

class Chart {
  constructor(place, spec, tooltip) {
    charts += 1;
    Object.assign(this, { place, tooltip, id: `chart-${charts}` });
    this.legend = element("ul", { class: "legend", "aria-label": "Series; press to hide or show" });
    this.tools = element("div", { class: "tools", role: "group", "aria-label": "Zoom" });
    this.panels = element("div", { class: "panels" });
    const bar = element("div", { class: "controls" }, this.legend, this.tools);
    place.replaceChildren(bar, this.panels);
    this.listen();
    this.show(spec);
    this.width = 0;
    new ResizeObserver(() => {
      if (Math.abs(this.place.clientWidth - this.width) > 1) this.draw();
    }).observe(place);
  }

  show(spec) {
    Object.assign(this, { spec, hidden: new Set(), view: [0, 1], log: Boolean(spec.axis.log), current: 0 });
    this.keys = new Map(spec.keys.map((key) => [key.id, key]));
    this.buildLegend();
    this.buildTools();
    this.draw();
  }

  key(id) {
    return this.keys.get(id);
  }

  fill(id) {
    return this.key(id).pattern === "plain" ? null : `url(#${this.id}-${id})`;
  }

  buildLegend() {
    this.legend.replaceChildren(...this.spec.keys.map((key) => {
      const box = { class: "box solid", x: 1, y: 1, width: 22, height: 12, fill: this.fill(key.id) };
      const swatch = this.spec.panels[0]?.series
        ? [shape("path", { class: "line", d: "M0 7H24", "stroke-dasharray": key.dash }), marker(key.shape, 12, 7, 4)]
        : [shape("rect", box)];
      const icon = shape("svg", { width: 24, height: 14, "aria-hidden": "true", class: `c-${key.colour}` }, ...swatch);
      const button = element("button", { type: "button", "aria-pressed": "true" }, icon, element("span", {}, key.label));
      button.addEventListener("click", () => this.toggle(key.id, button));
      return element("li", {}, button);
    }));
  }

  toggle(id, button) {
    if (!this.hidden.delete(id)) this.hidden.add(id);
    button.setAttribute("aria-pressed", String(!this.hidden.has(id)));
    this.draw();
  }

  buildTools() {
    const button = (text, label, act) => {
      const node = element("button", { type: "button", "aria-label": label, title: label }, text);
      node.addEventListener("click", act);
      return node;
    };
    this.reset = button("Reset", "Show all of the axis", () => this.zoomTo(0, 1));
    const tools = [
      button("+", "Zoom in", () => this.zoom(0.5)),
      button("−", "Zoom out", () => this.zoom(2)),
      this.reset,
    ];
    if (this.spec.axis.log !== undefined) {
      const scale = button("log", "Logarithmic axis", () => {
        this.log = !this.log;
        scale.setAttribute("aria-pressed", String(this.log));
        this.zoomTo(0, 1);
      });
      scale.setAttribute("aria-pressed", String(this.log));
      tools.push(scale);
    }
    this.tools.replaceChildren(...tools);
  }

  zoom(factor, about = null) {
    const [from, to] = this.view;
    // Bars begin at the left: that is where they are looked at first.
    const centre = about ?? (this.spec.centred ? (from + to) / 2 : from);
    this.zoomTo(centre - (centre - from) * factor, centre + (to - centre) * factor);
  }

  pan(share) {
    const [from, to] = this.view;
    const by = Math.max(-from, Math.min(1 - to, share * (to - from)));
    this.zoomTo(from + by, to + by);
  }

  zoomTo(from, to) {
    const width = Math.min(1, Math.max(LEAST_VIEW, to - from));
    const begin = Math.max(0, Math.min(1 - width, from));
    this.view = [begin, begin + width];
    this.draw();
  }

  draw() {
    this.width = this.place.clientWidth;
    this.reset.disabled = this.view[0] === 0 && this.view[1] === 1;
    const focused = this.panels.contains(document.activeElement);
    this.marks = [];
    this.scales = [];
    this.panels.replaceChildren(...this.spec.panels.map(() => element("div", { class: "panel" })));
    [...this.panels.children].forEach((box, number) => this.drawPanel(box, number));
    this.current = Math.min(this.current, Math.max(0, this.marks.length - 1));
    this.marks[this.current]?.node.setAttribute("tabindex", "0");
    if (focused) this.focus(this.current);
  }

  drawPanel(box, number) {
    const panel = this.spec.panels[number];
    if (panel.title) box.append(element("h4", {}, panel.title));
    if (panel.origin) box.append(element("p", { class: "origin" }, panel.origin));
    const shown = panel.series
      ? panel.series.some((series) => !this.hidden.has(series.key))
      : rowsOf(panel).some((row) => shownMarks(row, this).length);
    if (!shown) {
      box.append(element("p", { class: "empty" }, "All series are hidden."));
      return;
    }
    const width = Math.max(200, Math.floor(box.clientWidth));
    const draw = panel.series ? drawLines : drawRows;
    const { svg, scale } = draw(this, panel, width, number);
    svg.prepend(this.patterns(number));
    this.scales[number] = scale;
    box.append(svg);
  }

  // Patterns tell series apart without colour. All panels share those of the first.
  patterns(number) {
    if (number !== this.spec.panels.findIndex((_, index) => this.scales[index] || index === number)) {
      return shape("defs");
    }
    const found = this.spec.keys.filter((key) => PATTERNS[key.pattern]).map((key) => {
      const [d, size] = PATTERNS[key.pattern];
      const box = { id: `${this.id}-${key.id}`, class: `c-${key.colour}`, width: size, height: size };
      const ground = shape("rect", { class: "ink", width: size, height: size });
      const lines = shape("path", { class: `hatch ${key.pattern}`, d });
      return shape("pattern", { ...box, patternUnits: "userSpaceOnUse" }, ground, lines);
    });
    return shape("defs", {}, ...found);
  }

  mark(mark) {
    const colour = this.key(mark.key).colour;
    const name = mark.told.join("; ");
    const index = this.marks.length;
    const node = shape("g", { class: `mark c-${colour}`, role: "img", tabindex: "-1", "aria-label": name, "data-mark": index });
    this.marks.push({ node, told: mark.told });
    return node;
  }

  focus(index) {
    if (!this.marks.length) return;
    this.marks[this.current]?.node.setAttribute("tabindex", "-1");
    this.current = (index + this.marks.length) % this.marks.length;
    const { node } = this.marks[this.current];
    node.setAttribute("tabindex", "0");
    node.focus();
  }

  listen() {
    const marked = (event) => {
      const node = event.target.closest?.(".mark");
      return node && this.marks[Number(node.dataset.mark)];
    };
    this.panels.addEventListener("pointerover", (event) => {
      const mark = marked(event);
      if (mark) this.tooltip.show(mark.told, event.clientX, event.clientY);
      else this.tooltip.hide();
    });
    this.panels.addEventListener("pointermove", (event) => {
      if (marked(event)) this.tooltip.move(event.clientX, event.clientY);
    });
    this.panels.addEventListener("pointerleave", () => this.tooltip.hide());
    this.panels.addEventListener("focusin", (event) => {
      const mark = marked(event);
      if (mark) this.tooltip.showAt(mark.told, mark.node);
    });
    this.panels.addEventListener("focusout", () => this.tooltip.hide());
    this.panels.addEventListener("keydown", (event) => this.press(event));
    this.panels.addEventListener("dblclick", () => this.zoomTo(0, 1));
    this.panels.addEventListener("pointerdown", (event) => this.brush(event));
  }

  press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    const acts = {
      Home: () => this.focus(0),
      End: () => this.focus(this.marks.length - 1),
      "+": () => this.zoom(0.5),
      "-": () => this.zoom(2),
      0: () => this.zoomTo(0, 1),
    };
    const step = steps[event.key];
    if (step && event.shiftKey) this.pan(step / 4);
    else if (step) this.focus(this.current + step);
    else if (acts[event.key]) acts[event.key]();
    else return;
    event.preventDefault();
  }

  // A range drawn with the mouse is zoomed into. Fingers scroll the page instead.
  brush(event) {
    const svg = event.target.closest?.("svg");
    if (event.pointerType !== "mouse" || event.button !== 0 || !svg) return;
    event.preventDefault(); // no text is selected on the way
    const scale = this.scales[Number(svg.dataset.panel)];
    const left = svg.getBoundingClientRect().left;
    const inside = (x) => Math.max(scale.start, Math.min(x - left, scale.start + scale.length));
    const begin = inside(event.clientX);
    const range = shape("rect", { class: "range", y: 0, height: svg.viewBox.baseVal.height - AXIS, x: begin, width: 0 });
    svg.append(range);
    const move = (now) => {
      const end = inside(now.clientX);
      range.setAttribute("x", Math.min(begin, end));
      range.setAttribute("width", Math.abs(end - begin));
    };
    const done = (now) => {
      removeEventListener("pointermove", move);
      removeEventListener("pointerup", done);
      removeEventListener("pointercancel", done);
      range.remove();
      const end = inside(now.clientX);
      if (now.type === "pointerup" && Math.abs(end - begin) > 6) {
        this.zoomTo(scale.share(Math.min(begin, end)), scale.share(Math.max(begin, end)));
      }
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", done);
    addEventListener("pointercancel", done);
  }
}
