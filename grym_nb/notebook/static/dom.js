// Elements, and values in a few words. Text only ever goes in as text.

const SVG = "http://www.w3.org/2000/svg";

/** Return an element with properties and children; `class`, `on*`, `aria-*` and the like as in HTML. */
function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  setProps(node, props);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function s(tag, props = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  setProps(node, props);
  node.append(...children);
  return node;
}

function setProps(node, props) {
  for (const [key, value] of Object.entries(props)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(key, String(value));
  }
}

/** Change only what is another: nothing flickers, and what is selected stays so. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function put(node, key, value) {
  if (value === null || value === false) {
    if (node.hasAttribute(key)) node.removeAttribute(key);
  } else if (node.getAttribute(key) !== String(value)) node.setAttribute(key, String(value));
}

function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

/** Have one child for each row, by its id, in their order; those that stay are kept as they are. */
function keyed(parent, rows, make) {
  const known = parent._byId || (parent._byId = new Map());
  const wanted = new Set(rows.map((row) => row.id));
  for (const [id, kept] of known) {
    if (!wanted.has(id)) {
      kept.node.remove();
      known.delete(id);
    }
  }
  let at = null;
  for (const row of rows) {
    let kept = known.get(row.id);
    if (!kept) {
      kept = make(row);
      known.set(row.id, kept);
    }
    kept.update(row);
    const next = at === null ? parent.firstChild : at.nextSibling;
    if (kept.node !== next) parent.insertBefore(kept.node, next);
    at = kept.node;
  }
  return [...known.values()];
}

const seconds = (value) => {
  if (value === null || value === undefined) return "–";
  for (const [unit, scale, end] of [["µs", 1e6, 1e3], ["ms", 1e3, 1e3], ["s", 1, 60]]) {
    const shown = Number((value * scale).toPrecision(3));
    if (shown < end) return `${shown} ${unit}`;
  }
  return lasting(value);
};

/** A time that goes on, to the second. */
const lasting = (value) => {
  const whole = Math.max(0, Math.floor(value));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min ${whole % 60} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
};

const size = (value) => {
  if (value === null || value === undefined) return "–";
  let amount = value;
  for (const unit of ["B", "KB", "MB", "GB"]) {
    const text = unit === "B" || amount >= 99.95 ? amount.toFixed(0) : amount.toFixed(1);
    if (Number(text) < 1000) return `${text} ${unit}`;
    amount /= 1000;
  }
  return `${amount.toFixed(1)} TB`;
};

const clockTime = (at) =>
  new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

const count = (number, thing) => `${number} ${thing}${number === 1 ? "" : "s"}`;
