// The reader's selection, and the rows and texts that follow from it in each network.

const element = (name) => document.getElementById(`explorer-${name}`);
const data = JSON.parse(element("data").textContent);
// The charts are those of every report: what their axes are called depends on the recording.
const withTitle = (text, title, other) => text.replaceAll(`"title": "${title}"`, `"title": "${other}"`);
const charts = JSON.parse(withTitle(element("charts").textContent, "epoch", data.time));
if (data.named) charts.heat = JSON.parse(withTitle(JSON.stringify(charts.heat, null, 1), "depth", "layer"));
const bins = data.bins;
const quantities = new Map();
for (const group of data.groups) {
  for (const description of group.quantities) {
    quantities.set(`${group.key}.${description.name}`, new Quantity(data, group, description));
  }
}
const seeds = [...new Set(data.runs.map((run) => run.seed))];

// The selection; the controls and the address of the page show it.
const state = {
  quantity: quantities.keys().next().value,
  network: data.networks.length > 1 ? "" : "0",
  seed: seeds.length > 1 ? "" : seeds[0],
  kind: "weights",
  scale: "",
  layer: "",
  epoch: bins.length - 1,
};

function currentQuantity() {
  return quantities.get(state.quantity);
}

function shownNetworks() {
  const all = data.networks.map((_, place) => place);
  return all.filter((place) => state.network === "" || String(place) === state.network);
}

function rowsShown(network) {
  return currentQuantity().rowsOfKind(network, state.kind);
}

function logarithmic() {
  const { log, signed } = currentQuantity().description;
  return !signed && (state.scale ? state.scale === "log" : log);
}

// The chosen layer, or if it is not shown, the nearest shown one; the first if none was chosen. The
// description serves to find the corresponding layer in other networks.
function chosenLayer() {
  const networks = shownNetworks().filter((network) => rowsShown(network).length);
  for (const network of networks) {
    const { layer } = currentQuantity().rows[network];
    const place = rowsShown(network).find((row) => layer[row] === state.layer);
    if (place !== undefined) return describeRow(network, place);
  }
  const known = data.rows.layers.find((rows) => rows.layer.includes(state.layer));
  const position = known ? known.position[known.layer.indexOf(state.layer)] : 0;
  const network = networks[0] ?? 0;
  return describeRow(network, currentQuantity().rowNearest(network, rowsShown(network), position));
}

// The description of a row; empty texts if there is no such row.
function describeRow(network, place) {
  const rows = currentQuantity().rows[network];
  return {
    network,
    layer: rows.layer[place] ?? "",
    name: rows.name[place] ?? "",
    type: rows.type[place] ?? "",
    role: rows.role[place] ?? "",
    shape: rows.shape[place] ?? "",
    depth: rows.depth[place] ?? null,
    position: rows.position[place] ?? 0,
  };
}

function caption() {
  const { name, unit } = currentQuantity().description;
  return unit ? `${name} (${unit})` : name;
}

function quantityText(group, name) {
  return `${group.key}: ${name}`;
}

// The formula and summary of the values shown.
function formulaText() {
  const { name, formula, largest, signed } = currentQuantity().description;
  const { of } = currentQuantity().group;
  const over = largest ? "The largest" : "The median";
  const signs = " Orange is above 0, blue below; in grey print take the sign from the value.";
  return `${name} = ${formula}; ${of}. ${over} over the recorded steps.${signed ? signs : ""}`;
}

// Type, shape and depth of a row, as a text.
function layerDetails({ type, shape, depth }) {
  return [type, shape, depth === null ? "" : `depth ${depth}`].filter(Boolean).join(", ");
}

// The value at the row of `network` that corresponds to `layer`, with its name if it differs.
function valueText(network, layer, bin) {
  const place = currentQuantity().findRow(network, rowsShown(network), layer);
  if (place < 0) return "no such layer";
  const runs = currentQuantity().runsOf(network, state.seed);
  const value = numberText(currentQuantity().value(runs, place, bin));
  const found = describeRow(network, place);
  return found.layer === layer.layer ? value : `${value} (${found.name})`;
}

function valueTexts(layer, bin) {
  return shownNetworks().map((network) =>
    `${data.networks[network]}: ${valueText(network, layer, bin)}`);
}

// The selection in words.
function selectionText(layer) {
  const details = layerDetails(layer);
  const where = `${layer.name}${details ? ` (${details})` : ""}, ${epochText(bins[state.epoch])}`;
  return `${where}, ${currentQuantity().group.key} ${caption()}:`;
}

// The tooltip's lines; a missing epoch or layer is taken from the selection.
function tooltipLines({ network, row, bin = state.epoch }) {
  const layer = row === undefined ? chosenLayer() : describeRow(network, row);
  const lines = [layer.name, layerDetails(layer), epochText(bins[bin]), caption()];
  return [...lines.filter(Boolean), ...valueTexts(layer, bin)];
}

// The cell of a heat map at a point: its row and bin; null if there is none.
function cellAt(network, point) {
  const row = point && rowsShown(network)[Math.floor(point.y)];
  const bin = bins.findIndex(([first, last]) =>
    point && first - 0.5 <= point.x && point.x < last + 0.5);
  return row === undefined || row === null || bin < 0 ? null : { network, row, bin };
}

function nearestBin(x) {
  const gaps = bins.map((_, bin) => Math.abs(binCentre(bins, bin) - x));
  return gaps.indexOf(Math.min(...gaps));
}

function nearestRow(x) {
  const network = shownNetworks().find((one) => rowsShown(one).length);
  if (network === undefined) return null;
  return { network, row: currentQuantity().rowNearest(network, rowsShown(network), x) };
}
