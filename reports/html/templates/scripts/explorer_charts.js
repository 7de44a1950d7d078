// Fills the charts of reports/explorer/charts.py with data and draws them in the page's colours.

// The smallest and largest finite number; only positive numbers for a logarithmic scale.
function extent(numbers, positive) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of numbers) {
    if (value !== null && Number.isFinite(value) && (!positive || value > 0)) {
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return low <= high ? [low, high] : [positive ? 0.1 : 0, 1];
}

// The ends of a colour scale. If a few extreme cells would take most of the colours, e.g. the last
// layer's gradient, the scale ends before them (`cut`).
function colourDomain(numbers, kind) {
  const logarithm = kind === "log";
  const shown = numbers.filter((value) => Number.isFinite(value) && (!logarithm || value > 0));
  if (kind === "diverging") {
    const most = Math.max(...extent(shown.map(Math.abs), false)) || 1;
    return { low: -most, high: most, cut: false };
  }
  const [low, high] = widened(extent(shown, logarithm), logarithm);
  const sorted = Float64Array.from(shown).sort();
  const [from, to] = [0.05, 0.95].map((part) => sorted[Math.round(part * (sorted.length - 1))]);
  const span = (a, b) => (logarithm ? Math.log(b / a) : b - a);
  const cut = from < to && span(from, to) < span(low, high) / 2;
  return cut ? { low: from, high: to, cut } : { low, high, cut };
}

// The ends of a vertical scale.
function lineDomain(numbers, logarithm) {
  return widened(extent(numbers, logarithm), logarithm);
}

// The extent, widened if it is a single number.
function widened([low, high], logarithm) {
  if (low < high) return [low, high];
  const room = (Math.abs(low) || 1) / 2;
  return logarithm ? [low / 2, low * 2] : [low - room, low + room];
}

function binEdges(bins, bin) {
  return { x: bins[bin][0] - 0.5, x2: bins[bin][1] + 0.5 };
}

function binCentre(bins, bin) {
  return (bins[bin][0] + bins[bin][1]) / 2;
}

// The cells of a heat map by kind; a missing value has no cell.
function cellData(matrix, bins, logarithmic) {
  const data = { cells: [], nonfinite: [], zeros: [] };
  matrix.forEach((row, y) => {
    row.forEach((value, bin) => {
      if (Number.isNaN(value)) return;
      const cell = { ...binEdges(bins, bin), y, y2: y + 1, c: value };
      if (!Number.isFinite(value)) data.nonfinite.push(cell);
      else if (logarithmic && value <= 0) data.zeros.push(cell);
      else data.cells.push(cell);
    });
  });
  return data;
}

// About eight whole numbers to mark on an axis; by default a short axis would mark halves too.
function wholeMarks(first, last) {
  const room = Math.max(1, (last - first) / 8);
  const power = 10 ** Math.floor(Math.log10(room));
  const stride = [1, 2, 5, 10].map((step) => step * power).find((step) => step >= room);
  const from = Math.ceil(first / stride);
  const count = Math.floor(last / stride) - from + 1;
  return Array.from({ length: count }, (_, place) => (from + place) * stride);
}

// The ends and marks of the epoch axis.
function epochAxis(bins) {
  const ends = { first: bins[0][0] - 0.5, last: bins[bins.length - 1][1] + 0.5 };
  return { ...ends, marks: wholeMarks(ends.first, ends.last) };
}

// Names for a vertical axis of rows: each if there is room for it.
function nameTicks(names) {
  const stride = Math.ceil(names.length / 40) || 1;
  const rows = names.map((_, row) => row).filter((row) => row % stride === 0);
  return { ticks: rows.map((row) => row + 0.5), labels: rows.map((row) => names[row]) };
}

// Depth labels for a vertical axis of rows: at the first row of each depth, at most nine.
function depthTicks(depths) {
  const firsts = depths.flatMap((depth, row) =>
    depth !== null && (row === 0 || depths[row - 1] !== depth) ? [row] : []);
  const stride = Math.ceil(firsts.length / 9) || 1;
  const rows = firsts.filter((_, place) => place % stride === 0);
  return { ticks: rows.map((row) => row + 0.5), labels: rows.map((row) => String(depths[row])) };
}

function outlineCells(bins, rows, row, bin) {
  const marks = [{ ...binEdges(bins, bin), y: 0, y2: rows }];
  const across = { x: bins[0][0] - 0.5, x2: bins[bins.length - 1][1] + 0.5 };
  return row < 0 ? marks : [...marks, { ...across, y: row, y2: row + 1 }];
}

// Adds the points of one line; values that the scale cannot show become marks at top or bottom.
function addLine(data, name, points, network, series, logarithmic) {
  for (const [x, value] of points) {
    const zero = logarithmic && value <= 0;
    const shown = Number.isFinite(value) && !zero;
    data[name].push({ x, v: shown ? value : null, n: network, s: series });
    if (name === "lines" && value === Infinity) data.nonfinite.push({ x, n: network });
    if (name === "lines" && zero) data.zeros.push({ x, n: network });
  }
}

// Colours and fonts of the charts, from the page's style. Heat maps have a background colour that
// shows where values are missing.
function themeOf(element, isHeatMap) {
  const style = getComputedStyle(element);
  const colour = (name) => style.getPropertyValue(name).trim();
  const muted = colour("--muted");
  const ground = isHeatMap ? colour("--explorer-bare") : "transparent";
  return {
    background: "transparent",
    font: style.fontFamily,
    view: { stroke: colour("--rule"), fill: ground },
    axis: {
      labelColor: muted, titleColor: muted, tickColor: muted, domainColor: muted,
      gridColor: colour("--rule"), labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal",
    },
    legend: {
      labelColor: muted, titleColor: muted, labelFontSize: 11, titleFontSize: 11,
      titleFontWeight: "normal",
    },
    range: { category: [0, 1, 2, 3, 4, 5].map((place) => colour(`--network-${place}`)) },
  };
}

// A chart on the page, which can be drawn again or get new data.
class Chart {
  constructor(element) {
    this.element = element;
  }

  // `chart` is a specification without data; `caption` names its values; `label` describes the
  // chart for screen readers.
  async draw(chart, { caption, label, width, height, parameters, data }) {
    const spec = JSON.parse(JSON.stringify(chart), (key, value) =>
      key === "title" && value === "VALUE" ? caption : value);
    spec.params = Object.entries(parameters).map(([name, value]) => ({ name, value }));
    spec.datasets = data;
    spec.description = label;
    Object.assign(spec, { width, height, autosize: { type: "fit", contains: "padding" } });
    const place = document.createElement("div");
    const drawn = await vegaEmbed(place, spec, {
      mode: "vega-lite", ast: true, actions: false, renderer: "canvas", defaultStyle: false,
      tooltip: false, hover: false, config: themeOf(this.element, "cells" in data),
    });
    this.drawn?.finalize();
    this.drawn = drawn;
    this.element.replaceChildren(place);
  }

  async update({ data, parameters = {} }) {
    if (!this.drawn) return;
    const { view } = this.drawn;
    Object.entries(parameters).forEach(([name, value]) => view.signal(name, value));
    Object.entries(data).forEach(([name, rows]) => view.data(name, rows));
    await view.runAsync();
  }

  // Shows a text in place of the chart.
  showMessage(words) {
    this.drawn?.finalize();
    this.drawn = null;
    this.element.textContent = words;
  }

  // The position of the pointer in the units of the axes; null outside the chart.
  point(event) {
    const view = this.drawn?.view;
    const canvas = this.element.querySelector("canvas");
    if (!view || !canvas) return null;
    const box = canvas.getBoundingClientRect();
    const [left, top] = view.origin();
    const padding = view.padding();
    const x = event.clientX - box.left - left - padding.left;
    const y = event.clientY - box.top - top - padding.top;
    if (x < 0 || y < 0 || x > view.signal("width") || y > view.signal("height")) return null;
    return { x: view.scale("x").invert(x), y: view.scale("y").invert(y) };
  }
}
