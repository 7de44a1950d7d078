// The explorer's controls. The selection changes with the controls, the pointer and the address of
// the page; the controls then show the new selection.

const ADDRESS_PREFIX = "#explorer&";
const LAYER_KINDS = [
  ["weights", "with weights, counted in depth"],
  ["projection", "projections on skips"],
  ["block", "blocks"],
  ["normalization", "normalization"],
  ["activation", "activation functions"],
  ["other", "others"],
  ["all", "all"],
];

function option(value, text) {
  const made = document.createElement("option");
  made.value = value;
  made.textContent = text;
  return made;
}

function layerText({ name, type, depth }) {
  return `${depth === null ? "" : `${depth}: `}${name}${type ? ` (${type})` : ""}`;
}

// Fills the controls whose options never change.
function fillFixedControls() {
  for (const group of data.groups) {
    const made = document.createElement("optgroup");
    made.label = group.heading;
    made.append(...group.quantities.map(({ name }) =>
      option(`${group.key}.${name}`, quantityText(group, name))));
    element("quantity").append(made);
  }
  const networks = data.networks.map((name, place) => option(String(place), name));
  const all = networks.length > 1 ? [option("", "all, side by side")] : [];
  element("network").append(...all, ...networks);
  const median = seeds.length > 1 ? [option("", "all seeds (median)")] : [];
  element("seed").append(...median, ...seeds.map((seed) => option(seed, seed)));
  element("epoch").max = bins.length - 1;
  for (const [place, name] of data.networks.entries()) {
    const item = document.createElement("li");
    const line = document.createElement("span");
    line.className = `explorer-line n${place % 6}`;
    item.append(line, ` ${name}`);
    element("networks").append(item);
  }
  const thin = document.createElement("li");
  thin.id = "explorer-thin";
  thin.textContent = "thin lines: single seeds";
  const marks = document.createElement("li");
  marks.textContent = "cross at the top: not finite; triangle at the bottom: exactly zero";
  element("networks").append(thin, marks);
}

// Fills the controls whose options depend on other controls.
function fillControls() {
  const { signed } = currentQuantity().description;
  const kinds = new Set(currentQuantity().rows.flatMap((rows) => rows.role.map(kindOf)));
  const offered = LAYER_KINDS.filter(([kind]) => kind === "all" || kinds.has(kind));
  element("kind").replaceChildren(...offered.map(([kind, text]) => option(kind, text)));
  element("kind").value = kinds.has(state.kind) ? state.kind : "all";
  const scales = signed
    ? [["", "linear, centred at 0"]]
    : [["log", "logarithmic"], ["linear", "linear"]];
  element("scale").replaceChildren(...scales.map(([scale, text]) => option(scale, text)));
  element("scale").value = signed ? "" : (logarithmic() ? "log" : "linear");
  const layers = new Map();
  for (const network of shownNetworks()) {
    for (const place of rowsShown(network)) {
      const layer = describeRow(network, place);
      if (!layers.has(layer.layer)) layers.set(layer.layer, layer);
    }
  }
  const sorted = [...layers.values()].sort((a, b) => a.position - b.position);
  element("layer").replaceChildren(...sorted.map((one) => option(one.layer, layerText(one))));
}

function showChoice() {
  const chosen = chosenLayer();
  element("quantity").value = state.quantity;
  element("network").value = state.network;
  element("seed").value = state.seed;
  element("layer").value = chosen.layer;
  element("epoch").value = state.epoch;
  element("epoch").setAttribute("aria-valuetext", epochText(bins[state.epoch]));
  element("zero").hidden = !logarithmic();
  element("thin").hidden = state.seed !== "";
  element("formula").textContent = formulaText();
  element("history-title").textContent = `History of ${chosen.name}`;
  element("profile-title").textContent = `Profile of ${epochText(bins[state.epoch])}`;
  showReadout(chosen);
}

// Shows the selection and its values; each value is in one piece, so that no number is broken.
function showReadout(chosen) {
  const values = valueTexts(chosen, state.epoch).map((text) => {
    const piece = document.createElement("span");
    piece.className = "explorer-value";
    piece.textContent = text;
    return piece;
  });
  element("readout").replaceChildren(selectionText(chosen), ...values.flatMap((one) => [" ", one]));
}

// Draws the selection: everything, or only what depends on layer and epoch.
async function draw(everything) {
  await currentQuantity().load();
  if (everything) fillControls();
  showChoice();
  await (everything ? Promise.all([drawMaps(), drawLines()]) : showChosen());
}

