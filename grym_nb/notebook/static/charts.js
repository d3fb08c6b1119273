// Figures over time: drawn as SVG to the pixel, with a value at hand for the pointer and for the keyboard.

const CHARTS = [
  { id: "latency", title: "Latency", lines: [["p50", "p50"], ["p95", "p95"], ["p99", "p99"]], told: seconds },
  { id: "rate", title: "Calls a second", lines: [["rate", "calls"]], told: (v) => `${Number(v.toPrecision(3))}`, area: true, falls: true },
  { id: "failed", title: "Failures", lines: [["failed", "failures"]], told: (v) => `${Math.round(v)}`, bars: true, falls: true, whole: true },
  { id: "memory", title: "Memory", lines: [["memory", "memory"]], told: size, area: true, holds: true, empty: "not measured yet" },
];

const HEIGHT = 132;
const PAD = { left: 54, right: 8, top: 8, bottom: 20 };

class Chart {
  constructor(spec) {
    this.spec = spec;
    this.cursor = null; // share of the width, or null
    this.value = h("span", { class: "grym-chart-value" });
    this.legend = h("span", { class: "grym-legend" });
    if (spec.lines.length > 1) {
      for (const [name, words] of spec.lines) this.legend.append(h("span", { class: `grym-key grym-line-${name}` }, words));
    }
    this.svg = s("svg", { class: "grym-plot", "aria-hidden": "true", height: HEIGHT });
    this.area = h("div", {
      class: "grym-plot-area", tabindex: "0", role: "slider", "aria-label": `${spec.title}, over time`,
      "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": "100", "aria-valuetext": "no value",
      onpointermove: (event) => this.point(event), onpointerleave: () => this.move(null),
      onkeydown: (event) => this.key(event), onblur: () => this.move(null),
    }, this.svg);
    this.node = h("div", { class: "grym-chart" },
      h("div", { class: "grym-chart-head" }, h("h4", {}, spec.title), this.legend, this.value), this.area);
  }

  point(event) {
    const box = this.area.getBoundingClientRect();
    this.move((event.clientX - box.left - PAD.left) / Math.max(1, box.width - PAD.left - PAD.right));
  }

