// Chapter 5: where the bits went. Draws the precision maps of recorded networks and the losses measured around single weights.
const MOST_COLOURS = 8; // 8 bits and more share a colour
const bitsOf = (n) => (n === 1 ? "1 bit" : `${n} bits`);
const price = (lambda) => signed(lambda < 1e-3 && lambda ? lambda.toExponential() : lambda);
const kilobytes = (bytes) => (bytes / 1000).toFixed(1) + GAP + "kB";

// All precisions of a network, a byte a weight or one for two, split by layer. Browsers unpack zlib by themselves.
async function unpackMap(packed, sizes) {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  let flat = new Uint8Array(await new Response(stream).arrayBuffer());
  const total = sizes.reduce((a, b) => a + b);
  if (flat.length < total) flat = Uint8Array.from({ length: total }, (_, i) => (i % 2 ? flat[i >> 1] & 15 : flat[i >> 1] >> 4));
  let at = 0;
  return sizes.map((size) => flat.subarray(at, (at += size)));
}

// Mean bits of each layer; choosing a bar chooses the layer.
function profilePlot(parent, state, narrow, get, go) {
  const label = "Mean bits of each layer; left and right arrow choose a layer";
  const attributes = { role: "group", "aria-label": label, tabindex: 0, class: "pa-means", ...KEYS };
  const p = plot(parent, narrow ? 140 : 176, [10, 6, 22, 26], attributes);
  const { layers, families } = state;
  const top = Math.max(2, Math.ceil(Math.max(...families.flatMap((f) => f.networks.flatMap((n) => n.means)))));
  const y = (bits) => p.h * (1 - bits / top);
  for (const bits of ticks(0, top, 4)) {
    rule(p, 0, y(bits), p.w, y(bits), bits ? "pa-grid" : "pa-axis");
    text(p, -7, y(bits) + 4, String(bits), "end");
  }
  const slot = p.w / layers.length;
  const wide = Math.max(2, Math.min(24, slot * 0.76));
  const bars = layers.map((_, i) => svg(p.frame, "rect", { x: px((i + 0.5) * slot - wide / 2), width: px(wide), rx: 1.5, class: "pa-bits" }));
  const mark = svg(p.frame, "path", { class: "pa-mark" });
  text(p, 0, p.h + 16, "first layer", "start");
  text(p, p.w, p.h + 16, "last", "end");
  p.outer.addEventListener("pointerdown", (event) => {
    const at = (event.clientX - p.outer.getBoundingClientRect().left - p.left) / slot;
    if (at >= 0 && at < layers.length) go(Math.floor(at));
  });
  p.outer.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    go(clamp(get() + step, 0, layers.length - 1));
  });
  return (network) => {
    bars.forEach((bar, i) => {
      set(bar, { y: px(y(network.means[i])), height: px(p.h - y(network.means[i])) });
      bar.classList.toggle("pa-chosen", i === get());
    });
    const at = (get() + 0.5) * slot;
    mark.setAttribute("d", `M${px(at)} ${px(p.h + 3)}l-5 8h10z`);
  };
}

// How many weights of the layer have how many bits.
function countPlot(parent, narrow, colour) {
  const p = plot(parent, narrow ? 132 : 176, [18, 6, 22, 6], { role: "img" });
  const slots = MOST_COLOURS + 1;
  const slot = p.w / slots;
  const bars = [];
  const labels = [];
  for (let bits = 0; bits < slots; bits++) {
    bars.push(svg(p.frame, "rect", { x: px(bits * slot + 2), width: px(slot - 4), class: bits ? "" : "pa-absent" }));
    labels.push(text(p, (bits + 0.5) * slot, 0, ""));
    text(p, (bits + 0.5) * slot, p.h + 16, bits < MOST_COLOURS ? String(bits) : "8+");
  }
  rule(p, 0, p.h, p.w, p.h, "pa-axis");
  return (counts, total) => {
    const said = counts.map((count, bits) => `${bits < MOST_COLOURS ? bitsOf(bits) : "8 bits or more"} ${percent(count / total)}`);
    p.outer.setAttribute("aria-label", `Share of the layer's weights by their bits: ${said.join(", ")}`);
    const most = Math.max(...counts);
    bars.forEach((bar, bits) => {
      const height = (p.h * counts[bits]) / most;
      set(bar, { y: px(p.h - height), height: px(height) });
      if (bits) bar.style.fill = colour(bits);
      const share = counts[bits] / total;
      labels[bits].textContent = !share ? "" : share < 0.01 ? "<1%" : Math.round(100 * share) + "%";
      labels[bits].setAttribute("y", px(p.h - height - 5));
    });
  };
}

