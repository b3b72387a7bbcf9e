// Makes the static page interactive. Everything is readable without this script.
const vegaEmbed = window.initbenchVega.vegaEmbed;
const config = JSON.parse(document.getElementById("report-config").textContent);
const initial = {hidden: [], baseline: config.baseline, step: 0, layer: null, point: null};
const state = {...initial};
const figures = new Map();
const slider = document.getElementById("step");
const playButton = document.getElementById("play");
const baselineList = document.getElementById("baseline");
const rowBoxes = [...document.querySelectorAll(".row-shown")];
const layerSlider = document.getElementById("layer");
const steps = slider ? slider.dataset.steps.split(" ").map(Number) : [];
const nearestStep = (step) => steps.reduce((best, s) => (Math.abs(s - step) < Math.abs(best - step) ? s : best));

// Data are read when a figure is first drawn or saved.
function register(element) {
  const figure = {element, plot: element.querySelector(".plot"), view: null, isLinear: false};
  let data;
  Object.defineProperty(figure, "data", {get: () => (data ??= readData(element))});
  figures.set(element.dataset.key, figure);
  element.querySelector(".tools").hidden = false;
  element.querySelector(".svg").addEventListener("click", () => saveSvg(figure));
  element.querySelector(".csv").addEventListener("click", () => saveCsv(figure));
  element.querySelector(".scale")?.addEventListener("click", (event) => {
    figure.isLinear = !figure.isLinear;
    event.target.textContent = figure.isLinear ? "Logarithmic axis" : "Linear axis";
    draw(figure);
  });
}

// A column is a list, or runs of equal values.
const unpacked = (column) => (
  Array.isArray(column) ? column : column.values.flatMap((value, i) => Array(column.counts[i]).fill(value))
);

function readData(element) {
  const data = JSON.parse(element.querySelector(".figure-data").textContent);
  for (const [name, column] of Object.entries(data.columns)) data.columns[name] = unpacked(column);
  return data;
}

function rowsOf(data) {
  const names = Object.keys(data.columns);
  const count = names.length ? data.columns[names[0]].length : 0;
  return Array.from({length: count}, (_, i) => Object.fromEntries(names.map((n) => [n, data.columns[n][i]])));
}

function withLinearAxis(spec, channels) {
  if (Array.isArray(spec)) return spec.map((part) => withLinearAxis(part, channels));
  if (spec === null || typeof spec !== "object") return spec;
  const copy = {};
  for (const [key, value] of Object.entries(spec)) {
    copy[key] = withLinearAxis(value, channels);
    if (channels.includes(key) && value?.scale?.type === "log") {
      copy[key].scale = {...value.scale, type: "linear"};
      if (value.axis) copy[key].axis = {...value.axis, values: null, format: null, labelExpr: null};
    }
  }
  return copy;
}

async function draw(figure) {
  const {data, plot} = figure;
  const body = figure.isLinear ? withLinearAxis(data.spec, data.log) : data.spec;
  const width = plot.clientWidth;
  const spec = {
    autosize: {type: "fit-x", contains: "padding"},
    ...body,
    $schema: "https://vega.github.io/schema/vega-lite/v6.json",
    width,
    datasets: {[config.table]: rowsOf(data)},
    data: {name: config.table},
    config: config.config,
    params: (body.params ?? []).map((p) => (p.name in state ? {...p, value: state[p.name]} : p)),
  };
  const holder = document.createElement("div");
  const {view} = await vegaEmbed(holder, spec, {
    renderer: "svg", actions: false, tooltip: {theme: "custom"}, defaultStyle: false, logLevel: 1,
  });
  figure.view?.finalize();
  plot.replaceChildren(holder);
  Object.assign(figure, {view, width});
  view.addEventListener("click", (_event, item) => select(item?.datum));
  await showState(figure);  // which may have changed in the meantime
  plot.dataset.drawn = "true";
}

// A click on a mark selects its layer, and the probe nearest to its step unless that is shown already.
function select(datum) {
  const change = {};
  if (steps.length && Number.isFinite(datum?.step) && !isShown(datum)) change.step = nearestStep(datum.step);
  if (Number.isInteger(datum?.layer)) {
    change.layer = datum.layer === state.layer && !("step" in change) ? null : datum.layer;
  }
  if (Number.isInteger(datum?.point) && datum.layer === undefined) {
    change.point = datum.point === state.point ? null : datum.point;
  }
  if (Object.keys(change).length) update(change);
}

// Whether a record stands for the selected step; records of learning curves stand for their own step only.
function isShown({step, until}) {
  return step <= state.step && state.step < (until ?? step);
}

