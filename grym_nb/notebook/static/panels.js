// The other panels. Each has `node`, `update` for what is new, and `tick` for what depends on the moment.

function panel(name, title, ...content) {
  const [first, ...rest] = content;
  const tools = first && first.classList && (first.classList.contains("grym-filter") || first.classList.contains("grym-tools"));
  return h("section", { class: `grym-panel grym-panel-${name}`, "data-panel": name, "aria-label": title },
    h("div", { class: "grym-panel-head" }, h("h3", {}, title), tools ? first : null),
    ...(tools ? rest : content));
}

class MetricsPanel {
  constructor(board) {
    this.board = board;
    this.service = h("select", { class: "grym-select", "aria-label": "Charts of which service", onchange: () => board.chart(this.service.value || null, true) });
    this.windows = h("div", { class: "grym-choice", role: "group", "aria-label": "Over how long" });
    this.charts = CHARTS.map((spec) => new Chart(spec));
    this.node = panel("metrics", "Metrics", h("div", { class: "grym-tools" }, this.service, this.windows),
      h("div", { class: "grym-charts" }, ...this.charts.map((chart) => chart.node)));
    this.names = null;
  }

  update() {
    const view = this.board.store.views.metrics;
    if (!view) return;
    const names = ["", ...view.services];
    if (JSON.stringify(names) !== this.names) {
      this.names = JSON.stringify(names);
      this.service.replaceChildren(...names.map((name) => h("option", { value: name }, name ? short(name, 40) : "all services")));
    }
    if (document.activeElement !== this.service || this.service.value !== (view.service || "")) this.service.value = view.service || "";
    keyed(this.windows, view.windows.map((window) => ({ id: String(window), window })), (row) => {
      const node = h("button", { type: "button", class: "grym-choice-one", onclick: () => this.board.chartOver(row.window) }, `${Math.round(row.window / 60)} min`);
      return { node, update: () => put(node, "aria-pressed", row.window === this.board.store.views.metrics.window ? "true" : "false") };
    });
    this.tick();
  }

  tick() {
    for (const chart of this.charts) chart.draw(this.board.store.views.metrics, this.board.store.now());
  }
}

class MemoryPanel {
  constructor(board) {
    this.board = board;
    this.body = h("div", { class: "grym-devices" });
    this.line = h("ul", { class: "grym-in-line" });
    this.node = panel("memory", "Memory", this.body, this.line);
  }

  update() {
    const view = this.board.store.views.memory;
    if (!view) return;
    keyed(this.body, view.rows, () => new DeviceRow());
    keyed(this.line, view.line.map(([who, what, room]) => ({ id: `${who} ${what}`, text: `${who} waits for ${what} ${room}` })), () => {
      const node = h("li", {});
      return { node, update: (row) => say(node, row.text) };
    });
    show(this.line, view.line.length > 0);
  }

  tick() {}
}

class DeviceRow {
  constructor() {
    this.name = h("strong", {});
    this.told = h("span", { class: "grym-sub" });
    this.bar = h("div", { class: "grym-stack", role: "img" });
    this.holders = h("ul", { class: "grym-holders" });
    this.node = h("div", { class: "grym-device" }, h("div", { class: "grym-device-head" }, this.name, this.told), this.bar, this.holders);
  }

  update(row) {
    const bound = row.budget || row.total || row.taken || 1;
    say(this.name, row.id === "total" ? "all devices" : row.id);
    const parts = [`${size(row.taken)} held`];
    if (row.budget) parts.push(`budget ${size(row.budget)}`);
    if (row.free !== null) parts.push(`${size(row.free)} free of ${size(row.total)}`);
    say(this.told, parts.join(" · "));
    put(this.bar, "aria-label", `${row.id}: ${parts.join(", ")}${row.holders.length ? `; ${row.holders.map((one) => `${one.who} ${size(one.bytes)}`).join(", ")}` : ""}`);
    const slices = row.holders.map((one, at) => ({ id: `h${one.who}`, bytes: one.bytes, kind: `grym-slice-${at % 6}`, words: `${one.who}: ${size(one.bytes)}` }));
    if (!row.budget && row.others) slices.push({ id: "others", bytes: row.others, kind: "grym-slice-others", words: `all else: ${size(row.others)}` });
    keyed(this.bar, slices, () => {
      const node = h("div", {});
      return { node, update: (slice) => {
        node.className = `grym-slice ${slice.kind}`;
        node.style.width = `${Math.min(100, (100 * slice.bytes) / bound)}%`;
        put(node, "title", slice.words);
      } };
    });
    const shown = row.holders.slice(0, 8).map((one, at) => ({ ...one, id: one.who, at }));
    if (row.holders.length > 8) shown.push({ id: "…", who: `and ${row.holders.length - 8} more`, bytes: null, state: "", at: 8 });
    keyed(this.holders, shown, () => {
      const dot = h("span", { "aria-hidden": "true" });
      const who = h("span", { class: "grym-cut" });
      const much = h("span", { class: "grym-sub" });
      const node = h("li", {}, dot, who, much);
      return { node, update: (one) => {
        dot.className = `grym-swatch grym-slice-${one.at % 6}`;
        say(who, one.who);
        put(who, "title", one.who);
        say(much, one.bytes === null ? "" : `${size(one.bytes)}${one.state && one.state !== "ready" ? `, ${one.state}` : ""}`);
      } };
    });
  }
}

