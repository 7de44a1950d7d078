// The recorded values: unpacking, medians over seeds, and lookup by layer and epoch.

const MISSING = -32768;
const NOT_FINITE = 32767;

// Unpacks what reports/explorer/compact_numbers.py packed: nan is missing, Infinity not finite.
async function unpack(quantity) {
  const bytes = Uint8Array.from(atob(quantity.codes), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = planes.length / 2;
  const values = new Float64Array(count);
  for (let place = 0; place < count; place += 1) {
    const code = ((planes[count + place] << 24) | (planes[place] << 16)) >> 16;
    const size = Math.exp(quantity.low + (Math.abs(code) - 1) * quantity.step);
    if (code === MISSING) values[place] = NaN;
    else if (code === NOT_FINITE) values[place] = Infinity;
    else values[place] = Math.sign(code) * (code ? size : 0);
  }
  return values;
}

// The median of numbers; missing ones (nan) are ignored, non-finite ones count as Infinity.
function median(numbers) {
  const known = numbers.filter((value) => !Number.isNaN(value)).sort((a, b) => a - b);
  if (!known.length) return NaN;
  const middle = known.length / 2;
  if (known.length % 2) return known[Math.floor(middle)];
  return (known[middle - 1] + known[middle]) / 2;
}

// The values of one quantity in every run, and its rows.
class Quantity {
  constructor(data, group, description) {
    this.bins = data.bins.length;
    this.rows = data.rows[group.rows];
    this.runs = data.runs;
    this.group = group;
    this.description = description;
    const sizes = data.runs.map((run) => this.rows[run.network].name.length * this.bins);
    this.starts = sizes.map((_, place) => sizes.slice(0, place).reduce((a, b) => a + b, 0));
  }

  async load() {
    this.values ??= await unpack(this.description);
    return this;
  }

  // The runs of a network with the chosen seed, or all its runs if `seed` is "".
  runsOf(network, seed) {
    return this.runs
      .map((run, place) => ({ ...run, place }))
      .filter((run) => run.network === network && (!seed || run.seed === seed));
  }

  valueInRun(run, row, bin) {
    return this.values[this.starts[run.place] + row * this.bins + bin];
  }

  // The value of a single run, or the median over several runs.
  value(runs, row, bin) {
    if (runs.length === 1) return this.valueInRun(runs[0], row, bin);
    return median(runs.map((run) => this.valueInRun(run, row, bin)));
  }

  // Indices of the rows of `kind` in a network; all rows if no network has rows of this kind.
  rowsOfKind(network, kind) {
    const places = (rows) => [...rows.role.keys()];
    const kept = this.rows.map((rows) =>
      places(rows).filter((place) => kindOf(rows.role[place]) === kind));
    return kept.some((some) => some.length) ? kept[network] : places(this.rows[network]);
  }

  // The index, among `places`, of the row of `network` that corresponds to the chosen layer: by
  // name, otherwise by depth; -1 if there is none.
  findRow(network, places, chosen) {
    const rows = this.rows[network];
    const named = places.find((place) => rows.layer[place] === chosen.layer);
    if (named !== undefined) return named;
    const level = places.filter((place) =>
      chosen.depth !== null && rows.depth[place] === chosen.depth);
    const alike = level.find((place) => rows.role[place] === chosen.role);
    return alike ?? level[0] ?? -1;
  }

  // The index of the row nearest to `position` among `places`; -1 if there is none.
  rowNearest(network, places, position) {
    const gaps = places.map((place) => Math.abs(this.rows[network].position[place] - position));
    return places[gaps.indexOf(Math.min(...gaps))] ?? -1;
  }
}

const ROLES_WITH_WEIGHTS = ["convolution", "linear", "recurrent", "attention", "embedding"];

// The kind of layer that the reader can select: "weights", or the layer's role.
function kindOf(role) {
  return ROLES_WITH_WEIGHTS.includes(role) ? "weights" : role;
}

// Three significant digits; very small and large numbers get an exponent.
function numberText(value) {
  if (Number.isNaN(value)) return "no value";
  if (!Number.isFinite(value)) return "not finite";
  const size = Math.abs(value);
  if (size && (size < 1e-3 || size >= 1e5)) return value.toExponential(2);
  return String(Number(value.toPrecision(3)));
}

function epochText([first, last]) {
  return first === last ? `${data.time} ${first}` : `${data.time}s ${first} to ${last}`;
}
