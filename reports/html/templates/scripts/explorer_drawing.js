// Draws the heat maps, the history of the chosen layer and the profile of the chosen epoch.

const maps = data.networks.map((name) => {
  const box = document.createElement("div");
  const heading = document.createElement("h3");
  heading.textContent = name;
  const place = document.createElement("div");
  place.className = "explorer-chart";
  box.append(heading, place);
  element("maps").append(box);
  return { box, chart: new Chart(place) };
});
const historyChart = new Chart(element("history"));
const profileChart = new Chart(element("profile"));

const CLIPPED_NOTE =
  "The colour scale covers the middle 90 % of the cells; cells beyond it have the end colours.";

async function drawMaps() {
  const networks = shownNetworks();
  const quantity = currentQuantity();
  const kind = quantity.description.signed ? "diverging" : logarithmic() ? "log" : "linear";
  const matrices = new Map(networks.map((network) => {
    const runs = quantity.runsOf(network, state.seed);
    const rows = rowsShown(network);
    return [network, rows.map((row) => bins.map((_, bin) => quantity.value(runs, row, bin)))];
  }));
  const { low, high, cut } = colourDomain([...matrices.values()].flat(2), kind);
  element("ends").textContent = cut ? CLIPPED_NOTE : "";
  const most = Math.max(...[...matrices.values()].map((matrix) => matrix.length));
  const height = data.named
    ? Math.min(560, Math.max(220, 70 + 12 * most))
    : Math.min(460, Math.max(220, 110 + 6 * most));
  maps.forEach(({ box }, network) => { box.hidden = !networks.includes(network); });
  await Promise.all(networks.map((network) => {
    const { chart } = maps[network];
    const rows = rowsShown(network);
    const { depth, name } = quantity.rows[network];
    const ticks = data.named
      ? nameTicks(rows.map((row) => name[row]))
      : depthTicks(rows.map((row) => depth[row]));
    if (!rows.length) return chart.showMessage("Nothing of this kind was recorded here.");
    return chart.draw(charts.heat[kind], {
      caption: caption(),
      label: `Heat map of ${caption()} of ${data.networks[network]}: ${rows.length} rows by ` +
        `depth, ${bins.length} columns by ${data.time}. The controls below read out each value.`,
      width: chart.element.clientWidth,
      height,
      parameters: {
        ...epochAxis(bins),
        rows: Math.max(1, rows.length), low, high, ...ticks,
      },
      data: {
        ...cellData(matrices.get(network), bins, kind === "log"),
        chosen: chosenIn(network),
      },
    });
  }));
}

function chosenIn(network) {
  const rows = rowsShown(network);
  const row = rows.indexOf(currentQuantity().findRow(network, rows, chosenLayer()));
  return outlineCells(bins, rows.length, row, state.epoch);
}

function historyData() {
  const chosen = chosenLayer();
  return lineData((network, value) => {
    const place = currentQuantity().findRow(network, rowsShown(network), chosen);
    return place < 0 ? [] : bins.map((_, bin) => [binCentre(bins, bin), value(place, bin)]);
  }, binCentre(bins, state.epoch));
}

function profileData() {
  const { rows } = currentQuantity();
  return lineData((network, value) => rowsShown(network).map((row) =>
    [rows[network].position[row], value(row, state.epoch)]), chosenLayer().position);
}

// One line per network, computed by `points`; thin lines for its seeds if there are several; and a
// mark at the chosen `x`.
function lineData(points, x) {
  const quantity = currentQuantity();
  const made = { lines: [], seeds: [], nonfinite: [], zeros: [], chosen: [{ x }] };
  for (const network of shownNetworks()) {
    const runs = quantity.runsOf(network, state.seed);
    const main = points(network, (row, bin) => quantity.value(runs, row, bin));
    addLine(made, "lines", main, network, `${network}`, logarithmic());
    for (const run of runs.length > 1 ? runs : []) {
      const thin = points(network, (row, bin) => quantity.valueInRun(run, row, bin));
      addLine(made, "seeds", thin, network, `${run.place}`, logarithmic());
    }
  }
  const [low, high] = lineDomain([...made.lines, ...made.seeds].map(({ v }) => v), logarithmic());
  const dot = made.lines.length > 60 * shownNetworks().length ? 0 : 18;
  return { data: made, parameters: { low, high, dot } };
}

function withAxis({ data: made, parameters }, axis) {
  return { data: made, parameters: { ...parameters, ...axis } };
}

async function drawLines() {
  const kind = logarithmic() ? "log" : "linear";
  const positions = shownNetworks().flatMap((network) =>
    rowsShown(network).map((row) => currentQuantity().rows[network].position[row]));
  const [first, last] = extent(positions, false);
  const common = { caption: caption(), height: 230 };
  await Promise.all([
    historyChart.draw(charts.history[kind], {
      ...common,
      label: `${caption()} of the chosen layer by ${data.time}, one line a network`,
      width: historyChart.element.clientWidth,
      ...withAxis(historyData(), epochAxis(bins)),
    }),
    profileChart.draw(charts.profile[kind], {
      ...common,
      label: `${caption()} in the chosen ${data.time} by depth, one line a network`,
      width: profileChart.element.clientWidth,
      ...withAxis(profileData(), {
        first: first - 0.5, last: last + 0.5, marks: wholeMarks(first - 0.5, last + 0.5),
      }),
    }),
  ]);
}

// Marks the chosen layer and epoch in the existing charts, and updates the lines.
async function showChosen() {
  await Promise.all([
    ...shownNetworks().map((network) =>
      maps[network].chart.update({ data: { chosen: chosenIn(network) } })),
    historyChart.update(historyData()),
    profileChart.update(profileData()),
  ]);
}
