"use strict";

// Charts whose panels are rows: bars, points with intervals, stacked stages, tasks by worker.
const AXIS = 44;
const NARROW = 460;

function rowsOf(panel) {
  return panel.groups.flatMap((group) => group.rows);
}

// The marks of a row that are shown, stacked anew where some of a stack are hidden.
function shownMarks(row, chart) {
  const shown = row.marks.filter((mark) => !chart.hidden.has(mark.key));
  if (!chart.spec.stacked) return shown;
  let end = 0;
  return shown.map((mark) => {
    const from = end;
    end += mark.to - mark.from;
    return { ...mark, from, to: end };
  });
}

function rowsDomain(chart) {
  const { axis } = chart.spec;
  const marks = chart.spec.panels.flatMap(rowsOf).flatMap((row) => row.marks);
  let ends = marks.flatMap((mark) => [mark.from, mark.to, mark.low, mark.high, mark.bound]);
  ends = [...ends, axis.level, axis.most].filter(Number.isFinite);
  if (chart.log) {
    ends = ends.filter((end) => end > 0);
    return [10 ** Math.floor(Math.log10(Math.min(...ends)) - 0.15), Math.max(...ends) * 1.15];
  }
  const points = marks.some((mark) => mark.look === "point");
  const [least, most] = [Math.min(...ends), Math.max(...ends)];
  const room = (most - least || 1) * 0.04;
  const low = points || least < 0 ? least - room : Math.min(0, least);
  return [low, axis.most ?? most + room];
}

function drawRows(chart, panel, width, number) {
  const groups = panel.groups
    .map((group) => ({ ...group, rows: group.rows.filter((row) => shownMarks(row, chart).length) }))
    .filter((group) => group.rows.length);
  const layout = rowsLayout(chart, groups, width);
  const scale = new Scale(
    ...rowsDomain(chart), chart.log, chart.view, layout.left, width - layout.left - layout.right,
  );
  const svg = panelSvg(chart, panel, width, layout.height, number);
  drawAxis(svg, scale, layout, chart.spec.axis, width);
  const clip = clipTo(svg, scale, layout.height - AXIS, number, chart);
  const front = shape("g");
  for (const group of layout.groups) {
    group.title.forEach((line, index) => {
      svg.append(shape("text", { class: "group", x: 0, y: group.y + 13 + 15 * index }, line));
    });
    for (const row of group.rows) drawRow(chart, row, scale, layout, clip, front);
  }
  svg.append(clip, front);
  return { svg, scale };
}

function rowsLayout(chart, groups, width) {
  const rows = groups.flatMap((group) => group.rows);
  const widest = (name) => Math.max(0, ...rows.map((row) => textWidth(row[name] || "")));
  const narrow = width < NARROW;
  const left = Math.min(widest("label") + 10, width * 0.3);
  const right = narrow ? 14 : Math.min(widest("note") + 16, width * 0.4);
  const noted = narrow && rows.some((row) => row.note);
  const thick = chart.spec.thin ? 14 : 16;
  const step = (chart.spec.thin ? 19 : 23) + (noted ? 15 : 0);
  const placed = [];
  let y = 4;
  for (const group of groups) {
    const title = group.title ? wrapped(group.title, width - 4, 3, 12, 600) : [];
    const begin = y;
    y += 15 * title.length + (title.length ? 7 : 0);
    const mine = group.rows.map((row, index) => ({ ...row, y: y + step * index }));
    placed.push({ title, rows: mine, y: begin });
    y += step * mine.length + 8;
  }
  return { groups: placed, left, right, noted, thick, narrow, height: y + AXIS, label: left - 8 };
}

function drawRow(chart, row, scale, layout, clip, front) {
  const top = row.y + (layout.noted ? 15 : 0);
  const middle = top + layout.thick / 2;
  const label = wrapped(row.label, layout.label, 1)[0];
  front.append(shape("text", { class: "label", x: layout.left - 8, y: middle + 4 }, label));
  const marks = shownMarks(row, chart);
  for (const mark of marks) {
    const node = drawMark(chart, mark, scale, top, layout.thick, marks.length === 1);
    if (node) clip.append(node);
  }
  if (!row.note) return;
  const ends = marks.flatMap((mark) => [mark.to, mark.high, mark.bound]).filter(Number.isFinite);
  const end = Math.min(scale.at(Math.max(...ends)), scale.start + scale.length);
  const place = layout.noted
    ? { x: layout.left, y: top - 4 }
    : { x: Math.max(end, scale.start) + 7, y: middle + 4 };
  front.append(shape("text", { class: "note", ...place }, row.note));
}

