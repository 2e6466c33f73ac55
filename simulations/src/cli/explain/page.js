// What the hand does: zoom, pan, filters, and words at what the pointer is on.

let isDrawn = true;
function redraw() {
  if (!isDrawn) return;
  isDrawn = false;
  requestAnimationFrame(() => { isDrawn = true; draw(); });
}

const WIDTH_MIN = 20;
function look(from, to) {
  const end = time().end, margin = 0.02;
  const width = Math.min(Math.max(to - from, WIDTH_MIN), end * (1 + 2 * margin));
  const middle = (from + to) / 2;
  view.from = Math.min(Math.max(middle - width / 2, -end * margin), end * (1 + margin) - width);
  view.to = view.from + width;
  redraw();
}
const whole = () => look(-time().end * 0.01, time().end * 1.01);
function zoom(factor, x = GUTTER + plotWidth() / 2) {
  const place = placeOfX(x);
  look(place - (place - view.from) * factor, place + (view.to - place) * factor);
}
const pan = (pixels) => {
  const shift = pixels / plotWidth() * (view.to - view.from);
  look(view.from + shift, view.to + shift);
};
// Near enough to read the arrows before the failure.
function toFailure() {
  const before = [messages, heads, writes].flatMap((list) => list.slice(-40).map((one) => one.at));
  const at = time().to(world.failure.at);
  const first = time().to(before.sort((a, b) => a - b).at(-30) ?? 0);
  const width = Math.max(at - first, 1e3);
  look(at - width, at + width * 0.12);
}

stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const isSideways = Math.abs(event.deltaX) > Math.abs(event.deltaY);
  if (isSideways) pan(event.deltaX);
  else if (event.shiftKey) pan(event.deltaY);
  else zoom(Math.exp(Math.min(Math.max(event.deltaY, -240), 240) * 0.002), event.offsetX);
}, { passive: false });

let dragged = null;
canvas.addEventListener("pointerdown", (event) => {
  dragged = event.clientX;
  canvas.setPointerCapture(event.pointerId);
  canvas.classList.add("dragging");
});
canvas.addEventListener("pointermove", (event) => {
  if (dragged === null) return tell(event);
  pan(dragged - event.clientX);
  dragged = event.clientX;
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, () => { dragged = null; canvas.classList.remove("dragging"); });
}
canvas.addEventListener("pointerleave", () => { tip.hidden = true; });

let isMoving = false;
const moveTo = (event) => {
  const place = (event.offsetX - GUTTER) / plotWidth() * time().end, half = (view.to - view.from) / 2;
  look(place - half, place + half);
};
overview.addEventListener("pointerdown", (event) => {
  isMoving = true;
  overview.setPointerCapture(event.pointerId);
  moveTo(event);
});
overview.addEventListener("pointermove", (event) => { if (isMoving) moveTo(event); });
overview.addEventListener("pointerup", () => { isMoving = false; });

window.addEventListener("keydown", (event) => {
  const keys = {
    "+": () => zoom(0.7), "=": () => zoom(0.7), "-": () => zoom(1 / 0.7), Home: whole,
    End: () => world.failure && toFailure(), ArrowLeft: () => pan(-80), ArrowRight: () => pan(80),
  };
  if (keys[event.key] && event.target.tagName !== "INPUT") { event.preventDefault(); keys[event.key](); }
});

// Words.

const tip = document.getElementById("tip");
const name = (node) => world.nodes[node];

function distance(x, y, x1, y1, x2, y2) {
  const dx = x2 - x1, dy = y2 - y1, length = dx * dx + dy * dy;
  const t = length ? Math.min(Math.max(((x - x1) * dx + (y - y1) * dy) / length, 0), 1) : 0;
  return Math.hypot(x - x1 - t * dx, y - y1 - t * dy);
}

function nearest(x, y) {
  const from = time().from(placeOfX(x - 400)), to = time().from(placeOfX(x + 400));
  let best = { distance: 7, text: null };
  const offer = (at, text) => { if (at < best.distance) best = { distance: at, text }; };
  const point = (one, dy, text) => offer(Math.hypot(xOf(one.at) - x, lineOf(one.node) + dy - y), text);
  if (show.heads) {
    for (const one of between(heads, null, from, to)) {
      if (show.documents.has(one.document)) {
        const does = one.seen ? "shows" : "names";
        point(one, 0, () => `${name(one.node)} ${does} document ${one.document} at\n`
          + `${one.heads || "nothing"}\n${millis(one.at)}`);
      }
    }
  }
  if (show.writes) {
    for (const one of between(writes, null, from, to)) {
      if (show.documents.has(one.document)) {
        point(one, -13, () => `${name(one.node)} writes ${one.change} in document ${one.document}\n`
          + millis(one.at));
      }
    }
  }
  if (show.notes) {
    for (const one of between(notes, null, from, to)) {
      point(one, -4, () => `${name(one.node)} ${one.text}\n${millis(one.at)}`);
    }
  }
  if (show.messages) {
    // All that are on their way here, however long ago they were sent.
    const here = time().from(placeOfX(x)), near = time().from(placeOfX(x + 20));
    for (const one of between(messages, messageEnds, Math.min(from, here), near)) {
      if (!isShown(one)) continue;
      const x1 = xOf(one.at), y1 = lineOf(one.node), y2 = lineOf(one.to);
      const isLost = one.until === null;
      const away = isLost ? distance(x, y, x1, y1, x1 + 14, y1 + (y2 - y1) * 0.35)
        : distance(x, y, x1, y1, xOf(one.until), y2);
      const fate = isLost ? "never arrives" : `arrives after ${millis(one.until - one.at)}`;
      offer(away, () => `#${one.number} ${name(one.node)} → ${name(one.to)}, ${one.bytes} bytes\n`
        + `sent at ${millis(one.at)}, ${fate}\n${one.text.replaceAll("; ", "\n")}`);
    }
  }
  if (best.text) return best.text();
  return fault(x, y, from, to);
}

