// One view of the board: which panels it has is its own affair, what they show is the same in all views.

const PANELS = { services: ServicesPanel, metrics: MetricsPanel, memory: MemoryPanel, calls: CallsPanel, health: HealthPanel, log: LogPanel };
const SEEN_EVERY = 15000;

class BoardView {
  constructor(model, store, el) {
    this.model = model;
    this.store = store;
    this.panels = new Map();
    this.chosen = new Set(model.get("panels"));
    this.node = h("div", { class: "grym-board", role: "region", "aria-label": "grym_nb dashboard" });
    this.verdict = h("span", { class: "grym-pill" });
    this.reasons = h("span", { class: "grym-sub grym-cut grym-reasons" });
    this.chips = h("div", { class: "grym-choice", role: "group", "aria-label": "Which panels are shown" });
    this.tiles = h("div", { class: "grym-tiles", role: "group", "aria-label": "In figures" });
    this.grid = h("div", { class: "grym-panels" });
    this.node.append(
      h("header", { class: "grym-head" }, logo(), h("h2", {}, "grym_nb"), this.verdict, this.reasons, this.chips),
      this.tiles, this.grid);
    el.append(this.node);
    for (const name of Object.keys(PANELS)) {
      const chip = h("button", { type: "button", class: "grym-choice-one", "data-chip": name, "aria-pressed": "false", onclick: () => this.toggle(name) }, name);
      this.chips.append(chip);
    }
    this.build();
    this.listen();
    this.update();
  }

  build() {
    for (const [name, Panel] of Object.entries(PANELS)) {
      if (this.chosen.has(name) && !this.panels.has(name)) this.panels.set(name, new Panel(this));
      if (!this.chosen.has(name)) this.panels.delete(name);
    }
    const nodes = Object.keys(PANELS).filter((name) => this.panels.has(name)).map((name) => this.panels.get(name).node);
    this.grid.replaceChildren(...nodes);
    for (const chip of this.chips.children) put(chip, "aria-pressed", this.chosen.has(chip.dataset.chip) ? "true" : "false");
  }

  toggle(name) {
    if (this.chosen.has(name)) this.chosen.delete(name);
    else this.chosen.add(name);
    this.build();
    this.update();
  }

  chart(service, exactly = false) {
    const view = this.store.views.metrics || {};
    const wanted = !exactly && view.service === service ? null : service;
    this.model.send({ do: "chart", service: wanted, window: view.window });
  }

  chartOver(window) {
    this.model.send({ do: "chart", service: (this.store.views.metrics || {}).service ?? null, window });
  }

  // -- what is new, and what depends on the moment

  update() {
    if (!this.visible) this.stale = true;
    const services = this.store.views.services;
    if (!services) return;
    say(this.verdict, `all together ${services.verdict}`);
    this.verdict.className = `grym-pill grym-${services.verdict}`;
    say(this.reasons, services.reasons.join("; "));
    put(this.reasons, "title", services.reasons.join("; "));
    this.updateTiles(services);
    for (const panel of this.panels.values()) panel.update();
    put(this.node, "data-seq", this.store.seq);
  }

  updateTiles(services) {
    const { metrics, memory, calls } = this.store.views;
    const rows = services.rows;
    const ready = rows.filter((row) => row.state === "ready").length;
    const bad = rows.filter((row) => trouble(row) < 2).length;
    const total = rows.reduce((sum, row) => sum + row.calls, 0);
    const failed = rows.reduce((sum, row) => sum + row.failed, 0);
    const held = (memory ? memory.rows : []).filter((row) => row.id !== "total").reduce((sum, row) => sum + row.taken, 0);
    const p95 = metrics && (metrics.series.p95 || []).at(-1);
    const waiting = calls ? calls.rows.filter((row) => row.waits).length : 0;
    const tiles = [
      ["services", "Services ready", `${ready} of ${rows.length}`, bad ? `${bad} in trouble` : "", bad ? "bad" : ""],
      ["running", "Calls under way", `${calls ? calls.rows.length - waiting : 0}`, waiting ? `${waiting} in line` : "", ""],
      ["calls", "Calls so far", total.toLocaleString("en-US"), failed ? `${failed.toLocaleString("en-US")} failed` : "", failed ? "bad" : ""],
      ["latency", "Latency, p95", p95 ? seconds(p95[1]) : "–", metrics && metrics.service ? short(metrics.service, 18) : "", ""],
      ["memory", "Held by models", size(held), memory ? `process ${size(memory.used)}` : "", ""],
    ];
    keyed(this.tiles, tiles.map(([id, words, value, more, kind]) => ({ id, words, value, more, kind })), (row) => {
      const value = h("div", { class: "grym-tile-value" });
      const more = h("div", { class: "grym-sub" });
      const node = h("div", { class: "grym-tile" }, h("div", { class: "grym-tile-words" }, row.words), value, more);
      return { node, update: (one) => {
        say(value, one.value);
        say(more, one.more);
        more.className = `grym-sub${one.kind ? ` grym-${one.kind}` : ""}`;
      } };
    });
  }