function showState({view, data}) {
  for (const {name} of data.spec.params ?? []) {
    if (name in state) view.signal(name, state[name]);
  }
  return view.runAsync();
}

async function update(change) {
  Object.assign(state, change);
  showControls();
  writeFragment();
  const drawn = [...figures.values()].filter((figure) => figure.view);
  await Promise.all(drawn.map(showState));
  document.body.dataset.updates = String(Number(document.body.dataset.updates ?? 0) + 1);
}

function showControls() {
  for (const box of rowBoxes) box.checked = !state.hidden.includes(box.dataset.row);
  if (baselineList) baselineList.value = state.baseline;
  if (slider) {
    slider.value = String(Math.max(0, steps.indexOf(state.step)));
    document.getElementById("step-value").textContent = state.step.toLocaleString("en");
  }
  if (layerSlider) {
    layerSlider.value = String(state.layer ?? 0);
    document.getElementById("layer-value").textContent = state.layer ?? "none";
  }
  const count = state.hidden.length;
  document.getElementById("state").textContent = [
    state.baseline && `Lines are differences from ${state.baseline}, or ratios on logarithmic axes.`,
    count && `${count} ${count === 1 ? "row is" : "rows are"} hidden.`,
  ].filter(Boolean).join(" ");
}

// The fragment holds the state, so that a link shows the same view: #section?step=120&layer=3&hidden=…
function writeFragment() {
  const query = new URLSearchParams(state.hidden.map((name) => ["hidden", name]));
  if (state.step) query.set("step", state.step);
  if (state.layer !== null) query.set("layer", state.layer);
  if (state.point !== null) query.set("point", state.point);
  if (state.baseline) query.set("baseline", state.baseline);
  const [anchor] = location.hash.split("?");
  const text = query.toString();
  history.replaceState(null, "", `${anchor || "#"}${text && "?"}${text}`);
}

function readFragment() {
  const [anchor, text] = location.hash.split("?");
  const target = document.getElementById(anchor.slice(1));
  target?.closest("details")?.setAttribute("open", "");
  if (text === undefined) return;
  const query = new URLSearchParams(text);
  const names = rowBoxes.map((box) => box.dataset.row);
  const layer = Number(query.get("layer"));
  const step = Number(query.get("step"));
  const point = Number(query.get("point") ?? NaN);
  Object.assign(state, {
    step: steps.length && Number.isFinite(step) ? nearestStep(step) : 0,
    layer: Number.isInteger(layer) && layer > 0 ? layer : null,
    point: Number.isInteger(point) ? point : null,
    baseline: names.includes(query.get("baseline")) ? query.get("baseline") : "",
    hidden: query.getAll("hidden").filter((name) => names.includes(name)),
  });
  target?.scrollIntoView();
}

function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

async function saveSvg(figure) {
  if (!figure.view) await draw(figure);
  const svg = new DOMParser().parseFromString(await figure.view.toSVG(), "image/svg+xml").documentElement;
  addLegend(svg);
  download(`${figure.data.key}.svg`, "image/svg+xml", new XMLSerializer().serializeToString(svg));
}

// A saved picture has the visible rows of the page's legend below the marks, if it has their colours.
function addLegend(svg) {
  const keys = rowBoxes.filter((box) => box.checked).map((box) => box.closest("li").querySelector(".key line"));
  const marks = [...svg.querySelectorAll("[stroke], [fill]")];
  const colours = new Set(marks.flatMap((mark) => [mark.getAttribute("stroke"), mark.getAttribute("fill")]));
  if (!keys.some((key) => colours.has(key.getAttribute("stroke")))) return;
  const [width, height] = ["width", "height"].map((name) => Number(svg.getAttribute(name)));
  const context = document.createElement("canvas").getContext("2d");
  const font = {"font-family": config.config.font, "font-size": 11};
  context.font = `${font["font-size"]}px ${font["font-family"]}`;
  let [x, y] = [10, height + 10];
  for (const key of keys) {
    const name = key.closest("li").querySelector("span").textContent;
    const space = 50 + context.measureText(name).width;
    if (x > 10 && x + space > width) [x, y] = [10, y + 16];
    const line = svg.appendChild(key.cloneNode());
    line.setAttribute("transform", `translate(${x},${y - 6})`);
    const text = svg.appendChild(document.createElementNS(svg.namespaceURI, "text"));
    for (const [attribute, value] of Object.entries({x: x + 30, y: y + 4, fill: "currentColor", ...font})) {
      text.setAttribute(attribute, value);
    }
    text.textContent = name;
    x += space;
  }
  svg.setAttribute("height", y + 12);
  svg.setAttribute("viewBox", `0 0 ${width} ${y + 12}`);
}