// Draws one after the other; a selection made during drawing is drawn once afterwards.
let wanted = null;
let drawing = null;
function render(everything) {
  wanted = wanted || everything;
  drawing ??= (async () => {
    element("body").setAttribute("aria-busy", "true");
    try {
      while (wanted !== null) {
        const all = wanted;
        wanted = null;
        await draw(all);
      }
    } finally {
      drawing = null;
      element("body").setAttribute("aria-busy", "false");
    }
  })();
  return drawing;
}

function choose(changes, everything) {
  Object.assign(state, changes);
  writeAddress();
  return render(everything);
}

function writeAddress() {
  const entries = { ...state, epoch: bins[state.epoch][0] };
  if (state.network) entries.network = data.networks[Number(state.network)];
  const kept = Object.entries(entries).filter(([, value]) => value !== "");
  window.history.replaceState(null, "", ADDRESS_PREFIX + new URLSearchParams(kept));
}

// Reads the selection from the address of the page; invalid entries are ignored.
function readAddress() {
  if (!location.hash.startsWith(ADDRESS_PREFIX)) return false;
  const given = new URLSearchParams(location.hash.slice(ADDRESS_PREFIX.length));
  const offered = {
    quantity: [...quantities.keys()], seed: seeds, kind: LAYER_KINDS.map(([kind]) => kind),
    scale: ["log", "linear"],
  };
  for (const [name, values] of Object.entries(offered)) {
    if (values.includes(given.get(name))) state[name] = given.get(name);
  }
  const network = data.networks.indexOf(given.get("network"));
  if (network >= 0) state.network = String(network);
  state.layer = given.get("layer") ?? state.layer;
  const epoch = Number(given.get("epoch"));
  const bin = bins.findIndex(([first, last]) => first <= epoch && epoch <= last);
  if (bin >= 0) state.epoch = bin;
  return true;
}

function showTooltip(event, lines) {
  const tip = element("tip");
  tip.hidden = !lines.length;
  if (!lines.length) return;
  tip.textContent = lines.join("\n");
  const { width, height } = tip.getBoundingClientRect();
  const right = event.clientX + 14;
  const below = event.clientY + 14;
  tip.style.left = `${Math.max(4, Math.min(right, innerWidth - width - 8))}px`;
  tip.style.top = `${below + height > innerHeight ? event.clientY - height - 10 : below}px`;
}

// Shows what is under the pointer, and selects it at a click.
function listenToChart(chart, find) {
  chart.element.addEventListener("pointermove", (event) => {
    const found = find(chart.point(event));
    showTooltip(event, found ? tooltipLines(found) : []);
  });
  chart.element.addEventListener("pointerleave", (event) => showTooltip(event, []));
  chart.element.addEventListener("click", (event) => {
    const found = find(chart.point(event));
    if (!found) return;
    const { network, row } = found;
    const { layer } = row === undefined ? chosenLayer() : describeRow(network, row);
    choose({ layer, epoch: found.bin ?? state.epoch }, false);
  });
}

function listenToAll() {
  maps.forEach(({ chart }, network) => listenToChart(chart, (point) => cellAt(network, point)));
  listenToChart(historyChart, (point) => point && { bin: nearestBin(point.x) });
  listenToChart(profileChart, (point) => point && nearestRow(point.x));
  for (const name of ["quantity", "network", "seed", "kind", "scale"]) {
    element(name).addEventListener("change", (event) => {
      // A new quantity starts with its own default scale.
      const scale = name === "quantity" ? { scale: "" } : {};
      choose({ [name]: event.target.value, ...scale }, true);
    });
  }
  element("layer").addEventListener("change", (event) =>
    choose({ layer: event.target.value }, false));
  element("epoch").addEventListener("input", (event) =>
    choose({ epoch: Number(event.target.value) }, false));
  addEventListener("hashchange", () => readAddress() && render(true));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => render(true));
  let width = element("maps").clientWidth;
  new ResizeObserver(() => {
    if (element("maps").clientWidth === width) return;
    width = element("maps").clientWidth;
    requestAnimationFrame(() => render(true));
  }).observe(element("maps"));
}

element("body").hidden = false;
fillFixedControls();
if (readAddress()) document.getElementById("explorer").scrollIntoView();
render(true).then(listenToAll);
