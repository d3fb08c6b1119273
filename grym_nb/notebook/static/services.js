// The panel of services: one row each, which is changed in place.

const WORDS = { load: "Load", unload: "Unload", reload: "Reload", rollback: "Roll back" };
const SIGNS = { reload: "↻", rollback: "↶" }; // where there is no room for words
const UNDER_WAY = { load: "loading", unload: "unloading", reload: "reloading", rollback: "rolling back" };
const ASKED_FOR = 8; // seconds after which a click that nobody has heard is forgotten

class ServiceRow {
  constructor(board, row) {
    this.board = board;
    this.asked = null;
    this.name = h("button", { class: "grym-link", type: "button", onclick: () => board.chart(this.row.id) });
    this.version = h("span", { class: "grym-tag" });
    this.tasks = h("div", { class: "grym-sub grym-wide" });
    this.state = h("span", { class: "grym-state" });
    this.since = h("div", { class: "grym-sub" });
    this.health = h("span", { class: "grym-pill" });
    this.calls = h("span", {});
    this.failed = h("div", { class: "grym-sub grym-bad" });
    this.p95 = h("span", {});
    this.p50 = h("div", { class: "grym-sub" });
    this.memory = h("span", {});
    this.bar = h("div", { class: "grym-bar-track", "aria-hidden": "true" }, h("div", { class: "grym-bar-fill" }));
    this.now = h("div", { class: "grym-now" });
    this.progress = h("progress", { class: "grym-progress", max: "1" });
    this.buttons = Object.keys(WORDS).map((what) =>
      h("button", { class: "grym-button", type: "button", "data-do": what, onclick: () => this.ask(what) },
        ...(SIGNS[what] ? [h("span", { class: "grym-long" }, WORDS[what]), h("span", { class: "grym-short", "aria-hidden": "true" }, SIGNS[what])] : [WORDS[what]])));
    this.node = h("tr", {},
      h("th", { scope: "row", class: "grym-name" }, h("div", { class: "grym-name-line" }, this.name, this.version), this.tasks),
      h("td", {}, this.state, this.since),
      h("td", {}, this.health),
      h("td", { class: "grym-number" }, this.calls, this.failed),
      h("td", { class: "grym-number" }, this.p95, this.p50),
      h("td", { class: "grym-number grym-memory" }, this.memory, this.bar),
      h("td", { class: "grym-what" }, this.now, this.progress),
      h("td", { class: "grym-actions" }, h("div", { class: "grym-button-row" }, ...this.buttons)));
  }

  ask(what) {
    if (this.board.closed) return;
    this.asked = { what, at: Date.now() / 1000 };
    this.board.model.send({ do: what, service: this.row.id });
    this.update(this.row);
  }

  update(row) {
    if (this.asked && JSON.stringify(this.row.doing) !== JSON.stringify(row.doing)) this.asked = null;
    this.row = row;
    say(this.name, row.id);
    put(this.name, "title", row.id);
    put(this.name, "aria-label", `${row.id}: show its metrics`);
    const charted = (this.board.store.views.metrics || {}).service === row.id;
    put(this.name, "aria-pressed", charted ? "true" : "false");
    say(this.version, row.version);
    const more = [row.tasks.join(", "), row.needs.length ? `needs ${row.needs.join(", ")}` : ""].filter(Boolean).join(" · ");
    say(this.tasks, more || "tasks are known after the first load");
    put(this.tasks, "title", more);
    say(this.state, row.refuses ? `${row.state}, breaker ${row.refuses}` : row.state);
    this.state.className = `grym-state grym-state-${row.refuses ? "refuses" : row.state}`;
    say(this.health, row.health);
    this.health.className = `grym-pill grym-${row.health}`;
    put(this.health, "title", row.why || row.health);
    say(this.calls, row.calls.toLocaleString("en-US"));
    say(this.failed, row.failed ? `${row.failed} failed` : "");
    say(this.p95, row.p95 === null ? "–" : seconds(row.p95));
    say(this.p50, row.p50 === null ? "" : `p50 ${seconds(row.p50)}`);
    this.updateMemory(row);
    this.tick();
    for (const button of this.buttons) {
      const what = button.dataset.do;
      const possible = row.actions.includes(what) && !this.asked;
      const hides = { load: "unload", unload: "load" }[what];
      const shown = row.actions.includes(what) || (what === "unload" && !row.actions.includes("load"));
      if (hides) show(button, shown);
      put(button, "disabled", possible ? false : "");
      put(button, "aria-label", `${WORDS[what]} ${row.id}`);
      put(button, "title", WORDS[what]);
    }
  }