// Numbers as Python writes them, so that the file equals that of `initbench figure`.
function csvNumber(value) {
  const [digits, exponent] = value.toExponential().split("e");
  if (value === 0 || (exponent >= -4 && exponent < 16)) return String(value);
  return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
}

function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return csvNumber(value);
  const text = Array.isArray(value) ? value.map(csvCell).join(" ") : String(value);
  const inert = /^[=+\-@]/.test(text) && !Array.isArray(value) ? `'${text}` : text;
  return /[",\r\n]/.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert;
}

function saveCsv(figure) {
  const names = Object.keys(figure.data.columns);
  const lines = rowsOf(figure.data).map((row) => names.map((name) => csvCell(row[name])).join(","));
  download(`${figure.data.key}.csv`, "text/csv", [names.map(csvCell).join(","), ...lines, ""].join("\n"));
}

function makeSortable(table) {
  const collator = new Intl.Collator("en", {numeric: true});
  const number = (text) => (text.trim() ? Number(text.replace(/[ ±%].*$/, "").replace("−", "-").replaceAll(",", "")) : NaN);
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = Object.assign(document.createElement("button"), {
      type: "button", className: "sort", textContent: heading.textContent,
    });
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
      const key = (row) => row.cells[column].textContent;
      const compare = (a, b) => {
        const difference = number(key(a)) - number(key(b));
        return sign * (Number.isNaN(difference) ? collator.compare(key(a), key(b)) : difference);
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
    });
  });
}

document.querySelectorAll("figure").forEach(register);
document.querySelectorAll("table.sortable").forEach(makeSortable);
document.getElementById("sliders").hidden = false;
for (const box of rowBoxes) box.disabled = false;
document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("legend").addEventListener("change", ({target}) => {
  const others = state.hidden.filter((name) => name !== target.dataset.row);
  update({hidden: target.checked ? others : [...others, target.dataset.row]});
});

// The buttons for all rows apply to the rows that the search finds.
const finder = document.getElementById("finder");
if (finder) {
  const filter = document.getElementById("filter");
  const isFound = (box) => box.dataset.row.toLowerCase().includes(filter.value.trim().toLowerCase());
  const found = () => rowBoxes.filter(isFound).map((box) => box.dataset.row);
  finder.hidden = false;
  filter.addEventListener("input", () => {
    for (const box of rowBoxes) box.closest("li").hidden = !isFound(box);
  });
  document.getElementById("all").addEventListener("click", () => {
    const shown = new Set(found());
    update({hidden: state.hidden.filter((name) => !shown.has(name))});
  });
  document.getElementById("none").addEventListener("click", () => {
    update({hidden: [...new Set([...state.hidden, ...found()])]});
  });
}

let playing = null;
function stop() {
  clearInterval(playing);
  playing = null;
  playButton.textContent = "Play";
}
playButton?.addEventListener("click", () => {
  if (playing) return stop();
  playButton.textContent = "Pause";
  if (state.step === steps.at(-1)) update({step: steps[0]});
  playing = setInterval(() => {
    const next = steps.indexOf(state.step) + 1;
    if (next >= steps.length) return stop();
    update({step: steps[next]});
  }, 600);
});
baselineList?.addEventListener("change", () => update({baseline: baselineList.value}));
slider?.addEventListener("input", () => update({step: steps[Number(slider.value)]}));
layerSlider?.addEventListener("input", () => update({layer: Number(layerSlider.value) || null}));
document.getElementById("reset").addEventListener("click", () => update({...initial, hidden: []}));
window.addEventListener("hashchange", () => { readFragment(); update({}); });
readFragment();
showControls();

// Links scroll to a heading below the controls, which stay at the top of wide windows.
const controls = document.getElementById("controls");
new ResizeObserver(() => {
  const isSticky = getComputedStyle(controls).position === "sticky";
  document.documentElement.style.scrollPaddingTop = `${isSticky ? controls.offsetHeight + 8 : 0}px`;
}).observe(controls);

// Figures are drawn when they come near the window, so that a page of 50 runs opens at once.
const observer = new IntersectionObserver((entries) => {
  for (const {isIntersecting, target} of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    const figure = figures.get(target.dataset.key);
    if (!figure.view) draw(figure).catch((error) => console.error(figure.data.key, error));
  }
}, {rootMargin: "300px"});
for (const {element} of figures.values()) observer.observe(element);

let resizing;
window.addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(() => {
    for (const figure of figures.values()) {
      if (figure.view && figure.plot.clientWidth !== figure.width) draw(figure);
    }
  }, 150);
});
document.body.dataset.ready = "true";
