// Drawing. `view` is the stretch of drawn time that is on the canvas.

const canvas = document.getElementById("lanes"), overview = document.getElementById("overview");
const stage = document.getElementById("stage");
const GUTTER = 76, AXIS = 24, LANE_MIN = 74;
const view = { from: 0, to: 1 };
const size = { width: 0, height: 0, lane: 0 };
const INK = "#1c2430", SOFT = "#66707f", BAD = "#c3152b", GOOD = "#1a7a3c";

const plotWidth = () => Math.max(size.width - GUTTER - 8, 10);
const xOfPlace = (place) => GUTTER + (place - view.from) / (view.to - view.from) * plotWidth();
const placeOfX = (x) => view.from + (x - GUTTER) / plotWidth() * (view.to - view.from);
const xOf = (us) => xOfPlace(time().to(us));
const topOf = (node) => AXIS + laneOf.get(node) * size.lane;
// The line of a node; faults are above it, heads below.
const lineOf = (node) => topOf(node) + Math.round(size.lane * 0.56);

function prepare(target, height) {
  const ratio = window.devicePixelRatio || 1;
  target.width = Math.round(target.clientWidth * ratio);
  target.height = Math.round(height * ratio);
  target.style.height = `${height}px`;
  const context = target.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

function layOut() {
  size.width = canvas.clientWidth;
  size.lane = Math.max(LANE_MIN, Math.floor((stage.clientHeight - AXIS - 2) / Math.max(lanes.length, 1)));
  size.lane = Math.min(size.lane, 260);
  size.height = AXIS + size.lane * lanes.length;
}

function draw() {
  layOut();
  const c = prepare(canvas, size.height);
  c.font = "11px system-ui, sans-serif";
  c.textBaseline = "middle";
  const from = time().from(view.from), to = time().from(view.to);
  drawLanes(c);
  c.save();
  c.beginPath();
  c.rect(GUTTER, 0, plotWidth() + 8, size.height);
  c.clip();
  drawCuts(c);
  drawAxis(c);
  if (show.faults) drawFaults(c, from, to);
  drawLives(c, from, to);
  if (show.messages) drawMessages(c, from, to);
  if (show.notes) drawNotes(c, from, to);
  if (show.writes) drawWrites(c, from, to);
  if (show.heads) drawHeads(c, from, to);
  drawMoment(c, world.calm, "faults end", GOOD, [5, 4]);
  if (world.failure) drawMoment(c, world.failure.at, world.failure.rule, BAD, []);
  c.restore();
  drawOverview();
}

function drawLanes(c) {
  c.clearRect(0, 0, size.width, size.height);
  lanes.forEach((node, lane) => {
    c.fillStyle = lane % 2 ? "#f8fafc" : "#fff";
    c.fillRect(0, AXIS + lane * size.lane, size.width, size.lane);
    c.fillStyle = INK;
    c.font = world.nodes[node].startsWith("relay") ? "bold 12px system-ui" : "12px system-ui";
    c.textAlign = "left";
    c.fillText(world.nodes[node], 12, lineOf(node));
  });
  c.font = "11px system-ui, sans-serif";
}

function drawCuts(c) {
  c.textAlign = "center";
  for (const cut of time().cuts) {
    if (cut.to < view.from || cut.from > view.to) continue;
    const x = xOfPlace(cut.from), width = xOfPlace(cut.to) - x;
    if (width < 3) continue;
    c.fillStyle = "#f0f2f5";
    c.fillRect(x + 1, AXIS, width - 2, size.height - AXIS);
    const text = duration(cut.us);
    if (width < c.measureText(text).width + 4) continue;
    c.fillStyle = "#8a95a3";
    c.fillText(text, x + width / 2, size.height - 8);
  }
}

function drawAxis(c) {
  c.fillStyle = "#f6f8fa";
  c.fillRect(GUTTER, 0, plotWidth() + 8, AXIS);
  c.strokeStyle = "#d8dde4";
  c.fillStyle = SOFT;
  c.textAlign = "left";
  const tick = (x, us, digits) => {
    c.beginPath();
    c.moveTo(x + 0.5, AXIS - 6);
    c.lineTo(x + 0.5, show.skip ? AXIS : size.height);
    c.stroke();
    c.fillText(clock(us, digits), x + 4, AXIS / 2);
  };
  const seen = time().from(view.to) - time().from(view.from);
  if (show.skip) {
    // Places a hand's breadth apart, whatever the time is there.
    for (let x = GUTTER; x < size.width - 80; x += 130) {
      const us = time().from(placeOfX(x));
      if (us >= 0) tick(x, us, 3);
    }
    return;
  }
  const steps = [1, 2, 5].flatMap((n) => [0, 1, 2, 3, 4, 5, 6].map((e) => n * 10 ** e));
  const long = [15e6, 30e6, 60e6, 300e6, 600e6, 1800e6, 3600e6, 18e9, 36e9, 86.4e9, 432e9];
  const fit = plotWidth() / 120;
  const step = [...steps, ...long].sort((a, b) => a - b).find((us) => seen / us < fit) ?? 864e9;
  const digits = step < 1e3 ? 6 : step < 1e6 ? 3 : 0;
  const first = Math.ceil(Math.max(view.from, 0) / step) * step;
  for (let us = first; us < view.to; us += step) tick(xOf(us), us, digits);
}

function drawFaults(c, from, to) {
  const height = Math.min(13, Math.floor(size.lane * 0.46 / FAULT_ROWS));
  lanes.forEach((node, lane) => {
    const lastX = Array(FAULT_ROWS).fill(-1e9);
    for (const band of between(bands[lane], bandEnds[lane], from, to)) {
      const x = xOf(band.at), width = Math.max(xOf(band.until) - x, 3);
      // What is narrower than a pixel and beside the last one adds nothing.
      if (x + width < lastX[band.row] + 1) continue;
      lastX[band.row] = x + width;
      const y = topOf(node) + 3 + band.row * height;
      c.fillStyle = faultKind(band.fault.text).colour;
      c.globalAlpha = 0.3;
      if (width > 3) c.fillRect(x, y, width, size.lane - 6 - band.row * height);
      c.globalAlpha = 1;
      c.fillRect(x, y, width, height - 1);
      const inside = Math.max(x, GUTTER);
      const room = x + width - inside;
      if (room > c.measureText(band.fault.text).width + 8) {
        c.fillStyle = "#fff";
        c.textAlign = "left";
        c.fillText(band.fault.text, inside + 4, y + height / 2);
      }
    }
  });
}

function drawLives(c, from, to) {
  for (const node of lanes) {
    const y = lineOf(node) + 0.5;
    c.strokeStyle = INK;
    c.lineWidth = 2;
    let x = Math.max(GUTTER, xOf(0));
    const end = Math.min(size.width, xOf(world.end));
    const line = (until) => {
      if (until <= x) return;
      c.beginPath();
      c.moveTo(x, y);
      c.lineTo(until, y);
      c.stroke();
    };
    for (const gap of down) {
      if (gap.node !== node || gap.until < from || gap.at > to) continue;
      const [left, right] = [xOf(gap.at), Math.max(xOf(gap.until), xOf(gap.at) + 2)];
      line(left);
      c.fillStyle = "#4a5361";
      c.globalAlpha = 0.18;
      c.fillRect(left, y - 9, right - left, 18);
      c.globalAlpha = 1;
      c.lineWidth = 1.5;
      c.beginPath();
      for (const edge of [left, right]) { c.moveTo(edge, y - 9); c.lineTo(edge, y + 9); }
      c.stroke();
      c.lineWidth = 2;
      x = right;
    }
    line(end);
    c.lineWidth = 1;
  }
}

function messageColour(message) {
  return message.documents.length ? documentColour(message.documents[0]) : SOFT;
}

function drawMessages(c, from, to) {
  const visible = between(messages, messageEnds, from, to).filter(isShown);
  // Far out, arrows between two lanes fall onto each other: one for each pixel is enough.
  const isFar = visible.length > plotWidth() / 3, isNear = visible.length < plotWidth() / 12;
  const last = new Map(), labels = [];
  c.lineWidth = isNear ? 1.4 : 1;
  for (const message of visible) {
    const x1 = xOf(message.at), y1 = lineOf(message.node), y2 = lineOf(message.to);
    if (isFar) {
      const key = message.node * 1024 + message.to, pixel = Math.round(x1);
      if (last.get(key) === pixel) continue;
      last.set(key, pixel);
    }
    const isLost = message.until === null;
    const x2 = isLost ? x1 + 14 : xOf(message.until);
    const toY = isLost ? y1 + (y2 - y1) * 0.35 : y2;
    c.strokeStyle = c.fillStyle = isLost ? BAD : messageColour(message);
    c.globalAlpha = isFar ? isLost ? 0.5 : Math.max(0.12, Math.min(0.5, 250 / visible.length)) : 0.85;
    c.setLineDash(isLost ? [3, 3] : []);
    c.beginPath();
    c.moveTo(x1, y1);
    c.lineTo(x2, toY);
    c.stroke();
    c.setLineDash([]);
    if (isLost && !isFar) {
      c.beginPath();
      c.moveTo(x2 - 3, toY - 3); c.lineTo(x2 + 3, toY + 3);
      c.moveTo(x2 - 3, toY + 3); c.lineTo(x2 + 3, toY - 3);
      c.stroke();
    } else if (!isFar) {
      arrowHead(c, x1, y1, x2, y2);
    }
    if (isNear) {
      const [x, y] = [x1 + (x2 - x1) * 0.4, y1 + (toY - y1) * 0.4];
      labels.push({ x, y, colour: c.fillStyle, text: inShort(message) });
    }
  }
  c.globalAlpha = 1;
  c.lineWidth = 1;
  drawLabels(c, labels);
}

// Words beside arrows, where there is room for them.
function drawLabels(c, labels) {
  const taken = [];
  c.textAlign = "left";
  for (const { x, y, colour, text } of labels) {
    const width = c.measureText(text).width + 6;
    const hits = (one) => x < one.x + one.width && one.x < x + width && Math.abs(one.y - y) < 12;
    if (taken.some(hits)) continue;
    taken.push({ x, y, width });
    haloed(c, text, x + 4, y, colour);
  }
}

function haloed(c, text, x, y, colour) {
  c.lineWidth = 3;
  c.strokeStyle = "#ffffffd0";
  c.strokeText(text, x, y);
  c.lineWidth = 1;
  c.fillStyle = colour;
  c.fillText(text, x, y);
}

// `sync document 0 heads [ab] need 0 changes 2 (99 B)` is `+2`.
function inShort(message) {
  return message.text.split("; ").map((part) => {
    const kind = part.split(" ")[0];
    const [, heads, need, changes] = part.match(/heads \[(.*?)\] need (\d+) changes (\d+)/) ?? [];
    if (changes === undefined) return kind;
    const words = [];
    if (kind !== "sync") words.push(kind);
    if (changes !== "0") words.push(`+${changes}`);
    if (need !== "0") words.push(`need ${need}`);
    if (words.length === 0) words.push(heads ? "heads" : "empty");
    return words.join(" ");
  }).join(", ");
}

function arrowHead(c, x1, y1, x2, y2) {
  const angle = Math.atan2(y2 - y1, x2 - x1);
  c.beginPath();
  c.moveTo(x2, y2);
  for (const turn of [angle - 0.35, angle + 0.35]) c.lineTo(x2 - 8 * Math.cos(turn), y2 - 8 * Math.sin(turn));
  c.fill();
}

function drawNotes(c, from, to) {
  c.fillStyle = SOFT;
  const lastX = new Map();
  for (const note of between(notes, null, from, to)) {
    const x = xOf(note.at);
    if (x < (lastX.get(note.node) ?? -1e9) + 1) continue;
    lastX.set(note.node, x);
    c.fillRect(x - 0.5, lineOf(note.node) - 6, 1.5, 5);
  }
}

function drawWrites(c, from, to) {
  const lastX = new Map(), free = new Map();
  const visible = between(writes, null, from, to), isNear = visible.length < plotWidth() / 40;
  c.textAlign = "left";
  for (const write of visible) {
    if (!show.documents.has(write.document)) continue;
    const x = xOf(write.at), y = lineOf(write.node);
    if (x < (lastX.get(write.node) ?? -1e9) + 1) continue;
    lastX.set(write.node, x);
    c.fillStyle = documentColour(write.document);
    c.beginPath();
    c.moveTo(x, y - 8); c.lineTo(x + 5, y - 16); c.lineTo(x - 5, y - 16);
    c.fill();
    if (isNear && x > (free.get(write.node) ?? -1e9)) {
      haloed(c, write.change, x + 7, y - 13, documentColour(write.document));
      free.set(write.node, x + 10 + c.measureText(write.change).width);
    }
  }
}

function drawHeads(c, from, to) {
  c.textAlign = "left";
  const free = new Map(), lastX = new Map();
  for (const head of between(heads, null, from, to)) {
    if (!show.documents.has(head.document)) continue;
    const x = xOf(head.at), y = lineOf(head.node), place = head.node * 256 + head.document;
    if (x < (lastX.get(place) ?? -1e9) + 1) continue;
    lastX.set(place, x);
    c.fillStyle = documentColour(head.document);
    c.beginPath();
    c.arc(x, y, 3.5, 0, 7);
    c.fill();
    // In the first of two rows that has room.
    const text = head.heads === "" ? "empty" : head.heads.split(" ").length > 2
      ? `${head.heads.slice(0, 13)} +${head.heads.split(" ").length - 2}` : head.heads;
    const width = c.measureText(text).width + 10;
    for (let row = 0; row < 2; row++) {
      const key = head.node * 2 + row;
      if ((free.get(key) ?? -1e9) > x) continue;
      free.set(key, x + width);
      haloed(c, text, x + 2, y + 13 + row * 12, documentColour(head.document));
      break;
    }
  }
}

function drawMoment(c, us, text, colour, dash) {
  const x = xOf(us);
  if (us > world.end || x < GUTTER - 1 || x > size.width) return;
  c.strokeStyle = c.fillStyle = colour;
  c.setLineDash(dash);
  c.lineWidth = 1.5;
  c.beginPath();
  c.moveTo(x, AXIS);
  c.lineTo(x, size.height);
  c.stroke();
  c.setLineDash([]);
  c.lineWidth = 1;
  const width = c.measureText(text).width + 8;
  const left = Math.min(x, size.width - width);
  c.fillRect(left, AXIS, width, 15);
  c.fillStyle = "#fff";
  c.textAlign = "left";
  c.fillText(text, left + 4, AXIS + 8);
}

// All of the world, with how much happens where, and what part of it is seen above.
const overviewX = (place) => GUTTER + place / time().end * plotWidth();
function drawOverview() {
  const height = 46, c = prepare(overview, height);
  c.clearRect(0, 0, size.width, height);
  c.font = "11px system-ui, sans-serif";
  c.fillStyle = SOFT;
  c.fillText("all of it", 12, height / 2 + 4);
  const counts = new Float64Array(Math.ceil(plotWidth()) + 1);
  for (const list of [messages, writes, heads]) {
    for (const one of list) counts[Math.round(overviewX(time().to(one.at)) - GUTTER)]++;
  }
  const most = counts.reduce((a, b) => Math.max(a, b), 1);
  c.fillStyle = "#9db4cf";
  counts.forEach((count, i) => {
    const bar = Math.ceil(Math.sqrt(count / most) * (height - 12));
    if (count) c.fillRect(GUTTER + i, height - bar, 1, bar);
  });
  for (const fault of faults) {
    c.fillStyle = faultKind(fault.text).colour;
    c.fillRect(overviewX(time().to(fault.at)), 2, 1.5, 6);
  }
  if (world.failure) {
    c.fillStyle = BAD;
    c.fillRect(overviewX(time().to(world.failure.at)) - 1, 0, 2, height);
  }
  const left = Math.max(overviewX(view.from), GUTTER - 2);
  const width = Math.max(Math.min(overviewX(view.to), size.width - 2) - left, 4);
  c.fillStyle = "#0b6fb81c";
  c.fillRect(left, 0, width, height);
  c.strokeStyle = "#0b6fb8";
  c.strokeRect(left + 0.5, 0.5, width - 1, height - 1);
}
