"use strict";
(async () => {
  const byId = (id) => document.getElementById(id);
  const finish = () => { document.documentElement.dataset.drawn = "yes"; };
  async function unpack(id) {
    const text = atob(byId(id).textContent.trim());
    const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  }
  byId("copy").onclick = async () => {
    try { await navigator.clipboard.writeText(byId("command").textContent); byId("copy").textContent = "Copied"; }
    catch { getSelection().selectAllChildren(byId("command")); }
  };
  let drawAll = async () => {};
  byId("theme").onclick = () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    drawAll();
  };
  if (!byId("map")) return finish();
  if (!("DecompressionStream" in window)) {
    byId("trouble").hidden = false;
    byId("trouble").textContent = "The charts need a browser of 2023 or later.";
    return;
  }
  const content = await unpack("packed-run");
  const run = JSON.parse(new TextDecoder().decode(new Uint8Array(content, 4, new DataView(content).getUint32(0, true))));
  const program = document.createElement("script");
  program.textContent = new TextDecoder().decode(await unpack("packed-charts"));
  document.head.append(program);
  const Plotly = window.Plotly;

  // ---- one look at the numbers ------------------------------------------------------------------------------------
  const { axes, places, figures, noise, metric } = run;
  const defined = figures.filter((value) => value !== null);
  const two = (value) => value.toFixed(2);
  const chosen = { down: 0, across: axes.length > 1 ? 1 : 0, rest: "best" };
  const others = () => axes.map((_, number) => number).filter((number) => number !== chosen.down && number !== chosen.across);

  // every set that falls into a cell, best first
  function cells() {
    const rows = axes.length > 1 ? axes[chosen.down].values.length : 1, found = new Map();
    figures.forEach((value, set) => {
      if (value === null) return;
      const row = axes.length > 1 ? places[chosen.down][set] : 0, key = places[chosen.across][set] * rows + row;
      if (found.has(key)) found.get(key).push(set); else found.set(key, [set]);
    });
    for (const sets of found.values()) sets.sort((a, b) => figures[b] - figures[a] || a - b);
    return { rows, at: (row, column) => found.get(column * rows + row) ?? [] };
  }
  // the middle one counts as the median; of an even number the worse of the two
  const pick = (sets) => sets[chosen.rest === "median" ? Math.floor(sets.length / 2) : 0];
  function words(sets) {
    if (!sets.length) return "not valid or not defined";
    const set = pick(sets), rest = others().map((axis) => escaped(`${axes[axis].name} ${axes[axis].values[places[axis][set]]}`));
    const of = rest.length ? `<br>${rest.join(", ")} (of ${sets.length.toLocaleString("en")} sets)` : "";
    return `${metric} ${two(figures[set])}${of}<br>${figures[set] > noise.high ? "above" : "not above"} the best of noise`;
  }

  // ---- charts -----------------------------------------------------------------------------------------------------
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const settings = { responsive: true, displaylogo: false, displayModeBar: false, plotlyServerURL: "" };
  const axis = (extra) => ({ gridcolor: color("grid"), linecolor: color("line"), zerolinecolor: color("line"), zeroline: false, automargin: true, fixedrange: true, ...extra });
  const layout = (extra) => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, dragmode: false,
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color("quiet") },
    margin: { l: 8, r: 8, t: 8, b: 8 }, hoverlabel: { bgcolor: color("card"), bordercolor: color("line"), font: { color: color("ink") } }, ...extra,
  });
  const NUMBERS_MAX = 300, MARKS_MAX = 20000, BINS = 48;

  function heatMap() {
    const down = axes[chosen.down], across = axes[chosen.across], grid = cells();
    const z = [], said = [], text = [], marks = { x: [], y: [] };
    const reach = Math.max(1e-9, -lowest, highest);
    const shown = down.values.length * across.values.length <= NUMBERS_MAX && byId("map").clientWidth / across.values.length > 44;
    for (let row = 0; row < grid.rows; row += 1) {
      z.push([]); said.push([]); text.push([]);
      for (let column = 0; column < across.values.length; column += 1) {
        const sets = grid.at(row, column), value = sets.length ? figures[pick(sets)] : null;
        z[row].push(value);
        said[row].push(`${escaped(down.name)} ${escaped(down.values[row])}, ${escaped(across.name)} ${escaped(across.values[column])}<br>${words(sets)}`);
        text[row].push(value === null || !shown ? "" : two(value) + (value > noise.high ? "*" : ""));
        if (value !== null && value > noise.high && marks.x.length < MARKS_MAX) { marks.x.push(column); marks.y.push(row); }
      }
    }
    byId("map").style.height = `${Math.min(760, Math.max(260, 110 + 26 * down.values.length))}px`;
    const labels = (values) => { const step = Math.ceil(values.length / 24); return { tickvals: values.map((_, i) => i).filter((i) => i % step === 0), ticktext: values.filter((_, i) => i % step === 0) }; };
    const gap = Math.max(down.values.length, across.values.length) > 60 ? 0 : 1;
    const map = {
      type: "heatmap", z, text, customdata: said, texttemplate: shown ? "%{text}" : "", zmin: -reach, zmax: reach, xgap: gap, ygap: gap, hoverongaps: false,
      textfont: { color: color("ink"), size: 11 }, opacity: 0.9, colorscale: [[0, color("bad")], [0.5, color("middle")], [1, color("good")]],
      colorbar: { thickness: 12, outlinewidth: 0, title: { text: metric, side: "right" } }, showscale: byId("map").clientWidth > 560,
      hovertemplate: "%{customdata}<extra></extra>",
    };
    const dots = { type: "scatter", mode: "markers", ...marks, marker: { symbol: "circle", size: 4, color: color("ink") }, hoverinfo: "skip" };
    return [shown ? [map] : [map, dots], layout({
      xaxis: axis({ title: { text: escaped(across.name), standoff: 8 }, showgrid: false, ...labels(across.values), range: [-0.5, across.values.length - 0.5] }),
      yaxis: axis({ title: { text: escaped(down.name), standoff: 8 }, showgrid: false, ...labels(down.values), range: [down.values.length - 0.5, -0.5] }),
    })];
  }

  function lineChart() {
    const grid = cells(), isNumber = run.is_number[0], all = axes[0].values.map((_, column) => grid.at(0, column));
    const first = all.findIndex((found) => found.length), last = all.findLastIndex((found) => found.length);
    const only = { name: axes[0].name, values: axes[0].values.slice(first, last + 1) }, sets = all.slice(first, last + 1);
    byId("map").style.height = "380px";
    const band = { type: "rect", xref: "paper", x0: 0, x1: 1, y0: noise.low, y1: noise.high, layer: "below", line: { width: noise.low === noise.high ? 1 : 0, color: color("share") }, fillcolor: color("share"), opacity: 0.22 };
    return [[{
      type: "scatter", mode: "lines+markers", x: isNumber ? only.values.map(Number) : only.values, y: sets.map((found) => (found.length ? figures[found[0]] : null)),
      line: { color: color("main"), width: 2 }, marker: { size: only.values.length > 120 ? 3 : 6 }, connectgaps: false,
      customdata: sets.map((found, column) => `${escaped(only.name)} ${escaped(only.values[column])}<br>${words(found)}`), hovertemplate: "%{customdata}<extra></extra>",
    }], layout({
      xaxis: axis({ title: { text: escaped(only.name), standoff: 8 }, type: isNumber ? "linear" : "category" }),
      yaxis: axis({ title: { text: metric, standoff: 8 }, zeroline: true, autorangeoptions: { include: [noise.low, noise.high] } }), shapes: [band],
      annotations: [{ xref: "paper", x: 1, xanchor: "right", y: noise.high, yanchor: "bottom", text: "best of noise", showarrow: false, font: { color: color("share") } }],
    })];
  }

  function spreadChart() {
    const line = (x) => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: color("share"), width: 1.5, dash: "dot" } });
    const left = Math.min(lowest, noise.low), size = (Math.max(highest, noise.high) - left || 1) / BINS;
    return [[{ type: "histogram", x: defined, xbins: { start: left, end: left + (BINS + 1) * size, size }, marker: { color: color("main") }, opacity: 0.75, hovertemplate: "%{y:,} sets, %{x}<extra></extra>" }], layout({
      bargap: 0.04, xaxis: axis({ title: { text: metric, standoff: 8 }, autorangeoptions: { include: noise.bests } }),
      yaxis: axis({ rangemode: "tozero" }), shapes: noise.bests.map(line),
    })];
  }

  const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const [lowest, highest] = defined.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);

  function explain() {
    const rest = others().map((number) => axes[number].name).join(", ");
    const marked = "Marked: above the best of noise.", of = chosen.rest === "median" ? "the median" : "the best";
    if (axes.length < 2) return axes.length ? "Each value beside the band of the best figures that shuffled markets gave." : "";
    return rest ? `Each cell is ${of} of all sets with these two values, over ${rest}${chosen.rest === "best" ? ": the more sets a cell chooses from, the better it looks" : ""}. ${marked}` : `Each cell is one set. ${marked}`;
  }
  const charts = { spread: spreadChart };
  if (axes.length) charts.map = axes.length > 1 ? heatMap : lineChart; else byId("map-card").hidden = true;
  drawAll = async () => {
    byId("map-how").textContent = explain();
    for (const [name, make] of Object.entries(charts)) await Plotly.react(name, ...make(), settings);
  };
  if (axes.length > 2) {
    byId("choice").hidden = false;
    for (const name of ["down", "across"]) {
      byId(name).append(...axes.map((each, number) => new Option(each.name, number, false, number === chosen[name])));
      byId(name).onchange = () => {
        const other = name === "down" ? "across" : "down", next = Number(byId(name).value);
        if (next === chosen[other]) { chosen[other] = chosen[name]; byId(other).value = chosen[other]; }
        chosen[name] = next;
        drawAll();
      };
    }
    byId("rest").onchange = () => { chosen.rest = byId("rest").value; drawAll(); };
  }
  await drawAll();
  matchMedia("(max-width: 700px)").addEventListener("change", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  finish();
})();