  key(event) {
    const step = { ArrowLeft: -1 / 60, ArrowRight: 1 / 60, Home: -1, End: 1 }[event.key];
    if (step === undefined && event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation();
    this.move(step === undefined ? null : (this.cursor === null ? 1 : this.cursor) + step);
  }

  move(share) {
    this.cursor = share === null ? null : Math.min(1, Math.max(0, share));
    this.draw(this.view, this.now);
  }

  /** Draw a view as of now; nothing is drawn that is as before. */
  draw(view, now) {
    if (!view) return;
    this.view = view;
    this.now = now;
    const width = Math.max(160, Math.floor(this.area.clientWidth || 300));
    const from = now - view.window;
    const lines = this.spec.lines.map(([name]) => this.within(view.series[name] || [], from, now));
    const most = Math.max(0, ...lines.flat().map(([, value]) => value));
    const top = nice(most || 1, this.spec);
    const x = (at) => PAD.left + ((at - from) / view.window) * (width - PAD.left - PAD.right);
    const y = (value) => PAD.top + (1 - value / top) * (HEIGHT - PAD.top - PAD.bottom);
    put(this.svg, "width", width);
    put(this.svg, "viewBox", `0 0 ${width} ${HEIGHT}`);
    const drawn = [...this.grid(width, top, view.window, y, !lines.some((line) => line.length))];
    lines.forEach((line, at) => drawn.push(...this.line(line, this.spec.lines[at][0], x, y, view.window / 60)));
    if (!lines.some((line) => line.length)) {
      drawn.push(s("text", { x: (width + PAD.left) / 2, y: HEIGHT / 2 - 14, class: "grym-axis", "text-anchor": "middle" }, this.spec.empty || view.empty));
    }
    this.tell(lines, from, view, x, drawn);
    this.svg.replaceChildren(...drawn);
  }

  within(line, from, now) {
    const inside = line.filter(([at]) => at >= from && at <= now + 2);
    const before = line.filter(([at]) => at < from).at(-1);
    if (!this.spec.holds) return inside;
    const begun = before ? [[from, before[1]], ...inside] : inside;
    return begun.length ? [...begun, [now, begun.at(-1)[1]]] : [];
  }

  *grid(width, top, window, y, empty) {
    for (const share of [0, 0.5, 1]) {
      const at = y(top * share);
      yield s("line", { x1: PAD.left, x2: width - PAD.right, y1: at, y2: at, class: "grym-grid" });
      if (empty || (this.spec.whole && (top * share) % 1)) continue;
      yield s("text", { x: PAD.left - 6, y: at + 4, class: "grym-axis", "text-anchor": "end" }, share ? this.spec.told(top * share) : "0");
    }
    const words = [[PAD.left, "start", `−${lasting(window).replace(" 0 s", "")}`], [width - PAD.right, "end", "now"]];
    for (const [x, anchor, text] of words) yield s("text", { x, y: HEIGHT - 5, class: "grym-axis", "text-anchor": anchor }, text);
  }

  *line(line, name, x, y, slot) {
    if (!line.length) return;
    const kind = `grym-line grym-line-${name}`;
    if (this.spec.bars) {
      for (const [at, value] of line) {
        if (value) yield s("rect", { x: x(at) - 2.5, y: y(value), width: 5, height: Math.max(1, y(0) - y(value)), class: `grym-bar grym-line-${name}` });
      }
      return;
    }
    for (const piece of pieces(line, this.spec, slot)) {
      const path = piece.map(([at, value], n) => (n && this.spec.holds ? `L${x(at).toFixed(1)} ${y(piece[n - 1][1]).toFixed(1)}` : "") + `${n ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
      if (this.spec.area && piece.length > 1) {
        const floor = y(0).toFixed(1);
        yield s("path", { d: `${path}L${x(piece.at(-1)[0]).toFixed(1)} ${floor}L${x(piece[0][0]).toFixed(1)} ${floor}Z`, class: `grym-fill grym-line-${name}` });
      }
      if (piece.length > 1) yield s("path", { d: path, class: kind });
      else yield s("circle", { cx: x(piece[0][0]), cy: y(piece[0][1]), r: 2.5, class: `grym-dot grym-line-${name}` });
    }
  }

  tell(lines, from, view, x, drawn) {
    const at = from + (this.cursor === null ? 1 : this.cursor) * view.window;
    const values = lines.map((line) => nearest(line, at, this.cursor === null ? view.window : view.window / 20));
    const told = values.map((found, n) => (found ? `${lines.length > 1 ? `${this.spec.lines[n][1]} ` : ""}${this.spec.told(found[1])}` : null)).filter(Boolean);
    const text = told.join(" · ") || "–";
    const when = this.cursor === null ? "" : `${clockTime(at)}  `;
    say(this.value, when + (this.cursor === null && lines.length > 1 ? told[1] || told[0] || "–" : text));
    put(this.area, "aria-valuenow", Math.round((this.cursor === null ? 1 : this.cursor) * 100));
    put(this.area, "aria-valuetext", told.length ? `${clockTime(at)}: ${text}` : "no value");
    if (this.cursor !== null) drawn.push(s("line", { x1: x(at), x2: x(at), y1: PAD.top, y2: HEIGHT - PAD.bottom, class: "grym-cursor" }));
  }
}

/** What goes on without a gap; a rate of nothing is no gap. */
function pieces(line, spec, slot) {
  if (spec.holds) return [line];
  const found = [[]];
  for (const point of line) {
    const last = found.at(-1).at(-1);
    if (last && point[0] - last[0] > slot * 4 + 2 && !(spec.falls && last[1] === 0)) found.push([]);
    else if (last && spec.falls && last[1] === 0 && point[0] - last[0] > slot + 1) found.at(-1).push([point[0] - slot, 0]);
    found.at(-1).push(point);
  }
  return found.filter((piece) => piece.length);
}

function nearest(line, at, reach) {
  let best = null;
  for (const point of line) {
    if (Math.abs(point[0] - at) <= reach && (!best || Math.abs(point[0] - at) <= Math.abs(best[0] - at))) best = point;
  }
  return best;
}

/** A round number at or above, so that the scale does not follow every value. */
function nice(value, spec) {
  if (spec.whole) return Math.max(2, 2 * Math.ceil(value / 2));
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}
