// Draws the numbers of a training: a curve above a heat map of rows (layers) by time. Loads nothing.
// The model's blocks hold, column by column, the decimal logarithms of the total and of each row as
// float32: -Infinity is zero, Infinity is nan or infinite, NaN is missing.

const BLOCK = 16; // columns in a block
const SVG = "http://www.w3.org/2000/svg";
// Viridis, from its dark end to its light end; grey is zero, vermilion what is not finite.
const SCALE = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const ZERO = [136, 136, 136];
const BROKEN = [213, 94, 0];
const RIGHT = 14, NAMES = 18, CURVE = 112, GAP = 22;
const KINDS = ["one", "two", "three", "four"]; // of lines, see view.css
const LONGEST = 24; // letters of a name
const TOTAL = "gradient norm";
const LOSS = /loss/;

function make(parent, name, attributes = {}, words = "") {
  const inSvg = parent.namespaceURI === SVG || name === "svg";
  const made = inSvg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = words;
  parent.append(made);
  return made;
}

function colour(log, low, high) {
  if (log === -Infinity) return ZERO;
  if (log === Infinity) return BROKEN;
  const place = high > low ? Math.min(1, Math.max(0, (log - low) / (high - low))) * 4 : 2;
  const below = Math.min(3, Math.floor(place));
  return SCALE[below].map((one, i) => Math.round(one + (place - below) * (SCALE[below + 1][i] - one)));
}

function power(log) {
  if (log === -Infinity) return "0";
  if (log === Infinity) return "not finite";
  return log > -3.0001 && log < 4 ? String(Number((10 ** log).toPrecision(3)))
    : `${(10 ** (log - Math.floor(log))).toFixed(1)}e${Math.floor(log)}`;
}

const short = (name, most) => (name.length <= most ? name : `…${name.slice(1 - most)}`);
const number = (value) => (Math.abs(value) >= 1e5 || (value && Math.abs(value) < 1e-3)
  ? value.toExponential(2) : String(Number(value.toPrecision(4))));

// What the model holds now.
function read(model) {
  const names = model.get("names"), columns = model.get("columns"), rows = names.length + 1;
  const blocks = new Map();
  const at = (column, row) => {
    const key = Math.floor(column / BLOCK);
    if (!blocks.has(key)) blocks.set(key, model.get(`block${key}`));
    const place = 4 * ((column % BLOCK) * rows + row), block = blocks.get(key);
    return block && place + 4 <= block.byteLength ? block.getFloat32(place, true) : NaN;
  };
  // The ends of the scale leave out the most extreme of 200 values on either side.
  const known = [];
  for (let column = 0; column < columns.length; column++)
    for (let row = 1; row < rows; row++)
      if (Number.isFinite(at(column, row))) known.push(at(column, row));
  const sorted = Float64Array.from(known).sort();
  const cut = Math.floor(sorted.length / 200);
  const low = sorted.length ? sorted[cut] : 0;
  const high = sorted.length ? sorted[sorted.length - 1 - cut] : 0;
  const longest = Math.max(0, ...names.map((name) => Math.min(LONGEST, name.length)));
  const left = Math.max(64, 7 * longest + 12);
  return { names, columns, at, low, high, left, every: model.get("every"), worst: model.get("worst") };
}

// The curves that share axes: those given to end_epoch by the last word of their names, four at most.
function families(data, curves) {
  const found = new Map();
  for (const [name, points] of Object.entries(curves)) {
    const word = name.split("_").pop();
    const family = found.get(word)?.length === KINDS.length ? name : word;
    if (!found.has(family)) found.set(family, []);
    found.get(family).push({ name, points });
  }
  const total = data.columns.map(([first, last], i) => [(first + last) / 2, 10 ** data.at(i, 0)]);
  if (total.some(([, y]) => Number.isFinite(y))) found.set(TOTAL, [{ name: TOTAL, points: total }]);
  return found;
}

function preferred(found, chosen) {
  for (const [family, curves] of found)
    if (family === chosen || curves.some((one) => one.name === chosen)) return family;
  return [...found.keys()].find((family) => LOSS.test(family))
    ?? (found.has(TOTAL) ? TOTAL : found.keys().next().value);
}

// A place between 0 and 1 for each moment: columns are equally wide, whatever they hold.
function placing(columns) {
  return (moment) => {
    let column = columns.findIndex(([, last]) => moment <= last);
    if (column < 0) column = columns.length - 1;
    return (column + 0.5) / Math.max(1, columns.length);
  };
}