// The layer's weights: a row of cells for each filter, a cell for each input, its pixels the kernel.
function mapView(parent, state, colour, say) {
  const box = html(parent, "div", "pa-map");
  const canvas = set(html(box, "canvas"), { tabindex: 0, role: "img", ...KEYS });
  const mark = html(box, "div", "pa-cursor");
  let now = null;
  let spot = null;
  const shapeOf = (shape) => {
    const [filters, inputs, kh = 1, kw = 1] = shape;
    return { filters, inputs, kh, kw, columns: inputs * kw, rows: filters * kh };
  };
  const place = () => {
    mark.hidden = !spot;
    if (!spot) return say("");
    const { shape, p, cell } = now;
    const { inputs, kh, kw } = shape;
    const [row, column] = spot;
    const [filter, y, input, x] = [Math.floor(row / kh), row % kh, Math.floor(column / kw), column % kw];
    const bits = p[((filter * inputs + input) * kh + y) * kw + x];
    Object.assign(mark.style, { left: column * cell + "px", top: row * cell + "px", width: cell + "px", height: cell + "px" });
    const where = kh * kw > 1 ? `, row ${y + 1}, column ${x + 1} of the kernel` : "";
    say(`filter ${filter + 1}, input ${input + 1}${where}: ${bits ? bitsOf(bits) : "absent (0 bits)"}`);
  };
  const point = (event) => {
    if (!now) return;
    const box = canvas.getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top) / now.cell);
    const column = Math.floor((event.clientX - box.left) / now.cell);
    const inside = row >= 0 && row < now.shape.rows && column >= 0 && column < now.shape.columns;
    spot = inside ? [row, column] : null;
    place();
  };
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("pointerleave", (event) => {
    if (event.pointerType !== "mouse") return;
    spot = null;
    place();
  });
  canvas.addEventListener("blur", () => {
    spot = null;
    place();
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!step || !now) return;
    event.preventDefault();
    const [row, column] = spot ?? [-step[0], -step[1]];
    spot = [clamp(row + step[0], 0, now.shape.rows - 1), clamp(column + step[1], 0, now.shape.columns - 1)];
    place();
  });
  return (layer, p) => {
    const shape = shapeOf(layer.shape);
    const { columns, rows, inputs, kh, kw } = shape;
    const room = parent.clientWidth;
    const cell = clamp(Math.floor(Math.min(room / columns, 420 / rows, 16)), 1, 16);
    now = { shape, p, cell };
    const sharp = Math.min(3, Math.ceil(window.devicePixelRatio || 1));
    set(canvas, { width: columns * cell * sharp, height: rows * cell * sharp });
    Object.assign(canvas.style, { width: columns * cell + "px", height: rows * cell + "px" });
    canvas.setAttribute("aria-label", `Bits of each weight of ${layer.name}: ${rows / kh} filters, ${inputs} inputs, ` +
      `kernels of ${kh} by ${kw}; arrow keys go from weight to weight`);
    const context = canvas.getContext("2d");
    const size = cell * sharp;
    const gap = cell > 5 ? sharp : 0;
    const paint = Array.from({ length: MOST_COLOURS + 1 }, (_, bits) => bits && colour(bits));
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const i = ((Math.floor(row / kh) * inputs + Math.floor(column / kw)) * kh + (row % kh)) * kw + (column % kw);
        if (!p[i]) continue; // a weight of 0 bits is not there: the ground shows
        context.fillStyle = paint[Math.min(p[i], MOST_COLOURS)];
        context.fillRect(column * size, row * size, size - gap, size - gap);
      }
    }
    spot = null;
    place();
  };
}

