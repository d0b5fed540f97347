// Fetches the report every two seconds while somebody looks, and draws it. What is
// searched for and opened stands behind the # of the address, so that it can be sent.

import { age, badge, html, show, svg } from "./draw.js";
import { map } from "./map.js";
import { list, picture, spans } from "./timeline.js";

const pause = 2000, redraw = 15000, mostRows = 200;
let report = null, tag = "", skew = 0, lastAnswer = 0, drawn = 0, span = "1 hour";

const now = () => Date.now() + skew; // by the clock of the cloud-controller-manager

function state() {
  return new URLSearchParams(location.hash.slice(1));
}

function remember(name, value) {
  const s = state();
  if (value) s.set(name, value); else s.delete(name);
  history.replaceState(null, "", `#${s}`);
}

function matches(a, words) {
  const text = [a.address, a.pool, a.holder, a.router, a.inner, a.keptFor, ...(a.services || []), ...(a.announcers || [])].join(" ").toLowerCase();
  return words.every((w) => text.includes(w));
}

function drawSummary(addresses) {
  const count = (f) => addresses.filter(f).length;
  const tile = (n, text, kind) => html("div", { class: "tile" }, html("b", { class: n ? kind : null }, String(n)), html("span", { class: "quiet" }, text));
  show("summary",
    tile(count((a) => a.role !== "Inner" && (a.services || []).length), "addresses in use"),
    tile(count((a) => a.health === "ok" && a.role !== "Inner"), "ok", "ok"),
    tile(count((a) => a.health === "warning" && a.role !== "Inner"), "warning", "warning"),
    tile(count((a) => a.health === "down" && a.role !== "Inner"), "down", "down"),
    tile((report.pending || []).length, "Services that wait", "down"));
}

function bar(family, c) {
  if (!c || !c.total) return null;
  const part = Math.min(1, c.used / c.total);
  const colour = c.free <= 0 ? "down" : c.free * 5 < c.total ? "warning" : "ok";
  return [
    html("p", {}, `${family}: ${c.used} of ${c.total} in use, ${c.held} on hold`),
    svg("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", class: colour, role: "img", "aria-label": `${Math.round(100 * part)} % in use` },
      svg("rect", { class: "full", width: 100, height: 6 }), svg("rect", { class: "used", width: 100 * part, height: 6 })),
  ];
}

function drawPools() {
  show("pools", report.pools.map((p) => html("div", { class: "pool" },
    html("h3", {}, p.name, p.ready ? html("span", { class: "state ok" }, "ready") : html("span", { class: "state down" }, p.reason || "not ready")),
    html("p", { class: "quiet" }, [p.exposure, p.router, p.network && `network ${p.network}`].filter(Boolean).join(" · ")),
    bar("IPv4", p.ipv4), bar("IPv6", p.ipv6),
    !p.ready && p.message && html("p", { class: "why" }, p.message))),
  !report.pools.length && html("p", { class: "quiet" }, "There is no AddressPool."));
}

function drawPending(words) {
  const waiting = (report.pending || []).filter((p) => words.every((w) => p.service.toLowerCase().includes(w)));
  document.getElementById("pending-section").hidden = !waiting.length;
  show("pending", html("table", {}, waiting.slice(0, mostRows).map((p) => html("tr", {},
    html("td", {}, p.service), html("td", { class: "mono" }, age(now() - Date.parse(p.since))),
    html("td", { class: "down" }, (p.reasons || []).map((r) => html("div", {}, r.why)), !(p.reasons || []).length && "it should get its address in a moment")))));
}

function drawAddresses(addresses) {
  const rows = addresses.slice(0, mostRows).map((a) => html("tr", {},
    html("td", { class: "mono" }, a.address),
    html("td", {}, a.pool),
    html("td", {}, (a.services || []).map((s) => html("div", {}, html("button", { type: "button", class: "link", on: { click: () => open(s) } }, s))), a.keptFor && html("span", { class: "quiet" }, `kept for ${a.keptFor}`)),
    html("td", {}, a.holder || (a.announcers || []).join(", "), a.since && html("span", { class: "quiet" }, ` ${age(now() - Date.parse(a.since))}`)),
    html("td", {}, a.router && `${a.router} (${a.forward})`),
    html("td", {}, a.health ? badge(a.health) : html("span", { class: "quiet" }, a.phase), a.why && html("div", { class: "why" }, a.why))));
  const more = addresses.length - rows.length;
  show("addresses", rows.length ? html("table", {},
    html("thead", {}, html("tr", {}, ["address", "pool", "Service", "holder", "router", "health"].map((c) => html("th", { scope: "col" }, c)))),
    html("tbody", {}, rows)) : html("p", { class: "quiet" }, "None."),
  more > 0 && html("p", { class: "quiet" }, `${more} more: search for some.`));
}