  tick() {
    if (!this.looking()) return;
    for (const panel of this.panels.values()) panel.tick();
  }

  looking() {
    return this.visible && document.visibilityState === "visible";
  }

  seen() {
    if (this.looking()) this.model.send({ do: "seen" });
  }

  // -- what it hears, until it is gone

  listen() {
    const ends = [];
    const heard = () => this.update();
    this.store.listeners.add(heard);
    ends.push(() => this.store.listeners.delete(heard));
    for (const [every, job] of [[1000, () => this.tick()], [SEEN_EVERY, () => this.seen()]]) {
      const timer = setInterval(job, every);
      ends.push(() => clearInterval(timer));
    }
    const sight = new IntersectionObserver((entries) => {
      this.visible = entries.at(-1).isIntersecting;
      this.seen();
      this.tick();
    });
    sight.observe(this.node);
    const sizes = new ResizeObserver(() => this.tick());
    sizes.observe(this.node);
    const theme = () => put(this.node, "data-theme", isDark(this.node) ? "dark" : "light");
    const looks = new MutationObserver(theme);
    for (const root of [document.documentElement, document.body]) looks.observe(root, { attributes: true });
    const back = () => this.seen();
    document.addEventListener("visibilitychange", back);
    ends.push(() => sight.disconnect(), () => sizes.disconnect(), () => looks.disconnect(), () => document.removeEventListener("visibilitychange", back));
    theme();
    requestAnimationFrame(theme);
    this.ends = ends;
  }

  remove() {
    for (const end of this.ends) end();
    this.node.remove();
  }
}

function logo() {
  return s("svg", { class: "grym-logo", viewBox: "0 0 24 24", width: 22, height: 22, "aria-hidden": "true" },
    s("rect", { x: 1, y: 1, width: 22, height: 22, rx: 6, class: "grym-logo-back" }),
    ...[[5, 9, 6], [9, 6, 12], [13, 8.5, 7], [17, 10.5, 3]].map(([x, y, height]) =>
      s("rect", { x, y, width: 2.4, height, rx: 1.2, class: "grym-logo-bar" })));
}

/** Whether what is behind it is dark: whatever the front end calls its themes. */
function isDark(node) {
  for (let at = node.parentElement; at; at = at.parentElement) {
    const parts = getComputedStyle(at).backgroundColor.match(/[\d.]+/g);
    if (parts && (parts.length < 4 || Number(parts[3]) > 0.5)) {
      const [red, green, blue] = parts.map(Number);
      return 0.299 * red + 0.587 * green + 0.114 * blue < 128;
    }
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function storeOf(model) {
  const key = model.get("key");
  if (!stores.has(key)) {
    const store = new Store(model);
    stores.set(key, store);
    model.on("change:full", () => store.takeFull(model.get("full")));
    model.on("change:news", () => store.takeNews(model.get("news")));
    store.takeFull(model.get("full"));
    store.takeNews(model.get("news"));
  }
  return stores.get(key);
}

export default {
  initialize({ model }) {
    storeOf(model);
    return () => stores.delete(model.get("key"));
  },
  render({ model, el }) {
    const view = new BoardView(model, storeOf(model), el);
    return () => view.remove();
  },
};