// The loss where one weight was pushed, beside the noise that its precision stands for (Figure 5.1).
function basinPlot(parent, basins, narrow, colour, get, go) {
  const p = plot(parent, narrow ? 190 : 220, [12, 12, 40, 44], {
    role: "img", class: "pa-basin",
    "aria-label": "Loss over the push of one weight, and the noise that its precision stands for as a band; the slider below pushes",
  });
  const { pushes, weights } = basins;
  const finest = Math.log2(pushes.filter((push) => push > 0)[0]);
  const reach = 1 - finest;
  // a logarithmic axis in both directions: what a bit is worth halves with each bit
  const x = (push) => (p.w / 2) * (1 + (push ? Math.sign(push) * (Math.log2(Math.abs(push)) - finest + 1) : 0) / reach);
  const losses = weights.flatMap((w) => [...w.losses, w.loss]);
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  const room = (high - low) * 0.06 || 0.01;
  const y = (loss) => p.h * (1 - (loss - low + room) / (high - low + 2 * room));
  for (const loss of ticks(low, high, 4)) {
    rule(p, 0, y(loss), p.w, y(loss), "pa-grid");
    text(p, -8, y(loss) + 4, +loss.toPrecision(3), "end");
  }
  rule(p, 0, p.h, p.w, p.h, "pa-axis");
  const named = [1, 1 / 8, 1 / 64];
  const words = (push) => (push === 1 ? "1" : `1/${1 / push}`);
  for (const push of named) {
    text(p, x(push), p.h + 16, words(push));
    text(p, x(-push), p.h + 16, "\u2212" + words(push));
  }
  text(p, p.w / 2, p.h + 34, "push of one weight");
  text(p, -42, -1, "loss", "start");
  const zone = svg(p.frame, "rect", { y: 0, height: p.h, class: "pa-noise" });
  const paths = weights.map((weight) => {
    const points = pushes.map((push, i) => [x(push), y(weight.losses[i])]);
    const right = pushes.findIndex((push) => push > 0);
    points.splice(right, 0, [x(0), y(weight.loss)]);
    return svg(p.frame, "path", { d: line(points), class: "pa-around" });
  });
  const now = rule(p, 0, -4, 0, p.h, "pa-now");
  const dot = svg(p.frame, "circle", { r: 5, class: "pa-at" });
  const point = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const at = event.clientX - p.outer.getBoundingClientRect().left - p.left;
    const far = pushes.map((push) => Math.abs(x(push) - at));
    go(far.indexOf(Math.min(...far)));
  };
  p.outer.addEventListener("pointerdown", point);
  p.outer.addEventListener("pointermove", point);
  return (chosen, i) => {
    const weight = weights[chosen];
    const noise = 2 ** (1 - weight.bits);
    set(zone, { x: px(x(-noise)), width: px(x(noise) - x(-noise)) });
    zone.style.fill = colour(Math.min(weight.bits, MOST_COLOURS));
    paths.forEach((path, k) => path.classList.toggle("pa-chosen", k === chosen));
    p.frame.append(paths[chosen], now, dot); // the chosen one above the others
    const at = px(x(pushes[i]));
    set(now, { x1: at, x2: at });
    set(dot, { cx: at, cy: px(y(weight.losses[i])) });
  };
}

