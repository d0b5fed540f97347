// The map: outside → router → node → pods. Addresses that go the same way share a
// line, as thick as they are many, in the colour of the worst of them.

import { svg, short, worse } from "./draw.js";

const columns = ["outside", "router", "node", "pods"];
const titles = { outside: "from", router: "virtual router", node: "held or forwarded by", pods: "ready pods" };
const nobody = "nobody";
const mostBoxes = 40;
const box = { width: 190, height: 34, gap: 12, top: 34 };
const step = 285;

/** Boxes and lines of a list of addresses; all has the inner ones too. */
export function flows(addresses, all) {
  const boxes = new Map(); // by key
  const lines = new Map();
  const holders = new Map(all.map((a) => [a.address, a]));
  const at = (column, name, state) => {
    const key = `${column} ${name}`;
    const b = boxes.get(key) || { key, column, name, state: "ok", count: 0, pods: 0 };
    b.state = worse(b.state, state);
    b.count++;
    boxes.set(key, b);
    return b;
  };
  const line = (from, to, state) => {
    const key = `${from.key} > ${to.key}`;
    const l = lines.get(key) || { key, from, to, state: "ok", count: 0 };
    l.state = worse(l.state, state);
    l.count++;
    lines.set(key, l);
  };
  for (const a of addresses) {
    if (a.role === "Inner" || !(a.services || []).length) continue;
    const state = a.health || "unknown";
    let from = at("outside", a.role === "L2" ? "the nodes' network" : "internet", state);
    if (a.router) {
      const router = at("router", a.router, state);
      line(from, router, state);
      from = router;
    }
    const ends = Object.entries(a.pods || {});
    for (const node of holdersOf(a, holders, ends)) {
      const n = at("node", node, state);
      line(from, n, state);
      if (node === nobody) continue;
      for (const [where, pods] of ends) {
        if (!a.router || a.forward === "VIP" || a.forward === "Route" || where === node) {
          const p = at("pods", where, state);
          p.pods += pods;
          line(n, p, state);
        }
      }
    }
  }
  return { boxes: [...boxes.values()], lines: [...lines.values()] };
}

// The nodes that packets for an address come to.
function holdersOf(a, holders, ends) {
  if (a.router && a.forward === "VIP") return [holders.get(a.inner)?.holder || nobody];
  if (a.router && a.forward === "Route") return [a.holder || nobody];
  if (a.router) return ends.length ? ends.map(([node]) => node) : [nobody];
  if (a.role === "BGP") return (a.announcers || []).length ? a.announcers : [nobody];
  return [a.holder || nobody];
}

// Boxes of one column, top to bottom; with too many, those that fewest use are left out.
function column(boxes, name) {
  const here = boxes.filter((b) => b.column === name).sort((a, b) => b.count - a.count || a.name.localeCompare(b.name));
  return { shown: here.slice(0, mostBoxes).sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true })), left: Math.max(0, here.length - mostBoxes) };
}

/** Draws the map. */
export function map(addresses, all) {
  const { boxes, lines } = flows(addresses, all);
  if (!boxes.length) return null;
  const present = columns.filter((c) => boxes.some((b) => b.column === c));
  const placed = new Map();
  let rows = 0;
  const headings = present.map((name, i) => {
    const { shown, left } = column(boxes, name);
    rows = Math.max(rows, shown.length);
    shown.forEach((b, row) => placed.set(b.key, { ...b, x: 1 + i * step, row }));
    return svg("text", { x: 1 + i * step, y: 18, class: "small" }, titles[name] + (left ? `, ${left} more not shown` : ""));
  });
  const height = box.top + rows * (box.height + box.gap);
  for (const b of placed.values()) {
    const inColumn = [...placed.values()].filter((o) => o.column === b.column).length;
    const slack = (rows - inColumn) * (box.height + box.gap) / 2;
    b.y = box.top + slack + b.row * (box.height + box.gap);
  }
  const width = (present.length - 1) * step + box.width + 2;
  const drawn = lines.filter((l) => placed.has(l.from.key) && placed.has(l.to.key)).map((l) => curve(placed.get(l.from.key), placed.get(l.to.key), l));
  const names = [...placed.values()].map((b) => labelled(b));
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": "Ways from outside to the pods" }, headings, drawn, names);
}

function curve(from, to, l) {
  const x1 = from.x + box.width, y1 = from.y + box.height / 2, x2 = to.x, y2 = to.y + box.height / 2, bend = (x2 - x1) / 2;
  return svg("path", {
    class: `way ${l.state}`, d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`, "stroke-width": 1.5 + 2 * Math.log10(l.count),
  }, svg("title", {}, `${l.from.name} → ${l.to.name}: ${l.count} address${l.count > 1 ? "es" : ""}, ${l.state}`));
}

function labelled(b) {
  const name = b.name || "no node";
  const under = b.column === "pods" ? `${b.pods} for ${b.count}` : `${b.count} address${b.count > 1 ? "es" : ""}`;
  return svg("g", { class: b.name === nobody ? "down" : b.state },
    svg("rect", { class: "box", x: b.x, y: b.y, width: box.width, height: box.height, rx: 6 }),
    svg("text", { x: b.x + 9, y: b.y + 15 }, short(name, 25)),
    svg("text", { x: b.x + 9, y: b.y + 28, class: "small" }, under),
    svg("title", {}, `${name}: ${under}, ${b.state}`));
}
