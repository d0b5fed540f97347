// What all parts draw with. Texts of the cluster become text nodes, never markup.

const svgSpace = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, f] of Object.entries(value)) node.addEventListener(event, f);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== undefined && child !== null && child !== false && child !== "") node.append(child);
  }
  return node;
}

/** An HTML element with attributes and children; `on` has handlers of events. */
export function html(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** An SVG element. */
export function svg(name, attributes, ...children) {
  return fill(document.createElementNS(svgSpace, name), attributes, children);
}

/** Replaces what an element holds. */
export function show(id, ...children) {
  const node = document.getElementById(id);
  node.replaceChildren(...children.flat(Infinity).filter((c) => c));
  return node;
}

export const states = ["ok", "unknown", "warning", "down"];

/** The worse of two states. */
export function worse(a, b) {
  return states.indexOf(a) > states.indexOf(b) ? a : b;
}

export function badge(state) {
  return html("span", { class: `state ${state}` }, state);
}

/** How long ago, in one unit. */
export function age(milliseconds) {
  const s = Math.max(0, Math.round(milliseconds / 1000));
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

/** Shortens a name in the middle. */
export function short(text, most) {
  if (text.length <= most) return text;
  const half = Math.floor((most - 1) / 2);
  return `${text.slice(0, most - 1 - half)}…${text.slice(text.length - half)}`;
}

export function table(columns, rows) {
  return html("table", {},
    html("thead", {}, html("tr", {}, columns.map((c) => html("th", { scope: "col" }, c)))),
    html("tbody", {}, rows));
}
