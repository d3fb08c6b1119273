// What is known of the kernel, for all views of one model: everything once, then what is new.

const stores = new Map();

class Store {
  constructor(model) {
    this.model = model;
    this.seq = 0;
    this.views = {};
    this.shift = 0; // from this machine's time to the kernel's
    this.listeners = new Set();
    this.heard = 0; // messages
  }

  now() {
    return Date.now() / 1000 + this.shift;
  }

  takeFull(full) {
    if (!full || !full.views || full.seq < this.seq) return;
    this.setTime(full.now);
    this.seq = full.seq;
    this.views = {};
    for (const [name, view] of Object.entries(full.views)) {
      this.views[name] = { ...view, rows: view.rows || [], series: unpacked(view.series) };
    }
    this.tell();
  }

  takeNews(news) {
    if (!news || news.seq === undefined || news.seq <= this.seq) return;
    this.heard += 1;
    if (news.base !== this.seq) {
      this.model.send({ do: "full" });
      return;
    }
    this.setTime(news.now);
    this.seq = news.seq;
    for (const [name, change] of Object.entries(news.views)) this.views[name] = merged(this.views[name], change);
    this.tell();
  }

  setTime(now) {
    const shift = now - Date.now() / 1000;
    // A message that was under way for longer says less.
    if (this.heard === 0 || shift > this.shift || Math.abs(shift - this.shift) > 5) this.shift = shift;
  }

  tell() {
    for (const listener of this.listeners) listener();
  }
}

const MOST = 512; // points of a series: what is left of a window has fewer

function merged(before, change) {
  const view = { rows: [], series: {}, ...before, ...change.head };
  if (change.rows || change.order) {
    const rows = new Map(view.rows.map((row) => [row.id, row]));
    for (const row of change.rows || []) rows.set(row.id, row);
    const order = change.order || view.rows.map((row) => row.id);
    view.rows = order.filter((id) => rows.has(id)).map((id) => rows.get(id));
  }
  if (change.points) {
    view.series = { ...view.series };
    for (const [name, [until, bytes]] of Object.entries(change.points)) {
      const known = until === null ? [] : (view.series[name] || []).filter(([at]) => at <= until);
      view.series[name] = [...known, ...points(bytes)].slice(-MOST);
    }
  }
  return view;
}

function unpacked(series) {
  return Object.fromEntries(Object.entries(series || {}).map(([name, bytes]) => [name, points(bytes)]));
}

/** Pairs of a time and a value, from bytes. */
function points(bytes) {
  const found = [];
  for (let at = 0; at + 16 <= bytes.byteLength; at += 16) {
    found.push([bytes.getFloat64(at, true), bytes.getFloat64(at + 8, true)]);
  }
  return found;
}