class CallsPanel {
  constructor(board) {
    this.board = board;
    this.running = h("ul", { class: "grym-running" });
    this.none = h("p", { class: "grym-empty" });
    this.ended = h("ul", { class: "grym-ended" });
    this.node = panel("calls", "Calls", this.running, this.none, h("h4", {}, "The last ones"), this.ended);
  }

  update() {
    const view = this.board.store.views.calls;
    if (!view) return;
    this.rows = keyed(this.running, view.rows, () => new CallRow(this.board));
    show(this.none, !view.rows.length);
    say(this.none, view.empty);
    this.over = keyed(this.ended, view.ended, () => new EndedRow(this.board));
    show(this.ended.previousSibling, view.ended.length > 0);
  }

  tick() {
    for (const row of [...(this.rows || []), ...(this.over || [])]) row.tick();
  }
}

class CallRow {
  constructor(board) {
    this.board = board;
    this.title = h("span", { class: "grym-cut" });
    this.told = h("span", { class: "grym-sub" });
    this.bar = h("progress", { class: "grym-progress", max: "1" });
    this.cancel = h("button", { type: "button", class: "grym-button", onclick: () => this.ask() }, "Cancel");
    this.node = h("li", {}, h("div", { class: "grym-call" }, this.title, this.told, this.bar), this.cancel);
  }

  ask() {
    this.asked = true;
    this.board.model.send({ do: "cancel", call: this.row.id });
    this.update(this.row);
  }

  update(row) {
    this.row = row;
    say(this.title, row.task);
    put(this.title, "title", row.task);
    put(this.cancel, "aria-label", `Cancel call ${row.id}, ${row.task}`);
    put(this.cancel, "disabled", this.asked || row.cancelled ? "" : false);
    say(this.cancel, row.cancelled ? "ends at its next step" : this.asked ? "asked…" : "Cancel");
    this.tick();
  }

  tick() {
    const row = this.row;
    const now = this.board.store.now();
    const parts = [`${lasting(now - row.started)}`];
    if (row.counted !== null) parts.unshift(row.total ? `${row.done} of ${row.total}` : `${row.done}`);
    if (row.note) parts.push(row.note);
    if (row.total && row.done && row.done < row.total) {
      parts.push(`about ${lasting(((now - row.counted) / row.done) * (row.total - row.done))} left`);
    }
    if (row.deadline !== null) parts.push(row.deadline > now ? `deadline in ${lasting(row.deadline - now)}` : "past its deadline");
    say(this.told, parts.join(" · "));
    put(this.bar, "aria-label", `${row.task}: ${parts[0]}`);
    if (row.total) put(this.bar, "value", (row.done / row.total).toFixed(3));
    else put(this.bar, "value", null);
    show(this.bar, !row.waits);
  }
}

class EndedRow {
  constructor(board) {
    this.board = board;
    this.mark = h("span", {});
    this.title = h("span", { class: "grym-cut" });
    this.told = h("span", { class: "grym-sub" });
    this.node = h("li", {}, this.mark, this.title, this.told);
  }

  update(row) {
    this.row = row;
    const fine = ["ok", "cached", "fallback"].includes(row.outcome);
    say(this.mark, fine ? row.outcome : row.outcome.split(".").at(-1).replaceAll("_", " "));
    this.mark.className = `grym-pill ${fine ? "grym-healthy" : "grym-unhealthy"}`;
    say(this.title, row.task);
    put(this.title, "title", row.error ? `${row.task}: ${row.error}` : row.task);
    this.tick();
  }

