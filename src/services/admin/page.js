"use strict";
// Asks the server once a second, and draws what it says. Loads nothing from elsewhere.

const STEP_MS = 1000;
const PATIENCE_MS = 2500;
const POINTS = 300;
const $ = (id) => document.getElementById(id);
let sort = "owed";
let answeredAt = performance.now();
let token = sessionStorage.getItem("token") || "";

const size = (bytes) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < 4) { bytes /= 1024; unit += 1; }
  return `${unit && bytes < 10 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
};
const time = (seconds) => {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds / 3600) % 24} h`;
};
const count = (number) => String(Math.round(number));

// Each graph keeps the last five minutes.
const graphs = [
  { title: "Clients", unit: count, of: (now) => now.get("highwater_clients") },
  { title: "Queued for clients", unit: size, of: (now) => now.get("highwater_queued_bytes") },
  { title: "Disconnects a minute", unit: count, of: disconnects, other: true },
  { title: "Loop lag, worst in a second", unit: (seconds) => `${(seconds * 1000).toFixed(1)} ms`, of: lag },
];

let before = null;
let lastMinute = [];
let reasons = "";

function disconnects(now) {
  const all = [...now].filter(([name]) => name.startsWith("highwater_disconnects_total{"));
  const bad = all.filter(([name]) => !name.includes('"finished"'));
  const total = bad.reduce((sum, [, value]) => sum + value, 0);
  lastMinute.push({ total, all });
  if (lastMinute.length > 61) lastMinute.shift();
  reasons = bad.filter(([, value]) => value > 0)
    .map(([name, value]) => `${name.match(/reason="([^"]*)"/)[1]} ${value}`).join(", ") || "none so far";
  return total - lastMinute[0].total;
}

function lag(now) {
  let worst = 0;
  if (before) {
    let lower = 0;
    for (const [name, value] of now) {
      const bound = name.match(/^highwater_loop_lag_seconds_bucket\{le="([^"]+)"\}/);
      if (!bound) continue;
      const grown = value - (before.get(name) || 0);
      if (grown > lower) worst = bound[1] === "+Inf" ? Math.max(worst, 60) : Number(bound[1]);
      lower = grown;
    }
  }
  return Math.min(worst, 60);
}

for (const graph of graphs) {
  graph.points = [];
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.append(graph.title, " ");
  graph.value = caption.appendChild(document.createElement("b"));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${POINTS} 100`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", graph.title);
  graph.path = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  if (graph.other) graph.path.setAttribute("class", "other");
  graph.legend = document.createElement("p");
  graph.legend.className = "legend";
  figure.append(caption, svg, graph.legend);
  $("graphs").append(figure);
}

function draw(now) {
  for (const graph of graphs) {
    const value = graph.of(now) || 0;
    graph.points.push(value);
    if (graph.points.length > POINTS) graph.points.shift();
    const most = Math.max(...graph.points, Number.MIN_VALUE);
    const from = POINTS - graph.points.length;
    const at = (point, index) => `${from + index},${(98 - 94 * point / most).toFixed(1)}`;
    graph.path.setAttribute("d", "M" + graph.points.map(at).join("L"));
    graph.value.textContent = graph.unit(value);
    graph.legend.textContent = graph.other ? reasons : `at most ${graph.unit(most)}`;
  }
  before = now;
}

function row(cells, isOver) {
  const line = document.createElement("tr");
  if (isOver) line.className = "over";
  for (const [name, text, kind] of cells) {
    const cell = line.appendChild(document.createElement("td"));
    cell.dataset.name = name;
    cell.textContent = text;
    if (kind) cell.className = kind;
  }
  return line;
}

function list(clients) {
  $("shadow").hidden = !clients.shadow;
  if (clients.shadow) $("shadow").textContent = `Shadow mode: ${clients.shadow.sentence}. Time over the limit: ${clients.shadow.table}.`;
  $("shown").textContent = `${clients.live.length} of ${clients.live_total}`;
  const over = (client) => client.over_limit_seconds > 0 ? time(client.over_limit_seconds) : "–";
  $("live").tBodies[0].replaceChildren(...clients.live.map((client) => row([
    ["address", client.address, "address"], ["queued", size(client.queued_bytes)], ["over the limit", over(client)],
    ["peak", size(client.peak_bytes)], ["sent", size(client.sent_bytes)], ["received", size(client.received_bytes)],
    ["age", time(client.age_seconds)], ["state", client.state, "word"],
  ], client.over_limit_seconds > 0)));
  const gone = Object.entries(clients.gone).flatMap(([reason, those]) => those.slice(0, 20).map((client) => [reason, client]));
  $("gone").tBodies[0].replaceChildren(...gone.map(([reason, client]) => row([
    ["reason", reason, "word"], ["address", client.address, "address"], ["queued", size(client.queued_bytes)],
    ["over the limit", over(client)], ["sent", size(client.sent_bytes)], ["age", time(client.age_seconds)],
    ["state", client.state, "word"],
  ], reason !== "finished")));
}

function parse(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    if (!line || line.startsWith("#")) continue;
    const at = line.lastIndexOf(" ");
    samples.set(line.slice(0, at), Number(line.slice(at + 1)));
    const version = line.match(/^highwater_build_info\{version="([^"]*)"/);
    if (version) $("version").textContent = version[1];
  }
  return samples;
}

async function get(path) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (answer.status === 401) { $("login").hidden = false; throw new Error("a token is needed"); }
  if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
  $("login").hidden = true;
  return answer;
}

async function ask() {
  try {
    const [metrics, clients] = await Promise.all([get("/metrics"), get(`/clients?sort=${sort}&limit=100`)]);
    draw(parse(await metrics.text()));
    list(await clients.json());
    answeredAt = performance.now();
    document.body.classList.remove("silent");
    $("status").textContent = "answers";
  } catch (error) {
    const silence = (performance.now() - answeredAt) / 1000;
    document.body.classList.add("silent");
    $("status").textContent = !$("login").hidden ? "a token is needed"
      : `the server has stopped answering ${time(silence)} ago`;
  }
  setTimeout(ask, STEP_MS);
}

$("sorts").addEventListener("click", (event) => {
  if (!event.target.dataset.sort) return;
  sort = event.target.dataset.sort;
  for (const button of $("sorts").children) button.setAttribute("aria-pressed", String(button.dataset.sort === sort));
});
$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value;
  sessionStorage.setItem("token", token);
});
ask();
