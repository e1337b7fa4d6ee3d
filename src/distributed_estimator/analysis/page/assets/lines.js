"use strict";

// Charts of curves over a number: loss and accuracy by step, speed-up by workers.
const LINES_HEIGHT = 260;

function linesDomains(chart) {
  const points = chart.spec.panels.flatMap((panel) => panel.series).flatMap((one) => one.points);
  const range = (values, axis) => {
    const known = [...values, axis.least, axis.most, axis.level].filter(Number.isFinite);
    const [least, most] = [Math.min(...known), Math.max(...known)];
    const room = most > least ? 0 : Math.abs(most) || 1;
    return [least - (axis.least === undefined ? room : 0), most + room];
  };
  const heights = points.flatMap((point) => [point.y, point.low, point.high]);
  return [range(points.map((point) => point.x), chart.spec.axis), range(heights, chart.spec.upright)];
}

function drawLines(chart, panel, width, number) {
  const [across, up] = linesDomains(chart);
  const [left, height] = [50, LINES_HEIGHT];
  const scale = new Scale(...across, chart.log, chart.view, left, width - left - 14);
  const upright = new Scale(...up, false, [0, 1], height - AXIS - 4, -(height - AXIS - 14));
  const svg = panelSvg(chart, panel, width, height, number);
  drawAxis(svg, scale, { height, left }, chart.spec.axis, width);
  for (const tick of upright.ticks(5)) {
    const y = upright.at(tick);
    svg.append(shape("line", { class: "grid", x1: left, x2: width - 14, y1: y, y2: y }));
    svg.append(shape("text", { class: "label", x: left - 6, y: y + 4 }, told(tick)));
  }
  if (Number.isFinite(chart.spec.upright.level)) {
    const y = upright.at(chart.spec.upright.level);
    svg.append(shape("line", { class: "level", x1: left, x2: width - 14, y1: y, y2: y }));
  }
  const clip = clipTo(svg, scale, height - AXIS + 8, number, chart);
  for (const series of panel.series.filter((one) => !chart.hidden.has(one.key))) {
    drawSeries(chart, series, scale, upright, clip);
  }
  svg.append(clip);
  return { svg, scale };
}

function drawSeries(chart, series, scale, upright, clip) {
  const { colour, dash, shape: kind } = chart.key(series.key);
  const places = series.points.map((point) => [scale.at(point.x), upright.at(point.y)]);
  const group = shape("g", { class: `c-${colour}` });
  const banded = series.points.filter((point) => Number.isFinite(point.low + point.high));
  if (banded.length > 1) {
    const top = banded.map((point) => `${scale.at(point.x)} ${upright.at(point.high)}`);
    const bottom = banded.map((point) => `${scale.at(point.x)} ${upright.at(point.low)}`).reverse();
    group.append(shape("path", { class: "band", d: `M${[...top, ...bottom].join("L")}z` }));
  }
  const d = `M${places.map((place) => place.join(" ")).join("L")}`;
  group.append(shape("path", { class: "line", "stroke-dasharray": dash, d }));
  clip.append(group);
  const size = series.points.length > 40 ? 2 : 4;
  series.points.forEach((point, index) => {
    const [x, y] = places[index];
    if (x < scale.start - 8 || x > scale.start + scale.length + 8) return;
    const node = chart.mark({ ...point, key: series.key });
    node.append(shape("circle", { class: "hit", cx: x, cy: y, r: 8 }), marker(kind, x, y, size));
    clip.append(node);
  });
}