function draw() {
  if (!report) return;
  drawn = Date.now();
  const words = (state().get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
  const found = words.length ? report.addresses.filter((a) => matches(a, words)) : report.addresses;
  const events = words.length ? report.timeline.filter((e) => matches({ ...e, holder: `${e.from || ""} ${e.to || ""}` }, words)) : report.timeline;
  const m = report.manager;
  show("leader", m ? `led from ${m.leader}, version ${m.version}` : "");
  drawSummary(report.addresses);
  drawPools();
  drawPending(words);
  show("map", map(found, report.addresses) || html("p", { class: "quiet" }, "No Service has an address."));
  drawAddresses(found);
  show("spans", Object.keys(spans).map((name) => html("button", { type: "button", "aria-pressed": String(name === span), on: { click: () => { span = name; draw(); } } }, name)));
  show("timeline", picture(events, now(), spans[span]) || html("p", { class: "quiet" }, `Nothing in the last ${span.replace("1 ", "")}.`));
  show("entries", events.length ? list(events, now()) : null);
  show("gaps", (report.gaps || []).map((g) => html("p", {}, `Not shown: ${g.what}: ${g.why}`)));
}

function open(service) {
  remember("service", service);
  details();
}

async function details() {
  const service = state().get("service"), where = document.getElementById("details");
  where.hidden = !service;
  if (!service) return;
  let told;
  try {
    told = await (await fetch(`data/ways.json?service=${encodeURIComponent(service)}`)).json();
  } catch (e) {
    told = { error: String(e) };
  }
  if (state().get("service") !== service) return; // another one was opened meanwhile
  show("details",
    html("h3", {}, service, html("button", { type: "button", on: { click: () => { remember("service", ""); details(); } } }, "close")),
    told.error && html("p", { class: "down" }, told.error),
    (told.pending || []).map((r) => html("p", { class: "down" }, r.why)),
    (told.ways || []).map((w) => [
      html("p", {}, html("b", { class: "mono" }, w.address), " ", badge(w.state)),
      html("ol", {}, w.hops.map((h) => html("li", {}, badge(h.state), ` ${[h.kind, h.name].filter(Boolean).join(" ")}: `, h.detail, h.remedy && html("div", { class: "why" }, `→ ${h.remedy}`)))),
    ]));
}

async function look() {
  try {
    const answer = await fetch("data/report.json", { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
    const changed = answer.status !== 304;
    if (changed) {
      if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
      report = await answer.json();
      tag = answer.headers.get("ETag") || "";
      details();
    }
    const theirs = Date.parse(answer.headers.get("Date") || "");
    if (theirs) skew = theirs - Date.now();
    lastAnswer = Date.now();
    show("fresh", "live").className = "quiet";
    if (changed || Date.now() - drawn > redraw) draw(); // else only ages differ, and a drawing takes the focus away
  } catch (e) {
    show("fresh", `no answer${lastAnswer ? ` for ${age(Date.now() - lastAnswer)}` : ""}: ${e.message}`).className = "stale";
  }
  setTimeout(() => (document.hidden ? document.addEventListener("visibilitychange", look, { once: true }) : look()), pause);
}

function theme(choice) {
  if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
}

const search = document.getElementById("search");
search.value = state().get("q") || "";
search.addEventListener("input", () => { remember("q", search.value.trim()); draw(); });
addEventListener("hashchange", () => { search.value = state().get("q") || ""; theme(state().get("theme")); draw(); details(); });
document.getElementById("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).getPropertyValue("--ground").trim() === "#12161c";
  theme(dark ? "light" : "dark");
  localStorage.setItem("theme", document.documentElement.dataset.theme);
});
theme(state().get("theme") || localStorage.getItem("theme"));
look();