  updateMemory(row) {
    const largest = this.board.store.views.services.largest || 1;
    say(this.memory, row.memory === null ? "–" : row.held ? size(row.memory) : row.parked ? `${size(row.memory)} parked` : `~${size(row.memory)}`);
    put(this.memory, "title", row.held ? `on ${row.devices.join(", ")}` : row.memory === null ? "not known yet" : "as stated: it is not loaded");
    show(this.bar, row.memory !== null);
    this.bar.firstChild.style.width = `${Math.min(100, (100 * (row.memory || 0)) / largest)}%`;
    this.bar.firstChild.className = `grym-bar-fill${row.held ? "" : " grym-bar-ghost"}`;
  }

  /** What depends on the moment. */
  tick() {
    const row = this.row;
    const now = this.board.store.now();
    say(this.since, `for ${lasting(now - row.since)}`);
    if (this.asked && Date.now() / 1000 - this.asked.at > ASKED_FOR) this.asked = null;
    const { text, kind, since } = this.told(row, now);
    say(this.now, text);
    put(this.now, "title", text);
    this.now.className = `grym-now grym-now-${kind}`;
    const share = since !== null && row.expects ? Math.min(0.97, (now - since) / row.expects) : null;
    show(this.progress, since !== null);
    if (share === null) put(this.progress, "value", null);
    else put(this.progress, "value", share.toFixed(2));
    put(this.progress, "aria-label", `${row.id}: ${text}`);
  }

  told(row, now) {
    const doing = row.doing;
    if (this.asked) {
      const waits = Date.now() / 1000 - this.asked.at > 2 ? `${WORDS[this.asked.what]}: the kernel has not answered yet` : "asked for…";
      return { text: waits, kind: "busy", since: now };
    }
    if (doing && doing.state === "running") {
      const usual = row.expects && doing.what === "load" ? `, took ${seconds(row.expects)} last time` : "";
      return { text: `${UNDER_WAY[doing.what] || doing.what} for ${lasting(now - doing.at)}${usual}`, kind: "busy", since: doing.at };
    }
    if (row.state === "loading") return { text: `loading for ${lasting(now - row.since)}`, kind: "busy", since: row.since };
    if (row.state === "draining") return { text: "waits for running calls to end", kind: "busy", since: row.since };
    if (doing && doing.state === "failed") return { text: `${doing.what} failed: ${doing.told}`, kind: "bad", since: null };
    if (doing && doing.state === "done" && now - doing.at < 6) return { text: doing.told, kind: "good", since: null };
    if (row.running || row.waiting) {
      const parts = [row.running ? `${row.running} running` : "", row.waiting ? `${row.waiting} waiting` : ""];
      return { text: parts.filter(Boolean).join(", "), kind: "busy-quiet", since: null };
    }
    if (row.why) return { text: row.why.startsWith(`${row.id} `) ? row.why.slice(row.id.length + 1) : row.why, kind: row.health === "degraded" ? "warn" : "bad", since: null };
    if (row.error) return { text: `last error: ${row.error}`, kind: "quiet", since: null };
    return { text: "", kind: "quiet", since: null };
  }
}

/** What is in trouble stands first; else as they were registered. */
const trouble = (row) => (row.state === "failed" || row.health === "unhealthy" ? 0 : row.health === "degraded" || row.refuses ? 1 : 2);

class ServicesPanel {
  constructor(board) {
    this.board = board;
    this.filter = h("input", {
      type: "search", class: "grym-filter", placeholder: "Filter", "aria-label": "Filter services by name, state or health",
      oninput: () => this.update(), onkeydown: (event) => event.stopPropagation(),
    });
    this.body = h("tbody", {});
    this.none = h("p", { class: "grym-empty" });
    const heads = [["Service", ""], ["State", ""], ["Health", ""], ["Calls", "grym-number"], ["p95", "grym-number"], ["Memory", "grym-number"], ["Now", "grym-what"], ["", "grym-actions"]];
    this.table = h("div", { class: "grym-scroll", tabindex: "0", role: "region", "aria-label": "Services" },
      h("table", { class: "grym-services" },
        h("thead", {}, h("tr", {}, ...heads.map(([words, kind]) => words ? h("th", { scope: "col", class: kind }, words) : h("td", { class: kind })))),
        this.body));
    this.node = panel("services", "Services", this.filter, this.table, this.none);
  }

  update() {
    const view = this.board.store.views.services;
    if (!view) return;
    const wanted = this.filter.value.trim().toLowerCase();
    const fits = (row) => !wanted || [row.id, row.state, row.health, row.version].some((word) => word.toLowerCase().includes(wanted));
    const rows = view.rows.filter(fits).sort((one, other) => trouble(one) - trouble(other));
    show(this.filter, view.rows.length > 8);
    show(this.table, rows.length > 0);
    show(this.none, !rows.length);
    say(this.none, view.rows.length ? `none of ${view.rows.length} services fits “${this.filter.value}”` : view.empty);
    this.rows = keyed(this.body, rows, (row) => new ServiceRow(this.board, row));
  }

  tick() {
    for (const row of this.rows || []) row.tick();
  }
}
