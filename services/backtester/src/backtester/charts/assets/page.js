"use strict";
(async () => {
  const byId = (id) => document.getElementById(id);
  const fail = (text) => { const place = byId("trouble"); place.hidden = false; place.textContent = text; };

  // ---- what the page carries --------------------------------------------------------------------------------------
  async function unpack(id) {
    const text = atob(byId(id).textContent.trim());
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  }
  if (!("DecompressionStream" in window)) return fail("The charts need a browser of 2023 or later.");
  const content = await unpack("packed-run");
  const length = new DataView(content).getUint32(0, true);
  const run = JSON.parse(new TextDecoder().decode(new Uint8Array(content, 4, length)));
  const closes = run.closes ? readCloses(run.closes, new Uint8Array(content, 4 + length)) : null;

  function readCloses(facts, planes) {
    const rows = facts.rows, scale = 10 ** facts.decimals;
    const time = new Float64Array(rows), value = new Float64Array(rows);
    let ticks = facts.first, skipped = 0, hole = 0;
    for (let i = 0; i < rows; i += 1) {
      const folded = (planes[i] | planes[rows + i] << 8 | planes[2 * rows + i] << 16 | planes[3 * rows + i] << 24) >>> 0;
      ticks += (folded >>> 1) ^ -(folded & 1);
      if (hole < facts.holes.length && facts.holes[hole][0] === i) { skipped += facts.holes[hole][1]; hole += 1; }
      time[i] = facts.start + (i + skipped) * facts.step;
      value[i] = ticks / scale;
    }
    return { time, value, step: facts.step };
  }

  // ---- the trades table needs no charts ---------------------------------------------------------------------------
  const number = (digits) => new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const two = number(2), plain = new Intl.NumberFormat("en", { maximumSignificantDigits: 9 });
  const signed = (value) => (value > 0 ? "+" : "") + (Math.abs(value) < 1 && value !== 0 ? plain.format(Number(value.toPrecision(3))) : two.format(value));
  const moment = (ms) => new Date(ms).toISOString().slice(0, 16).replace("T", " ");
  function duration(ms) {
    const minutes = Math.round(ms / 60000), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
    if (days) return `${days} d ${hours % 24} h`;
    return hours ? `${hours} h ${minutes % 60} min` : `${minutes} min`;
  }
  const pairs = run.pairs, count = pairs.entry_ms.length;
  const columns = [
    ["Entry (UTC)", (i) => pairs.entry_ms[i], moment],
    ["Exit (UTC)", (i) => pairs.exit_ms[i], moment],
    ["Quantity", (i) => pairs.quantity[i], plain.format],
    ["In at", (i) => pairs.entry_price[i], plain.format],
    ["Out at", (i) => pairs.exit_price[i], plain.format],
    ["Net", (i) => pairs.pnl[i], signed],
    ["Net %", (i) => pairs.pnl_pct[i], signed],
    ["Fees", (i) => pairs.fees[i], (value) => signed(value).replace("+", "")],
    ["Held", (i) => pairs.exit_ms[i] - pairs.entry_ms[i], duration],
    ...(pairs.adverse ? [["MAE %", (i) => pairs.adverse[i], two.format], ["MFE %", (i) => pairs.favourable[i], two.format]] : []),
    ["Closed by", (i) => pairs.reason[i] || "signal", (text) => text.replaceAll("_", " ")],
  ];
  const table = { order: [...Array(count).keys()].reverse(), sorted: 1, falling: true, from: 0, rows: 25 };

  function drawTable() {
    const body = byId("trades").tBodies[0];
    body.replaceChildren(...table.order.slice(table.from, table.from + table.rows).map((i) => {
      const row = document.createElement("tr");
      row.tabIndex = 0;
      row.append(...columns.map(([name, value, show]) => {
        const cell = document.createElement("td");
        cell.textContent = show(value(i));
        if (name.startsWith("Net")) cell.className = value(i) > 0 ? "good-text" : value(i) < 0 ? "bad-text" : "";
        return cell;
      }));
      row.onclick = () => lookAt(i);
      row.onkeydown = (event) => { if (event.key === "Enter") lookAt(i); };
      return row;
    }));
    byId("place").textContent = `${table.from + 1} to ${Math.min(table.from + table.rows, count)} of ${count.toLocaleString("en")}`;
    byId("earlier").disabled = table.from === 0;
    byId("later").disabled = table.from + table.rows >= count;
  }
  function sortBy(place) {
    table.falling = table.sorted === place ? !table.falling : true;
    table.sorted = place;
    table.from = 0;
    const value = columns[place][1], sign = table.falling ? -1 : 1;
    table.order.sort((a, b) => { const x = value(a), y = value(b); return sign * (x > y ? 1 : x < y ? -1 : a - b); });
    drawTable();
  }
  if (count) {
    const head = document.createElement("tr");
    columns.forEach(([name], place) => {
      const cell = document.createElement("th");
      cell.textContent = name; cell.tabIndex = 0; cell.scope = "col";
      cell.onclick = () => sortBy(place);
      cell.onkeydown = (event) => { if (event.key === "Enter") sortBy(place); };
      head.append(cell);
    });
    byId("trades").tHead.append(head);
    byId("earlier").onclick = () => { table.from = Math.max(0, table.from - table.rows); drawTable(); };
    byId("later").onclick = () => { table.from += table.rows; drawTable(); };
    if (run.pairs_total > count) byId("trades-how").textContent += ` The newest ${count.toLocaleString("en")} of ${run.pairs_total.toLocaleString("en")} are here; the CSV has all.`;
    drawTable();
  }
  byId("copy").onclick = async () => {
    try { await navigator.clipboard.writeText(byId("command").textContent); byId("copy").textContent = "Copied"; }
    catch { getSelection().selectAllChildren(byId("command")); }
  };

  // ---- charts -----------------------------------------------------------------------------------------------------
  if (!byId("equity")) return finish();
  const program = document.createElement("script");
  program.textContent = new TextDecoder().decode(await unpack("packed-charts"));
  document.head.append(program);
  const Plotly = window.Plotly;
  const coarse = matchMedia("(pointer: coarse)").matches;
  const settings = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d", "sendChartToCloud"], plotlyServerURL: "", displayModeBar: coarse ? false : "hover" };
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const unit = run.quote ? ` ${run.quote}` : "";

  function axis(extra) {
    return { gridcolor: color("grid"), linecolor: color("line"), zerolinecolor: color("line"), zeroline: false, automargin: true, ...extra };
  }
  function layout(extra) {
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color("quiet") },
      margin: { l: 8, r: 8, t: 8, b: 8 }, dragmode: coarse ? false : "zoom", showlegend: false,
      modebar: { bgcolor: "rgba(0,0,0,0)", color: color("hold"), activecolor: color("ink") },
      hoverlabel: { bgcolor: color("card"), bordercolor: color("line"), font: { color: color("ink") } },
      xaxis: axis(), yaxis: axis(), ...extra,
    };
  }

  function equityChart() {
    const styles = {
      main: { color: color("main"), width: 2 }, hold: { color: color("hold"), width: 1.4 },
      share: { color: color("share"), width: 1.6 }, rung: { color: color("rung"), width: 1 },
    };
    const order = { rung: 0, hold: 1, share: 2, main: 3 };
    const rungs = { "0x costs": "dot", "2x costs": "dash", "3x costs": "solid" };
    const lines = [...run.equity].sort((a, b) => order[a.kind] - order[b.kind]).map((line) => ({
      type: "scatter", mode: "lines", name: line.name, x: line.x, y: line.y,
      line: { ...styles[line.kind], dash: rungs[line.name] ?? "solid" }, legendrank: 10 - order[line.kind],
      hovertemplate: `%{y:,.2f}${unit}`,
    }));
    const fall = run.drawdown && {
      type: "scatter", mode: "lines", name: "Drawdown", x: run.drawdown.x, y: run.drawdown.y, yaxis: "y2", showlegend: false,
      line: { color: color("bad"), width: 1 }, fill: "tozeroy", fillcolor: color("bad-soft"), hovertemplate: "%{y:.2f} %",
    };
    return [fall ? [...lines, fall] : lines, layout({
      hovermode: "x unified", showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { color: color("ink") } },
      xaxis: axis({ type: "date", anchor: "y2", range: range.now }), yaxis: axis({ domain: [0.3, 1], tickformat: ",~r", fixedrange: true }),
      yaxis2: axis({ domain: [0, 0.24], ticksuffix: " %", rangemode: "tozero", fixedrange: true, nticks: 4 }),
    })];
  }

  const FILLS_DRAWN_MAX = 800, CLOSES_DRAWN_MAX = 6000, CANDLES_ENOUGH = 250;
  function within(times, from, to) {
    const place = (wanted) => { let low = 0, high = times.length; while (low < high) { const mid = (low + high) >> 1; if (times[mid] < wanted) low = mid + 1; else high = mid; } return low; };
    return [place(from), place(to + 1)];
  }
  function closesEach(from, to) {
    const [first, last] = within(closes.time, from, to);
    return last - first <= CLOSES_DRAWN_MAX ? 1 : Math.ceil((last - first) / (CLOSES_DRAWN_MAX / 2));
  }
  function closeLine(from, to) {
    const size = closesEach(from, to), x = [], y = [];
    let [first, last] = within(closes.time, from, to);
    first = Math.max(0, first - 1); last = Math.min(closes.time.length, last + 1);
    for (let start = first; start < last; start += size) {
      let low = start, high = start;
      for (let i = start; i < Math.min(start + size, last); i += 1) { if (closes.value[i] < closes.value[low]) low = i; if (closes.value[i] > closes.value[high]) high = i; }
      for (const i of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) { x.push(closes.time[i] + closes.step); y.push(closes.value[i]); }
    }
    return { type: "scatter", mode: "lines", name: "Close", x, y, line: { color: color("hold"), width: 1.2 }, hovertemplate: "close %{y}<extra></extra>" };
  }
  function fillMarks(first, last, buys) {
    const step = Math.max(1, Math.ceil((last - first) / FILLS_DRAWN_MAX)), x = [], y = [], text = [];
    for (let i = first; i < last; i += 1) {
      if (run.fills.buy[i] !== buys || Math.floor(i / 2) % step) continue;
      x.push(run.fills.x[i]); y.push(run.fills.y[i]); text.push(plain.format(run.fills.quantity[i]));
    }
    return {
      type: "scatter", mode: "markers", name: buys ? "Buy" : "Sell", x, y, text,
      marker: { symbol: buys ? "triangle-up" : "triangle-down", size: x.length > 300 ? 6 : 10, color: color(buys ? "good" : "bad"), line: { color: color("card"), width: 0.7 }, opacity: 0.9 },
      hovertemplate: `${buys ? "buy" : "sell"} %{text} at %{y}<extra></extra>`,
    };
  }
  function priceChart() {
    const drawn = run.candles, end = drawn.x[drawn.x.length - 1] + drawn.step;
    const [from, to] = range.now ? range.now.map((side) => (typeof side === "number" ? side : Date.parse(`${String(side).replace(" ", "T")}Z`))) : [drawn.x[0], end];
    const [a, b] = within(drawn.x, from, to), [first, last] = within(run.fills.x, from, to);
    const fine = closes && drawn.step > drawn.own_step && b - a < CANDLES_ENOUGH;
    const candles = {
      type: "candlestick", name: "Price", x: drawn.x, open: drawn.open, high: drawn.high, low: drawn.low, close: drawn.close,
      increasing: { line: { color: color("hold"), width: 1 }, fillcolor: color("card") }, decreasing: { line: { color: color("hold"), width: 1 }, fillcolor: color("hold") },
    };
    const step = Math.max(1, Math.ceil((last - first) / FILLS_DRAWN_MAX));
    const size = fine ? closesEach(from, to) : 1;
    const what = fine ? (size > 1 ? `the lowest and highest of every ${size} closes` : "every close") : `candles of ${duration(drawn.step).replace(" 0 h", "").replace(" 0 min", "")}`;
    const left = run.fills.each > 1 ? ` This page carries one pair of fills in ${run.fills.each}.` : "";
    byId("price-hint").textContent = `Shown: ${what}; ${step > 1 ? `one in ${step} of ${(last - first).toLocaleString("en")} fills, look closer for all` : `all ${(last - first).toLocaleString("en")} fills in view`}.${left}`;
    const y = axis({ tickformat: ",~r", fixedrange: true });
    const traces = [fine ? closeLine(from, to) : candles, fillMarks(first, last, 1), fillMarks(first, last, 0)];
    if (fine && traces[0].y.length) { const low = Math.min(...traces[0].y), high = Math.max(...traces[0].y), room = 0.06 * (high - low || high * 0.01); y.range = [low - room, high + room]; }
    else if (b > a) { const low = Math.min(...drawn.low.slice(a, b)), high = Math.max(...drawn.high.slice(a, b)), room = 0.05 * (high - low || high * 0.01); y.range = [low - room, high + room]; }
    return [traces, layout({ hovermode: "closest", xaxis: axis({ type: "date", rangeslider: { visible: false }, range: [from, to] }), yaxis: y })];
  }

  function percent(value, digits) {
    const text = value.toFixed(digits);
    return Number(text) === 0 ? "0" : (value > 0 ? "+" : "") + text;
  }
  function monthsChart() {
    const names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const all = run.months.flatMap((row) => row.months).filter((value) => value !== null);
    const reach = Math.max(0.01, ...all.map(Math.abs));
    const narrow = byId("months").clientWidth < 640;
    const tight = narrow && run.months.length > 5;
    const years = run.months.map((row) => (tight ? `\u2019${row.year.slice(2)}` : row.year)), turned = (rows) => names.map((_, month) => rows.map((row) => row[month]));
    const values = run.months.map((row) => row.months), digits = tight ? 0 : narrow ? 1 : 2;
    const words = values.map((row) => row.map((value) => (value === null ? "" : percent(value, digits))));
    byId("months").style.height = `${narrow ? 420 : 90 + 42 * years.length}px`;
    const totals = run.months.map((row, place) => ({
      text: `<b>${percent(row.total, digits)}${tight ? "" : " %"}</b>`, showarrow: false, font: { color: color(row.total < 0 ? "bad" : "good"), size: narrow ? 10 : 12 },
      ...(narrow ? { x: place, yref: "paper", y: -0.01, yanchor: "top" } : { xref: "paper", x: 1.005, xanchor: "left", y: place }),
    }));
    const across = axis({ type: "category", side: "top", fixedrange: true, showgrid: false }), down = axis({ type: "category", autorange: "reversed", fixedrange: true, showgrid: false });
    return [[{
      type: "heatmap", x: narrow ? years : names, y: narrow ? names : years, z: narrow ? turned(values) : values, text: narrow ? turned(words) : words,
      texttemplate: "%{text}", hoverongaps: false, textfont: { color: color("ink"), size: narrow ? 10 : 12 }, zmin: -reach, zmax: reach, showscale: false, xgap: 3, ygap: 3,
      colorscale: [[0, color("bad")], [0.5, color("middle")], [1, color("good")]], opacity: 0.85, hovertemplate: "%{x} %{y}: %{z:.2f} %<extra></extra>",
    }], layout({ margin: { l: 8, r: narrow ? 8 : 96, t: 30, b: narrow ? 28 : 8 }, annotations: totals, dragmode: false, xaxis: across, yaxis: down })];
  }

  function outcomeChart() {
    const { edges, counts } = run.groups.outcome, middle = counts.map((_, i) => (edges[i] + edges[i + 1]) / 2);
    return [[{
      type: "bar", x: middle, y: counts, width: edges[1] - edges[0], marker: { color: middle.map((value) => color(value < 0 ? "bad" : "good")), line: { color: color("card"), width: 1 } },
      hovertemplate: "%{y} trips around %{x:.3f} %<extra></extra>",
    }], layout({ xaxis: axis({ ticksuffix: " %", fixedrange: true }), yaxis: axis({ fixedrange: true, rangemode: "tozero" }), shapes: [level(0)] })];
  }
  function level(x, dash) {
    return { type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: color("ink"), width: 1, dash: dash ?? "solid" } };
  }
  function groupChart(name) {
    const groups = run.groups[name];
    return [[{
      type: "bar", x: groups.map((group) => group.name), y: groups.map((group) => group.pnl), width: groups.length < FEW_GROUPS ? 0.3 : undefined, marker: { color: groups.map((group) => color(group.pnl < 0 ? "bad" : "good")) },
      customdata: groups.map((group) => [group.trips, group.trips ? (100 * group.wins) / group.trips : 0, group.pnl + group.fees]),
      hovertemplate: `%{x}: net %{y:,.2f}${unit}<br>%{customdata[0]:,} trips, %{customdata[1]:.1f} % won<br>%{customdata[2]:,.2f} before fees<extra></extra>`,
    }], layout({ xaxis: axis({ type: "category", fixedrange: true, tickangle: name === "size" ? -30 : 0, nticks: 12 }), yaxis: axis({ fixedrange: true, zeroline: true, tickformat: ",~r" }) })];
  }
  const POINTS_DRAWN_MAX = 2500, FEW_TRIPS = 200, FEW_GROUPS = 4;
  function moveChart(name) {
    const moves = pairs[name], step = Math.max(1, Math.ceil(count / POINTS_DRAWN_MAX)), sides = [[], []];
    for (let i = 0; i < count; i += step) sides[pairs.pnl[i] > 0 ? 1 : 0].push(i);
    const traces = sides.map((rows, won) => ({
      type: "scatter", mode: "markers", name: won ? "won" : "lost", x: rows.map((i) => moves[i]), y: rows.map((i) => pairs.pnl_pct[i]),
      marker: { symbol: won ? "circle" : "x-thin", size: (won ? 5 : 6) + (count < FEW_TRIPS ? 4 : 0), opacity: 0.65, color: color(won ? "good" : "bad"), line: { width: won ? 0 : 1.3, color: color(won ? "good" : "bad") } },
      hovertemplate: "move %{x:.2f} %, net %{y:.2f} %<extra></extra>",
    }));
    const mark = name === "adverse" ? run.stop_pct : run.target_pct, word = name === "adverse" ? "stop" : "target";
    const most = Math.max(mark || 0, moves.reduce((high, value) => Math.max(high, value), 0)) * 1.05 || 1;
    const limit = mark ? { shapes: [level(mark, "dash")], annotations: [{ x: mark, yref: "paper", y: 1, text: ` ${word} ${mark} % `, showarrow: false, xanchor: mark > 0.6 * most ? "right" : "left", yanchor: "top", font: { color: color("ink") } }] } : { annotations: [{ xref: "paper", x: 1, xanchor: "right", yref: "paper", y: 1, yanchor: "top", text: `no ${word} was set`, showarrow: false }] };
    const ideal = { type: "line", x0: 0, y0: 0, x1: most, y1: name === "adverse" ? -most : most, line: { color: color("hold"), width: 1, dash: "dot" } };
    return [traces, layout({
      hovermode: "closest", ...limit, shapes: [...(limit.shapes ?? []), ideal],
      xaxis: axis({ ticksuffix: " %", range: [0, most], fixedrange: true, title: { text: name === "adverse" ? "furthest against the trip" : "furthest for the trip" } }),
      yaxis: axis({ ticksuffix: " %", fixedrange: true, zeroline: true, range: reachOf(pairs.pnl_pct) }),
    })];
  }
  function reachOf(values) {
    let low = 0, high = 0;
    for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
    const room = 0.08 * (high - low || 1);
    return [low - room, high + room];
  }

  const range = { now: null, quiet: false };
  const charts = { equity: equityChart };
  if (run.candles) charts.price = priceChart; else byId("price-card").hidden = true;
  charts.months = monthsChart;
  if (count) {
    charts.outcome = outcomeChart;
    for (const name of ["size", "hour", "holding"]) charts[name] = () => groupChart(name);
    for (const name of ["adverse", "favourable"]) if (pairs[name]) charts[name] = () => moveChart(name); else byId(`${name}-card`).hidden = true;
  } else byId("trip-charts").hidden = true;

  const draw = (name) => Plotly.react(name, ...charts[name](), settings);
  async function drawAll() {
    range.quiet = true;
    for (const name of Object.keys(charts)) await draw(name);
    range.quiet = false;
  }
  async function show(next) {
    if (range.quiet) return;
    range.quiet = true;
    range.now = next;
    for (const name of ["equity", "price"]) if (charts[name]) await draw(name);
    range.quiet = false;
  }
  function lookAt(i) {
    if (!charts.price) return;
    const room = Math.max(3 * (pairs.exit_ms[i] - pairs.entry_ms[i]), 120 * run.candles.own_step);
    show([pairs.entry_ms[i] - room, pairs.exit_ms[i] + room]);
    byId("price-card").scrollIntoView({ behavior: "smooth" });
  }
  await drawAll();
  for (const name of ["equity", "price"]) if (charts[name]) byId(name).on("plotly_relayout", (change) => {
    if (change["xaxis.autorange"]) show(null);
    else if ("xaxis.range[0]" in change) show([change["xaxis.range[0]"], change["xaxis.range[1]"]]);
  });
  matchMedia("(max-width: 700px)").addEventListener("change", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  byId("theme").onclick = () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    drawAll();
  };
  finish();

  function finish() { document.documentElement.dataset.drawn = "yes"; }
})();
