// What happened to addresses, as points in lanes, one for each node, and as a list.

import { age, html, short, svg, table } from "./draw.js";

export const spans = { "1 hour": 3600e3, "1 day": 86400e3, "1 week": 7 * 86400e3 };

const mostLanes = 12, mostRows = 30;
const left = 150, width = 900, lane = 24, top = 8;
const words = {
  taken: (e) => `${e.to} took it`,
  moved: (e) => `moved from ${e.from} to ${e.to}`,
  lost: (e) => `${e.from} let it go, nobody holds it`,
  conflict: (e) => e.detail || "another host claims it",
  settled: () => "nobody else claims it any more",
};

const laneOf = (e) => e.to || e.from || "on the wire";

/** Entries of a span that ends now, as a picture; null if there are none. */
export function picture(entries, now, span) {
  const inside = entries.filter((e) => now - Date.parse(e.time) <= span);
  if (!inside.length) return null;
  const counts = new Map();
  for (const e of inside) counts.set(laneOf(e), (counts.get(laneOf(e)) || 0) + 1);
  const names = [...counts].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  const shown = names.slice(0, mostLanes).sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  const others = names.length > mostLanes;
  if (others) shown.push("other nodes");
  const y = (e) => top + lane * (shown.includes(laneOf(e)) ? shown.indexOf(laneOf(e)) : shown.length - 1) + lane / 2;
  const x = (time) => left + width * (1 - (now - time) / span);
  const height = top + lane * shown.length + 22;
  const rows = shown.map((name, i) => [
    svg("line", { class: "axis", x1: left, x2: left + width, y1: top + lane * i + lane / 2, y2: top + lane * i + lane / 2 }),
    svg("text", { x: 1, y: top + lane * i + lane / 2 + 4 }, short(name, 19)),
  ]);
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => svg("text", {
    class: "small", x: left + width * part, y: height - 5, "text-anchor": part === 0 ? "start" : part === 1 ? "end" : "middle",
  }, part === 1 ? "now" : `${age(span * (1 - part))} ago`));
  const dots = inside.map((e) => svg("circle", { class: `dot ${e.kind}`, cx: x(Date.parse(e.time)), cy: y(e), r: e.kind === "taken" ? 4 : 6 },
    svg("title", {}, `${new Date(e.time).toLocaleString()}: ${e.address} ${words[e.kind](e)}`)));
  return svg("svg", { viewBox: `0 0 ${left + width + 8} ${height}`, width: left + width + 8, height, role: "img", "aria-label": "What happened to addresses" }, rows, ticks, dots);
}

/** The newest entries as a table. */
export function list(entries, now) {
  const rows = entries.slice(0, mostRows).map((e) => html("tr", {},
    html("td", { class: "mono", title: new Date(e.time).toLocaleString() }, `${age(now - Date.parse(e.time))} ago`),
    html("td", { class: "mono" }, e.address),
    html("td", {}, (e.services || []).join(", ")),
    html("td", { class: e.kind }, words[e.kind](e), e.takeover ? html("span", { class: "quiet" }, ` (takeover ${e.takeover})`) : "")));
  return table(["when", "address", "Service", "what"], rows);
}