function drawCurve(svg, curves, data, width) {
  const { left } = data, place = placing(data.columns);
  const kept = curves.map(({ name, points }) => ({
    name, points: points.filter(([, y]) => y !== null && Number.isFinite(y)),
  }));
  const values = kept.flatMap(({ points }) => points.map(([, y]) => y));
  make(svg, "path", { class: "axis", d: `M${left} ${NAMES}V${CURVE}H${left + width}` });
  if (!values.length) return;
  const least = Math.min(...values), most = Math.max(...values);
  const log = least > 0 && most / least > 30;
  const scaled = log ? Math.log10 : (y) => y;
  const span = scaled(most) - scaled(least) || 1;
  const y = (value) => CURVE - 5 - ((scaled(value) - scaled(least)) / span) * (CURVE - NAMES - 10);
  make(svg, "text", { x: left - 6, y: NAMES + 9, "text-anchor": "end" }, number(most));
  if (most > least)
    make(svg, "text", { x: left - 6, y: CURVE, "text-anchor": "end" }, number(least));
  if (log) make(svg, "text", { x: left - 6, y: (NAMES + CURVE) / 2 + 5, "text-anchor": "end" }, "log scale");
  kept.forEach(({ name, points }, i) => {
    const kind = `curve ${KINDS[i]}`;
    const at = points.map(([moment, value]) =>
      [(left + place(moment) * width).toFixed(1), y(value).toFixed(1)]);
    if (at.length > 1) make(svg, "path", { class: kind, d: `M${at.join("L")}` });
    if (at.length < 25)
      for (const [cx, cy] of at) make(svg, "circle", { class: kind, cx, cy, r: 2.5 });
    const last = points.length ? ` ${number(points[points.length - 1][1])}` : "";
    make(svg, "text", { class: kind, x: left + (i * width) / kept.length, y: 11 }, name + last);
  });
}

// The logarithm to draw for the rows from `first` to before `end`: what is not finite, or zero, wins.
function joined(data, column, first, end) {
  let sum = 0, count = 0, extreme = null;
  for (let row = first; row < end; row++) {
    const log = data.at(column, row + 1);
    if (Number.isFinite(log)) [sum, count] = [sum + log, count + 1];
    else if (!Number.isNaN(log) && extreme !== Infinity) extreme = log;
  }
  return extreme ?? sum / count;
}

function drawMap(canvas, data, height) {
  // Of more rows than pixels, some are drawn as one.
  const columns = data.columns.length, rows = Math.min(data.names.length, height);
  canvas.width = Math.max(1, columns);
  canvas.height = Math.max(1, rows);
  const pixels = new ImageData(canvas.width, canvas.height);
  const start = (row) => Math.floor((row * data.names.length) / rows);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const log = joined(data, column, start(row), start(row + 1));
      if (!Number.isNaN(log))
        pixels.data.set([...colour(log, data.low, data.high), 255], 4 * (row * columns + column));
    }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// The names of as many rows as there is room for, and always that of the worst.
function drawNames(svg, data, top, height) {
  const { left } = data, rows = data.names.length, each = height / rows;
  const worst = data.names.indexOf(data.worst[0]);
  const apart = Math.max(1, Math.ceil(13 / each));
  for (let row = 0; row < rows; row++) {
    const isWorst = row === worst;
    const isHidden = worst >= 0 && !isWorst && Math.abs(row - worst) < apart;
    if (!isWorst && (row % apart || isHidden)) continue;
    const place = { x: left - 6, y: (top + (row + 0.5) * each + 4).toFixed(1), "text-anchor": "end" };
    make(svg, "text", isWorst ? { ...place, class: "bad" } : place,
      (isWorst ? "▸ " : "") + short(data.names[row], LONGEST - (isWorst ? 2 : 0)));
  }
}

function drawTime(svg, data, top, width) {
  const { columns, every, left } = data, count = columns.length, each = width / count;
  for (let column = 0; column < count; column += Math.max(1, Math.ceil(70 / each)))
    if (!column || column * each < width - 36)
      make(svg, "text", { x: (left + column * each).toFixed(1), y: top + 14 },
        (column ? "" : `${every} `) + columns[column][0]);
}

// Where epochs begin, between the curve and the map.
function drawEpochs(svg, data, width) {
  const { columns, every, left } = data, each = width / columns.length;
  let free = 0;
  if (every === "step")
    for (let column = 1; column < columns.length; column++) {
      if (columns[column][2] === columns[column - 1][2]) continue;
      const x = column * each;
      if (x < free || x > width - 50) continue;
      make(svg, "path", { class: "axis", d: `M${(left + x).toFixed(1)} ${CURVE}v${GAP - 2}` });
      const words = (free ? "" : "epoch ") + columns[column][2];
      make(svg, "text", { x: (left + x + 4).toFixed(1), y: CURVE + 14 }, words);
      free = x + (free ? 34 : 66);
    }
}

