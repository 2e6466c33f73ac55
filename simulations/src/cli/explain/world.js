// The world as it came in the page, with names for the columns of its rows.

const world = JSON.parse(document.getElementById("world").textContent);

const rows = (name, columns) =>
  world[name].map((row) => Object.fromEntries(columns.map((column, i) => [column, row[i]])));
const messages = rows("messages",
  ["at", "until", "node", "to", "number", "bytes", "documents", "text"]);
const heads = rows("heads", ["at", "node", "document", "heads", "seen"]);
const writes = rows("writes", ["at", "node", "document", "change"]);
const faults = rows("faults", ["at", "until", "nodes", "text"]);
const notes = rows("notes", ["at", "node", "text"]);
const down = rows("down", ["node", "at", "until"]);

// Colours that can be told apart, also by those who see no red or no green.
const DOCUMENT_COLOURS = ["#0b6fb8", "#c25a00", "#00806a", "#8a3fa0", "#7a6a00", "#b0306a",
  "#3a55c8", "#5c7f12", "#8c4a2f", "#00758f"];
const documentColour = (number) => DOCUMENT_COLOURS[number % DOCUMENT_COLOURS.length];

const FAULTS = [
  { name: "network", colour: "#f0a020", of: ["cut", "half-open", "partition", "away", "slow reader"] },
  { name: "process", colour: "#8893a2", of: ["crash", "drain", "pause", "clock jump"] },
  { name: "disk", colour: "#9a62d0", of: ["flushes hang", "writes fail", "flushes fail", "reads fail",
    "disk full", "bit rot"] },
  { name: "stranger", colour: "#d0344a", of: [] },
];
const faultKind = (text) => FAULTS.find((kind) => kind.of.includes(text)) ?? FAULTS[3];

// Relays in the middle: messages go between them and peers.
const lanes = (() => {
  const used = new Set();
  for (const message of messages) { used.add(message.node); used.add(message.to); }
  for (const list of [heads, writes, notes]) for (const one of list) used.add(one.node);
  for (const fault of faults) for (const node of fault.nodes) used.add(node);
  const nodes = [...world.nodes.keys()].filter((node) => used.has(node));
  const relays = nodes.filter((node) => world.nodes[node].startsWith("relay"));
  const others = nodes.filter((node) => !relays.includes(node));
  const half = Math.ceil(others.length / 2);
  return [...others.slice(0, half), ...relays, ...others.slice(half)];
})();
const laneOf = new Map(lanes.map((node, lane) => [node, lane]));

// Faults of one node that overlap are drawn in rows below each other.
const FAULT_ROWS = 3;
const bands = lanes.map(() => []);
for (const fault of faults) {
  for (const node of fault.nodes) {
    const list = bands[laneOf.get(node)];
    const isFree = (row) => !list.some((other) => other.row === row && other.fault.until > fault.at);
    const row = [...Array(FAULT_ROWS).keys()].find(isFree) ?? FAULT_ROWS - 1;
    list.push({ fault, row, at: fault.at, until: fault.until });
  }
}

// Rows are in the order of their beginnings; those that end late are found by the latest end up
// to each of them.
function latestEnds(list) {
  let latest = -Infinity;
  return Float64Array.from(list, (row) => (latest = Math.max(latest, row.until ?? row.at)));
}
const messageEnds = latestEnds(messages);
const bandEnds = bands.map(latestEnds);
const starts = new Map([messages, heads, writes, notes, ...bands]
  .map((list) => [list, Float64Array.from(list, (row) => row.at)]));

// Rows of a list that touch this stretch of time.
function between(list, ends, from, to) {
  const first = upperBound(ends ?? starts.get(list), from - 1e-9);
  return list.slice(first, upperBound(starts.get(list), to));
}

const show = { messages: true, heads: true, writes: true, faults: true, notes: true, skip: true,
  documents: new Set(Array(world.documents).keys()) };
const isShown = (message) => message.documents.length === 0
  || message.documents.some((number) => show.documents.has(number));

const linear = { cuts: [], end: Math.max(world.end, 1), to: (us) => us, from: (place) => place };
const skipping = (() => {
  const delays = messages.filter((m) => m.until !== null).map((m) => m.until - m.at);
  const cap = Math.min(Math.max(3 * median(delays), 1e3), 1e6);
  const times = [];
  for (const message of messages) { times.push(message.at); if (message.until) times.push(message.until); }
  for (const list of [heads, writes, notes, faults]) for (const one of list) times.push(one.at);
  if (world.failure) times.push(world.failure.at);
  return makeTime(times, world.end, cap);
})();
const time = () => (show.skip ? skipping : linear);
