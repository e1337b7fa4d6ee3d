"use strict";

// Elements are made of nodes and text nodes alone: nothing from data is ever parsed as HTML.
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function element(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function shape(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

const ruler = document.createElement("canvas").getContext("2d");

function textWidth(text, size = 12, weight = 400) {
  ruler.font = `${weight} ${size}px system-ui, sans-serif`;
  return ruler.measureText(text).width;
}

// Text in at most `most` lines, each at most `width` pixels; the rest becomes an ellipsis.
function wrapped(text, width, most, size = 12, weight = 400) {
  const fits = (line) => textWidth(line, size, weight) <= width;
  const lines = [];
  let line = "";
  for (const word of text.split(" ")) {
    const longer = line ? `${line} ${word}` : word;
    if (fits(longer) || !line) {
      line = longer;
    } else {
      lines.push(line);
      line = word;
    }
  }
  lines.push(line);
  const kept = lines.slice(0, most);
  if (lines.length > most) kept[most - 1] += "…";
  return kept.map((one) => shortened(one, fits));
}

function shortened(line, fits) {
  if (fits(line)) return line;
  const letters = [...line];
  let [low, high] = [0, letters.length];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (fits(`${letters.slice(0, middle).join("")}…`)) low = middle;
    else high = middle - 1;
  }
  return `${letters.slice(0, low).join("")}…`;
}

function told(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e7 || size < 1e-3) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  if (size >= 1000) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(3)));
}

// A scale from data to pixels of which a part, `view` within [0, 1], is shown.
class Scale {
  constructor(least, most, log, view, start, length) {
    this.of = log ? Math.log10 : (value) => value;
    this.log = log;
    [this.least, this.most] = [this.of(least), this.of(most)];
    Object.assign(this, { view, start, length });
  }

  at(value) {
    const number = this.log && !(value > 0) ? -Infinity : this.of(value);
    const share = (number - this.least) / (this.most - this.least);
    const [from, to] = this.view;
    const place = this.start + ((share - from) / (to - from)) * this.length;
    // Far outside, an SVG's own arithmetic fails.
    return Math.max(this.start - 5000, Math.min(place, this.start + this.length + 5000));
  }

  share(pixel) {
    const [from, to] = this.view;
    return from + ((pixel - this.start) / this.length) * (to - from);
  }

  shown() {
    const ends = this.view.map((share) => this.least + share * (this.most - this.least));
    return this.log ? ends.map((end) => 10 ** end) : ends;
  }

  ticks(room) {
    const [least, most] = this.shown();
    if (!this.log || most / least < 10) return roundTicks(least, most, room);
    const first = Math.ceil(Math.log10(least) - 1e-9);
    const last = Math.floor(Math.log10(most) + 1e-9);
    const step = Math.max(1, Math.ceil((last - first + 1) / room));
    const found = [];
    for (let power = first; power <= last; power += step) found.push(10 ** power);
    return found;
  }
}

function roundTicks(least, most, room) {
  const rough = (most - least) / Math.max(1, room);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((size) => size >= rough * 0.999);
  const found = [];
  for (let tick = Math.ceil(least / step - 1e-9); tick * step <= most + step * 1e-9; tick += 1) {
    found.push(Number((tick * step).toPrecision(12)));
  }
  return found;
}