function render({ model, el }) {
  const state = model.get("state");
  const { layers, families, basins } = state;
  const sizes = layers.map((layer) => layer.shape.reduce((a, b) => a * b));
  const root = set(html(el, "div", "pa-figure pa-precision"), { role: "group", "aria-label": model.get("alt") });
  const head = html(root, "div", "pa-head");
  html(head, "div", "pa-title", state.title);
  const meta = html(head, "div", "pa-meta");
  const place = () => Math.min(model.get("position"), families[model.get("family")].networks.length - 1); // the two change one by one
  const network = () => families[model.get("family")].networks[place()];
  const colour = (bits) => getComputedStyle(root).getPropertyValue(`--bits-${Math.min(bits, MOST_COLOURS)}`).trim();
  const save = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };

  const stats = html(root, "div", "pa-stats");
  const tile = (label) => {
    const box = html(stats, "div", "pa-stat");
    html(box, "div", "pa-label", label);
    return { big: html(box, "div", "pa-big"), small: html(box, "div", "pa-small") };
  };
  const [bits, file, accuracy] = ["Bits per weight", "Packed file", "Test accuracy"].map(tile);

  const where = html(root, "div", "pa-steer");
  const mark = choice(where, "Family of networks", families.map((family) => family.name), () => model.get("family"), (i) => {
    save({ family: i, position: Math.min(place(), families[i].networks.length - 1) });
  });
  const slide = html(where, "div", "pa-control");
  const many = html(slide, "span", "pa-small");
  const slider = set(html(slide, "input", "pa-slider"), { type: "range", min: 0, step: 1, "aria-label": "Penalty on bits", ...KEYS });
  const few = html(slide, "span", "pa-small");
  slider.addEventListener("input", () => save({ position: Number(slider.value) }));

  const charts = html(root, "div", "pa-charts");
  const chart = (title) => {
    const box = html(charts, "div", "pa-chart");
    const label = html(box, "div", "pa-label", title);
    return { label, room: html(box, "div", "pa-room") };
  };
  const profile = chart("Mean bits, layer by layer");
  const counts = chart("");
  const lower = html(root, "div", basins ? "pa-lower" : "");
  const left = html(lower, "div", "pa-chart");
  const named = html(left, "div", "pa-label pa-layer");
  const scale = set(html(left, "div", "pa-scale"), { "aria-hidden": true });
  const key = (bitsHere, words) => {
    const item = html(scale, "span", "");
    const patch = html(item, "i", bitsHere ? "" : "pa-absent");
    html(item, "span", "", words);
    return [patch, bitsHere];
  };
  const patches = [key(0, "absent")];
  for (let b = 1; b <= MOST_COLOURS; b++) patches.push(key(b, b < MOST_COLOURS ? b : "8 bits or more"));
  const room = html(left, "div", "pa-room");
  const said = set(html(left, "output", "pa-tell"), { "aria-live": "polite" });
  const drawMap = mapView(room, state, colour, (words) => {
    said.textContent = words || "Point at a weight, or go from weight to weight with the arrow keys.";
  });

  let push = null;
  if (basins) {
    const view = html(lower, "div", "pa-second");
    html(view, "div", "pa-label", "Noise and basin: push one weight and read the loss");
    const pick = choice(view, "Which weight", basins.weights.map((w) => bitsOf(w.bits)), () => model.get("weight"), (i) => save({ weight: i }));
    const plotRoom = html(view, "div", "pa-room");
    const control = html(view, "div", "pa-control");
    const range = { type: "range", min: 0, max: basins.pushes.length - 1, step: 1, "aria-label": "Push of the weight", ...KEYS };
    const pusher = set(html(control, "input", "pa-slider"), range);
    pusher.addEventListener("input", () => save({ push: Number(pusher.value) }));
    const tell = set(html(view, "output", "pa-tell"), { "aria-live": "polite" });
    html(view, "div", "pa-foot", `The band is the noise that the weight's precision stands for, \u00b12^(1\u2212bits). ` +
      `Each point was measured on the network of run ${basins.run}; the axis is logarithmic on both sides.`);
    push = { pick, plotRoom, pusher, tell, draw: null };
  }

  const speak = voice(root);
  const maps = new Map(); // unpacked once each
  let drawn = 0;
  let parts = null;
  const update = async () => {
    if (!parts) return;
    const begun = performance.now();
    const one = network();
    const layer = model.get("layer");
    const members = families[model.get("family")].networks;
    mark();
    set(slider, { max: Math.max(members.length - 1, 0) });
    slider.value = place();
    slider.disabled = members.length < 2;
    many.textContent = slider.disabled ? "one network here" : "many bits";
    few.textContent = slider.disabled ? "" : "few bits";
    slider.style.setProperty("--pa-done", members.length > 1 ? place() / (members.length - 1) : 1);
    const told = `penalty ${price(one.lambda)}: ${one.bits.toFixed(2)} bits a weight, ${kilobytes(one.bytes.file)}, test accuracy ${percent(one.accuracy)}`;
    slider.setAttribute("aria-valuetext", told);
    speak(`${families[model.get("family")].name}, ${told}; ${layers[layer].name}: ${one.means[layer].toFixed(2)} bits on average`);
    meta.textContent = `${state.profile} profile · run ${one.run}`;
    bits.big.textContent = one.bits.toFixed(2);
    bits.small.textContent = `penalty \u03bb = ${price(one.lambda)}`;
    file.big.textContent = kilobytes(one.bytes.file);
    file.small.textContent = `weights ${kilobytes(one.bytes.payload)}, their map ${kilobytes(one.bytes.map)}, all else ${kilobytes(one.bytes.rest)}`;
    accuracy.big.textContent = percent(one.accuracy);
    accuracy.small.textContent = `dense net ${percent(state.dense)}`;
    parts.profile(one);
    counts.label.textContent = `Weights of ${layers[layer].name} by their bits`;
    const shape = layers[layer].shape;
    named.textContent = `${layers[layer].name}: ${shape[0]} filters (down) \u00d7 ${shape[1]} inputs (across)` +
      (shape.length > 2 ? `, each cell a kernel of ${shape.slice(2).join(" \u00d7 ")}` : "");
    root.dataset.position = place();
    root.dataset.layer = layer;
    const turn = ++drawn;
    if (!maps.has(one.run)) maps.set(one.run, unpackMap(one.map, sizes));
    const precision = (await maps.get(one.run))[layer];
    if (turn !== drawn) return; // the reader has moved on
    const seen = new Array(MOST_COLOURS + 1).fill(0);
    for (const p of precision) seen[Math.min(p, MOST_COLOURS)]++;
    parts.counts(seen, precision.length);
    drawMap(layers[layer], precision);
    root.dataset.drawn = `${model.get("family")}-${place()}-${layer}`;
    root.dataset.redrawMs = (performance.now() - begun).toFixed(3);
  };
  const pushed = () => {
    if (!push?.draw) return;
    const weight = basins.weights[model.get("weight")];
    const i = model.get("push");
    push.pick();
    push.pusher.value = i;
    push.pusher.style.setProperty("--pa-done", i / (basins.pushes.length - 1));
    push.draw(model.get("weight"), i);
    const by = basins.pushes[i];
    const change = weight.losses[i] - weight.loss;
    const words = `A weight of ${bitsOf(weight.bits)} in ${weight.layer}, pushed by ${signed(+by.toPrecision(3))}: ` +
      `loss ${weight.losses[i].toFixed(4)}, ${change < 0 ? "\u2212" : "+"}${Math.abs(change).toFixed(4)}; ` +
      (Math.abs(by) <= 2 ** (1 - weight.bits) ? "within its noise." : "beyond its noise.");
    push.tell.textContent = words;
    push.pusher.setAttribute("aria-valuetext", words);
    root.dataset.push = i;
  };
  const redraw = () => {
    const narrow = root.clientWidth < 600;
    root.classList.toggle("pa-narrow", narrow);
    for (const box of [profile.room, counts.room, push?.plotRoom]) box?.replaceChildren();
    patches.forEach(([patch, b]) => b && (patch.style.background = colour(b)));
    parts = {
      profile: profilePlot(profile.room, state, narrow, () => model.get("layer"), (i) => save({ layer: i })),
      counts: countPlot(counts.room, narrow, colour),
    };
    if (push) push.draw = basinPlot(push.plotRoom, basins, narrow, colour, () => model.get("push"), (i) => save({ push: i }));
    update();
    pushed();
  };
  let width = 0;
  const observer = new ResizeObserver(() => {
    if (root.clientWidth === width || !root.clientWidth) return;
    width = root.clientWidth;
    redraw();
  });
  observer.observe(root);
  // the canvas cannot inherit colours: it is painted again when the reader changes the page's mode
  const mode = new MutationObserver(redraw);
  mode.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  const shown = ["family", "position", "layer"].map((name) => `change:${name}`);
  const around = ["weight", "push"].map((name) => `change:${name}`);
  for (const event of shown) model.on(event, update);
  for (const event of around) model.on(event, pushed);
  return () => {
    observer.disconnect();
    mode.disconnect();
    for (const event of shown) model.off(event, update);
    for (const event of around) model.off(event, pushed);
  };
}

export default { initialize, render };