  tick() {
    say(this.told, `${seconds(this.row.seconds)} · ${lasting(this.board.store.now() - this.row.at)} ago`);
  }
}

class HealthPanel {
  constructor(board) {
    this.board = board;
    this.body = h("div", { class: "grym-timelines grym-scroll", tabindex: "0", role: "region", "aria-label": "Health over time" });
    this.none = h("p", { class: "grym-empty" });
    this.node = panel("health", "Health", this.body, this.none);
  }

  update() {
    const view = this.board.store.views.health;
    if (!view) return;
    this.from = Math.min(...view.rows.map((row) => row.spans[0][0]));
    const rank = { unhealthy: 0, degraded: 1 };
    const rows = [...view.rows].sort((one, other) => (rank[one.spans.at(-1)[1]] ?? 2) - (rank[other.spans.at(-1)[1]] ?? 2));
    this.rows = keyed(this.body, rows, () => new TimelineRow(this));
    show(this.body, view.rows.length > 0);
    show(this.none, !view.rows.length);
    say(this.none, view.empty);
  }

  tick() {
    for (const row of this.rows || []) row.tick();
  }
}

class TimelineRow {
  constructor(panel) {
    this.panel = panel;
    this.name = h("span", { class: "grym-cut" });
    this.word = h("span", { class: "grym-pill" });
    this.bar = h("div", { class: "grym-stack grym-timeline", role: "img" });
    this.node = h("div", { class: "grym-timeline-row" }, this.name, this.bar, this.word);
  }

  update(row) {
    this.row = row;
    const [, verdict, why] = row.spans.at(-1);
    say(this.name, row.id);
    put(this.name, "title", row.id);
    say(this.word, verdict);
    this.word.className = `grym-pill grym-${verdict}`;
    put(this.word, "title", why || verdict);
    put(this.bar, "aria-label", `${row.id}: ${row.spans.map(([at, what]) => `${what} from ${clockTime(at)}`).join(", ")}`);
    this.tick();
  }

  tick() {
    const now = this.panel.board.store.now();
    const from = Math.max(this.panel.from, now - 900);
    const whole = Math.max(1, now - from);
    const spans = this.row.spans.map(([at, verdict, why], n) => {
      const end = n + 1 < this.row.spans.length ? this.row.spans[n + 1][0] : now;
      return { id: `${at}`, verdict, width: Math.max(0, end - Math.max(at, from)) / whole, words: `${verdict} from ${clockTime(at)}${why ? `: ${why}` : ""}` };
    });
    const lead = Math.max(0, this.row.spans[0][0] - from) / whole;
    keyed(this.bar, [{ id: "lead", verdict: "none", width: lead, words: "" }, ...spans], () => {
      const node = h("div", {});
      return { node, update: (span) => {
        node.className = `grym-span grym-span-${span.verdict}`;
        node.style.width = `${100 * span.width}%`;
        put(node, "title", span.words || null);
      } };
    });
  }
}

class LogPanel {
  constructor(board) {
    this.board = board;
    this.body = h("ol", { class: "grym-log grym-scroll", tabindex: "0", "aria-label": "What happened lately" });
    this.none = h("p", { class: "grym-empty" });
    this.node = panel("log", "Log", this.body, this.none);
  }

  update() {
    const view = this.board.store.views.log;
    if (!view) return;
    keyed(this.body, view.rows, logRow);
    show(this.body, view.rows.length > 0);
    show(this.none, !view.rows.length);
    say(this.none, view.empty);
  }

  tick() {}
}

function logRow(row) {
  const line = [
    h("time", { class: "grym-sub" }, clockTime(row.at)),
    h("span", { class: `grym-level grym-level-${row.level}` }, row.level),
    h("span", { class: "grym-who grym-cut", title: row.service }, row.service),
    h("span", { class: "grym-text", title: row.text }, row.text),
  ];
  const node = row.why
    ? h("li", {}, h("details", {}, h("summary", { class: "grym-log-line" }, ...line), h("pre", { tabindex: "0" }, row.why)))
    : h("li", { class: "grym-log-line" }, ...line);
  return { node, update() {} };
}

const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