function drawMark(chart, mark, scale, top, thick, alone) {
  const whiskers = [mark.low, mark.high].filter(Number.isFinite);
  const ends = [mark.from, mark.to, ...whiskers].map((end) => scale.at(end));
  const [least, most] = [Math.min(...ends), Math.max(...ends)];
  const [begin, end] = [scale.start, scale.start + scale.length];
  if (most < begin - 0.5 || least > end + 0.5) return null;
  const node = chart.mark(mark);
  const middle = top + thick / 2;
  // What the pointer meets: all of the row where it holds one mark.
  const hit = alone ? [begin, end] : [least, Math.max(most, least + 4)];
  node.append(shape("rect", { class: "hit", x: hit[0], y: top - 2, width: hit[1] - hit[0], height: thick + 4 }));
  if (mark.look !== "point") {
    const [x, to] = [scale.at(mark.from), scale.at(mark.to)]
      .map((place) => Math.max(place, begin))
      .sort((a, b) => a - b);
    const slim = mark.look === "inner" ? thick / 3 : thick;
    const box = { x, y: middle - slim / 2, width: Math.max(to - x, 1), height: slim };
    node.append(shape("rect", { class: `box ${mark.look}`, fill: chart.fill(mark.key), ...box }));
  }
  if (whiskers.length === 2 && mark.high > mark.low) node.append(whisker(mark, scale, middle));
  if (mark.look === "point") node.append(marker(mark.shape, scale.at(mark.to), middle, 5.5));
  if (Number.isFinite(mark.bound)) {
    const x = scale.at(mark.bound);
    node.append(shape("line", { class: "bound", x1: x, x2: x, y1: top - 3, y2: top + thick + 3 }));
  }
  return node;
}

function whisker(mark, scale, y) {
  const [low, high] = [scale.at(mark.low), scale.at(mark.high)];
  const cap = (x) => `M${x} ${y - 4}V${y + 4}`;
  const d = `M${low} ${y}H${high}${cap(low)}${cap(high)}`;
  // A light line beneath keeps it visible on a dark bar.
  return shape("g", {}, shape("path", { class: "halo", d }), shape("path", { class: "whisker", d }));
}

function marker(kind, x, y, size) {
  const paths = {
    square: `M${x - size} ${y - size}h${2 * size}v${2 * size}h${-2 * size}z`,
    diamond: `M${x} ${y - 1.3 * size}l${1.3 * size} ${1.3 * size}l${-1.3 * size} ${1.3 * size}l${-1.3 * size} ${-1.3 * size}z`,
    triangle: `M${x} ${y - 1.2 * size}l${1.2 * size} ${2.1 * size}h${-2.4 * size}z`,
  };
  if (paths[kind]) return shape("path", { class: "ink", d: paths[kind] });
  return shape("circle", { class: "ink", cx: x, cy: y, r: size });
}

function drawAxis(svg, scale, layout, axis, width) {
  const bottom = layout.height - AXIS;
  const ticks = axis.ticks ?? scale.ticks(Math.max(2, Math.floor(scale.length / 64)));
  for (const tick of ticks) {
    const x = scale.at(tick);
    if (x < scale.start - 1 || x > scale.start + scale.length + 1) continue;
    svg.append(shape("line", { class: "grid", x1: x, x2: x, y1: 4, y2: bottom }));
    svg.append(shape("text", { class: "tick", x, y: bottom + 14 }, told(tick)));
  }
  const label = wrapped(axis.label + (scale.log ? " (logarithmic)" : ""), width, 2);
  label.forEach((line, index) => {
    const y = bottom + 30 + 13 * index;
    svg.append(shape("text", { class: "axis", x: label.length > 1 ? 0 : Math.min(layout.left, width - textWidth(line) - 2), y }, line));
  });
  if (Number.isFinite(axis.level)) {
    const x = scale.at(axis.level);
    if (x < scale.start || x > scale.start + scale.length) return;
    svg.append(shape("line", { class: "level", x1: x, x2: x, y1: 4, y2: bottom }));
  }
}

function clipTo(svg, scale, height, number, chart) {
  const id = `${chart.id}-clip-${number}`;
  const box = { x: scale.start - 8, y: 0, width: scale.length + 16, height };
  svg.append(shape("clipPath", { id }, shape("rect", box)));
  return shape("g", { "clip-path": `url(#${id})` });
}

function panelSvg(chart, panel, width, height, number) {
  const name = [chart.spec.title, panel.title].filter(Boolean).join(": ");
  const size = { width, height, viewBox: `0 0 ${width} ${height}` };
  const svg = shape("svg", { role: "group", "aria-label": name, "data-panel": number, ...size });
  return svg;
}