function drawScale(svg, data, top, quantity) {
  const { left } = data;
  const id = `gradflow-${Math.random().toString(36).slice(2)}`;
  const gradient = make(make(svg, "defs"), "linearGradient", { id });
  SCALE.forEach((one, i) => make(gradient, "stop", { offset: i / 4, "stop-color": `rgb(${one})` }));
  make(svg, "text", { x: left + 44, y: top + 9, "text-anchor": "end" }, power(data.low));
  make(svg, "rect", { x: left + 50, y: top, width: 120, height: 10, fill: `url(#${id})` });
  let x = left + 176;
  x += make(svg, "text", { x, y: top + 9 }, power(data.high)).getComputedTextLength() + 18;
  x += make(svg, "text", { x, y: top + 9 }, quantity).getComputedTextLength() + 18;
  for (const [words, fill, value] of [["zero", ZERO, -Infinity], ["not finite", BROKEN, Infinity]]) {
    const isThere = data.columns.some((_, c) => data.names.some((_, r) => data.at(c, r + 1) === value));
    if (!isThere) continue;
    make(svg, "rect", { x, y: top, width: 10, height: 10, fill: `rgb(${fill})` });
    x += make(svg, "text", { x: x + 14, y: top + 9 }, words).getComputedTextLength() + 28;
  }
}

function render({ model, el }) {
  const view = make(el, "div", { class: "gradflow-view" });
  const head = make(view, "div", { class: "head" });
  const when = make(head, "span", { class: "when" });
  const worst = make(head, "span", { class: "worst" });
  const select = make(head, "select", { "aria-label": "curve" });
  const plot = make(view, "div", { class: "plot" });
  const canvas = make(plot, "canvas", { role: "img" });
  const svg = make(plot, "svg", { "aria-hidden": "true" });
  const tip = make(view, "div", { class: "tip", hidden: "" });
  let chosen = model.get("chosen"), data = read(model), box = null, waits = false;

  function drawHead(found, family) {
    const [moment, epoch, ended] = model.get("last");
    const at = data.every === "step" ? `step ${moment}, epoch ${epoch}` : `epoch ${epoch}`;
    const waiting = ended ? "no step was recorded" : "waiting for the first recorded steps";
    when.textContent = data.columns.length ? at + (ended ? ", ended" : "") : waiting;
    worst.replaceChildren();
    if (data.worst[0]) {
      worst.append(`worst ${model.get("row")} `);
      make(worst, "b", {}, data.worst[0]);
      worst.append(`: ${data.worst[1]}`);
    }
    const options = [...found.keys()];
    if (options.join("\n") !== [...select.options].map((one) => one.value).join("\n")) {
      select.replaceChildren();
      for (const one of options) make(select, "option", { value: one }, one);
    }
    select.value = family;
    select.hidden = options.length < 2;
  }

  function draw() {
    waits = false;
    data = read(model);
    const found = families(data, model.get("curves")), family = preferred(found, chosen);
    drawHead(found, family);
    svg.replaceChildren();
    tip.hidden = true;
    plot.hidden = !data.columns.length;
    if (plot.hidden) return;
    const width = Math.max(120, plot.clientWidth - data.left - RIGHT), rows = data.names.length;
    const height = rows ? Math.round(Math.min(Math.max(rows * 14, 42), rows > 40 ? 420 : 300)) : 0;
    const top = CURVE + GAP;
    plot.style.height = `${top + height + 40}px`;
    drawCurve(svg, found.get(family) ?? [], data, width);
    drawMap(canvas, data, height);
    canvas.style.cssText += `;left:${data.left}px;top:${top}px;width:${width}px;height:${height}px`;
    canvas.setAttribute("aria-label",
      `${model.get("quantity")} of ${rows} ${model.get("row")}s by ${data.every}; ${worst.textContent}`);
    box = { width, height };
    if (rows) drawNames(svg, data, top, height);
    drawTime(svg, data, top + height, width);
    drawEpochs(svg, data, width);
    if (rows) drawScale(svg, data, top + height + 26, model.get("quantity"));
  }

  function renew() {
    // Messages may come faster than pictures are shown.
    if (!waits) requestAnimationFrame(draw);
    waits = true;
  }

  function point(event) {
    if (!box || !data.names.length) return;
    const column = Math.floor((event.offsetX / box.width) * data.columns.length);
    const row = Math.floor((event.offsetY / box.height) * data.names.length);
    if (!data.columns[column] || !data.names[row]) return;
    const [first, last, epoch] = data.columns[column], log = data.at(column, row + 1);
    const moments = first === last ? `${data.every} ${first}` : `mean of ${data.every}s ${first} to ${last}`;
    const value = Number.isNaN(log) ? "not recorded" : power(log);
    tip.textContent = `${data.names[row]}\n${value}, ${moments}${data.every === "step" ? `, epoch ${epoch}` : ""}`;
    tip.hidden = false;
    const around = view.getBoundingClientRect();
    const x = event.clientX - around.left + 14;
    tip.style.left = `${Math.max(4, Math.min(x, around.width - tip.offsetWidth - 8))}px`;
    tip.style.top = `${event.clientY - around.top + 16}px`;
  }

  canvas.addEventListener("mousemove", point);
  canvas.addEventListener("mouseleave", () => { tip.hidden = true; });
  select.addEventListener("change", () => { chosen = select.value; draw(); });
  const resized = new ResizeObserver(renew);
  resized.observe(plot);
  model.on("change:revision", renew);
  draw();
  return () => {
    resized.disconnect();
    model.off("change:revision", renew);
  };
}

export default { render };