// At a band, where nothing else is; or at what is down.
function fault(x, y, from, to) {
  const lane = Math.floor((y - AXIS) / size.lane);
  if (!bands[lane]) return null;
  const here = (one) => x >= xOf(one.at) - 3 && x <= Math.max(xOf(one.until), xOf(one.at) + 3) + 1;
  const words = [];
  if (show.faults) {
    for (const band of between(bands[lane], bandEnds[lane], from, to).filter(here).slice(0, 6)) {
      const { at, until, nodes, text } = band.fault;
      const lasts = until > at ? `, for ${duration(until - at)}` : "";
      words.push(`${text}: ${nodes.map(name).join(", ")}\nat ${millis(at)}${lasts}`);
    }
  }
  for (const gap of down) {
    if (gap.node !== lanes[lane] || !here(gap)) continue;
    words.push(`${name(gap.node)} is down for ${duration(gap.until - gap.at)}`);
  }
  return words.length ? words.join("\n") : null;
}

function tell(event) {
  const text = event.offsetX > GUTTER ? nearest(event.offsetX, event.offsetY) : null;
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
  const below = event.clientY + 16;
  const isLow = below + tip.offsetHeight > window.innerHeight - 8;
  tip.style.left = `${Math.max(left, 4)}px`;
  tip.style.top = `${isLow ? Math.max(event.clientY - tip.offsetHeight - 10, 4) : below}px`;
}

// The rest of the page.

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function box(text, colour, isOn, changed) {
  const input = element("input", { type: "checkbox", checked: isOn });
  input.addEventListener("change", () => { changed(input.checked); redraw(); });
  const parts = [input];
  if (colour) { const dot = element("i", {}); dot.style.background = colour; parts.push(dot); }
  return element("label", {}, ...parts, text);
}

function swatch(text, svg) {
  const span = element("span", {});
  span.innerHTML = `<svg width="22" height="12">${svg}</svg>`;
  span.append(text);
  return span;
}

function build() {
  document.title = world.title;
  document.getElementById("title").textContent = world.title;
  document.getElementById("settings").textContent = world.settings;
  const outcome = document.getElementById("outcome"), failure = world.failure;
  outcome.textContent = failure
    ? `${failure.rule}: ${failure.detail} (at ${millis(failure.at)})` : "kept every rule";
  outcome.classList.toggle("broken", Boolean(failure));
  if (world.omitted) outcome.append(` · ${world.omitted} earlier entries are left out`);

  const acts = { in: () => zoom(0.5), out: () => zoom(2), whole, failure: toFailure };
  for (const id in acts) document.getElementById(id).addEventListener("click", acts[id]);
  document.getElementById("failure").disabled = !failure;
  const kinds = document.getElementById("kinds");
  for (const kind of ["messages", "heads", "writes", "faults", "notes"]) {
    kinds.append(box(kind, null, true, (isOn) => { show[kind] = isOn; }));
  }
  kinds.append(box("skip silence", null, true, (isOn) => {
    const from = time().from(view.from), to = time().from(view.to);
    show.skip = isOn;
    look(time().to(from), time().to(to));
  }));
  const documents = document.getElementById("documents");
  for (const number of show.documents) {
    documents.append(box(`document ${number}`, documentColour(number), true, (isOn) => {
      if (isOn) show.documents.add(number); else show.documents.delete(number);
    }));
  }
  const line = (colour, dash = "") => `<path d="M1 10 L17 3" stroke="${colour}" stroke-dasharray="${dash}"/>`;
  const tipOf = (colour) => `<path d="M21 1 L13 2 L16 8 Z" fill="${colour}"/>`;
  const legend = document.getElementById("legend");
  legend.append(
    swatch("message, in its document's colour", line(documentColour(0)) + tipOf(documentColour(0))),
    swatch("message that never arrives", line(BAD, "3 3")),
    swatch("a user writes", `<path d="M11 11 L16 2 L6 2 Z" fill="${documentColour(0)}"/>`),
    swatch("heads change: what a user sees, what a relay names",
      `<circle cx="11" cy="6" r="4" fill="${documentColour(0)}"/>`),
    swatch("down", '<rect x="3" width="16" height="12" fill="#4a5361" opacity=".18"/>'
      + `<path d="M3 0v12M19 0v12" stroke="${INK}"/>`),
    swatch("other events", `<path d="M11 3v6" stroke="${SOFT}" stroke-width="1.5"/>`),
    swatch("silence, cut short", '<rect width="22" height="12" fill="#e3e8ee"/>'),
  );
  for (const kind of FAULTS) {
    legend.append(swatch(`fault: ${kind.name}`, `<rect y="1" width="22" height="10" fill="${kind.colour}"/>`));
  }
  legend.append("wheel: zoom · drag: pan · pointer: details");
}

build();
layOut();
if (world.failure) toFailure(); else whole();
window.addEventListener("resize", redraw);
