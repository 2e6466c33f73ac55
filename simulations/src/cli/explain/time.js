// Time as it is drawn. Worlds are silent for minutes and then full for milliseconds, so that
// silence can be cut to a moment: `to` and `from` go between the world's time and the drawn one.

function upperBound(array, value) {
  let low = 0, high = array.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (array[middle] <= value) low = middle + 1; else high = middle;
  }
  return low;
}

function median(numbers) {
  const sorted = Float64Array.from(numbers).sort();
  return sorted.length ? sorted[sorted.length >> 1] : 0;
}

// `times`: moments at which something happens. `cap`: no silence is drawn longer than this.
function makeTime(times, end, cap) {
  const at = Float64Array.from(new Set([0, ...times, end])).sort();
  const drawn = new Float64Array(at.length);
  const cuts = [];
  for (let i = 1; i < at.length; i++) {
    const gap = at[i] - at[i - 1];
    drawn[i] = drawn[i - 1] + Math.min(gap, cap);
    if (gap > cap) cuts.push({ from: drawn[i - 1], to: drawn[i], us: gap });
  }
  const map = (value, source, target) => {
    const i = Math.min(Math.max(upperBound(source, value) - 1, 0), source.length - 2);
    if (i < 0) return value;
    const width = source[i + 1] - source[i];
    const part = width > 0 ? (value - source[i]) / width : 0;
    if (value > source[i + 1]) return target[i + 1] + (value - source[i + 1]);
    return target[i] + part * (target[i + 1] - target[i]);
  };
  return {
    cuts,
    end: drawn[drawn.length - 1] || 1,
    to: (us) => map(us, at, drawn),
    from: (place) => map(place, drawn, at),
  };
}

function clock(us, digits = 3) {
  const seconds = us / 1e6;
  const hours = Math.floor(seconds / 3600), minutes = Math.floor(seconds / 60) % 60;
  const rest = (seconds % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return `${hours}:${String(minutes).padStart(2, "0")}:${rest}`;
}

function duration(us) {
  if (us < 1e3) return `${us} µs`;
  if (us < 1e6) return `${(us / 1e3).toFixed(us < 1e4 ? 1 : 0)} ms`;
  if (us < 6e7) return `${(us / 1e6).toFixed(us < 1e7 ? 1 : 0)} s`;
  if (us < 3.6e9) return `${(us / 6e7).toFixed(us < 6e8 ? 1 : 0)} min`;
  return `${(us / 3.6e9).toFixed(1)} h`;
}

const millis = (us) => `${(us / 1e3).toFixed(3)} ms`;
