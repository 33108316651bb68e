// A look inside: the multiplications of each layer, and for the layer that is pointed at what it gave and which weights it kept.
const WIDEST_CELL = 12;

// Bars of all multiplications with the kept ones filled; choosing a bar chooses the layer.
function layerPlot(parent, layers, narrow, get, go) {
  const label = "Multiplications of each layer; left and right arrow choose a layer";
  const p = plot(parent, narrow ? 104 : 124, [8, 2, 20, 34], { role: "group", "aria-label": label, tabindex: 0, class: "pa-layers", ...KEYS });
  const all = layers.map((one) => product(one.shape) * one.positions);
  const top = Math.max(...all);
  const y = (count) => p.h * (1 - count / top);
  for (const count of ticks(0, top, 3)) {
    rule(p, 0, y(count), p.w, y(count), count ? "pa-grid" : "pa-axis");
    text(p, -6, y(count) + 4, count ? millions(count, 0) : "0", "end");
  }
  const slot = p.w / layers.length;
  const wide = Math.max(2, Math.min(22, slot * 0.74));
  const bars = layers.map((one, i) => {
    const kept = one.kept * one.positions;
    const at = { x: px((i + 0.5) * slot - wide / 2), width: px(wide) };
    const bar = svg(p.frame, "g", { class: "pa-bar" });
    svg(bar, "rect", { ...at, y: px(y(all[i])), height: px(p.h - y(all[i])), class: "pa-all" });
    svg(bar, "rect", { ...at, y: px(y(kept)), height: px(p.h - y(kept)), class: "pa-kept" });
    return bar;
  });
  const mark = svg(p.frame, "path", { class: "pa-mark" });
  text(p, 0, p.h + 16, "first layer", "start");
  text(p, p.w, p.h + 16, "last", "end");
  const point = (event) => {
    const at = Math.floor((event.clientX - p.outer.getBoundingClientRect().left - p.left) / slot);
    if (at >= 0 && at < layers.length && at !== get()) go(at);
  };
  p.outer.addEventListener("pointermove", (event) => event.pointerType === "mouse" && point(event));
  p.outer.addEventListener("pointerdown", point);
  p.outer.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    go(clamp(get() + step, 0, layers.length - 1));
  });
  return () => {
    bars.forEach((bar, i) => bar.classList.toggle("pa-chosen", i === get()));
    mark.setAttribute("d", `M${px((get() + 0.5) * slot)} ${px(p.h + 2)}l-5 8h10z`);
  };
}

const product = (shape) => shape.reduce((a, b) => a * b, 1);
const millions = (count, digits = 1) =>
  count >= 1e6 ? (count / 1e6).toFixed(digits) + GAP + "M" : count >= 1e3 ? Math.round(count / 1e3) + GAP + "k" : String(count);

// A colour of the figure as three numbers: a canvas inherits none.
function colour(root, name) {
  const context = canvasOf(1, 1);
  context.fillStyle = getComputedStyle(root).getPropertyValue(name);
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data.subarray(0, 3)];
}

function dots(canvas, width, height, scale, of) {
  const context = Object.assign(canvas, { width, height }).getContext("2d");
  const data = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) data.data.set(of(i % width, Math.floor(i / width)), 4 * i);
  context.putImageData(data, 0, 0);
  canvas.style.width = width * scale + "px";
}
const NOTHING = [0, 0, 0, 0];

// What the layer gave: a tile for each channel, the more ink the larger.
function drawResult(canvas, root, room, { shape, result }) {
  const [channels, height = 1, width = 1] = shape;
  const ink = colour(root, "--ink");
  const columns = height === 1 ? channels : channels <= 16 ? 8 : channels <= 32 ? 8 : 16;
  const [w, h] = [columns * (width + 1) - 1, Math.ceil(channels / columns) * (height + 1) - 1];
  const most = result.reduce((top, value) => Math.max(top, Math.abs(value)), 1e-12);
  const scale = clamp(Math.floor((10 * room) / w) / 10, 0.5, height === 1 ? 20 : 4);
  dots(canvas, w, h, scale, (x, y) => {
    const [column, row] = [Math.floor(x / (width + 1)), Math.floor(y / (height + 1))];
    const [dx, dy, channel] = [x % (width + 1), y % (height + 1), row * columns + column];
    if (dx === width || dy === height || channel >= channels) return NOTHING;
    return [...ink, Math.round((255 * Math.max(0, result[(channel * height + dy) * width + dx])) / most)];
  });
}

// Its weights: filters down, inputs across, each cell a kernel; what is zero is not painted.
function drawWeights(canvas, root, room, shape, weights) {
  const [filters, inputs, kh = 1, kw = 1] = shape;
  const [plus, minus] = ["--book", "--thesis"].map((name) => colour(root, name));
  const [w, h] = [inputs * kw, filters * kh];
  const most = weights.reduce((top, value) => Math.max(top, Math.abs(value)), 1e-12);
  const scale = clamp(Math.floor(Math.min(room / w, 260 / h)), 1, WIDEST_CELL);
  dots(canvas, w, h, Math.min(scale, room / w), (x, y) => {
    const weight = weights[((Math.floor(y / kh) * inputs + Math.floor(x / kw)) * kh + (y % kh)) * kw + (x % kw)];
    return weight === 0 ? NOTHING : [...(weight > 0 ? plus : minus), Math.round(90 + (165 * Math.abs(weight)) / most)];
  });
}

// The whole view; `ask` is the engine's, `look()` what is looked at now: { net, layer }.
function insideView(parent, root, { nets, get, set: go }) {
  const box = html(parent, "section", "pa-inside");
  html(box, "div", "pa-label", "Inside: point at a layer");
  const pick = choice(box, "Which network to look into", nets.map((net) => net.title), () => get().network, (network) => go({ network }));
  const hint = html(box, "p", "pa-small", "Layers can be seen once the network has answered.");
  const room = html(box, "div", "pa-room");
  const said = html(box, "output", "pa-tell");
  const both = html(box, "div", "pa-both");
  const view = (title, label) => {
    const one = html(both, "div", "pa-view");
    html(one, "div", "pa-small", title);
    return set(html(one, "canvas"), { role: "img", "aria-label": label });
  };
  const result = view("What it gave, channel by channel", "Activations of the layer, a tile for each channel");
  const weights = view("Weights it kept: filters down, inputs across; zeros are blank", "Weights of the layer, zeros left blank");
  let mark = null;
  let seen = null;

  const paintBoth = () => {
    if (!seen) return;
    const space = both.firstElementChild.clientWidth;
    drawResult(result, root, space, seen.layer);
    drawWeights(weights, root, space, seen.one.shape, seen.layer.weights);
  };
  const words = (one) => {
    const all = product(one.shape);
    return `${one.name}: ${one.shape.join(" \u00d7 ")}, ${one.kept.toLocaleString("en")} of ${all.toLocaleString("en")} weights kept ` +
      `(${percent(one.kept / all)}), ${millions(one.kept * one.positions)} of ${millions(all * one.positions)} multiplications`;
  };
  const redraw = (narrow) => {
    pick();
    const { network, layer } = get();
    const net = nets[network];
    const there = net.state === "ready";
    hint.hidden = there;
    for (const part of [room, both, said]) part.hidden = !there;
    if (!there) return "";
    room.replaceChildren();
    mark = layerPlot(room, net.layers, narrow, () => clamp(get().layer, 0, net.layers.length - 1), (at) => go({ layer: at }));
    mark();
    said.textContent = words(net.layers[clamp(layer, 0, net.layers.length - 1)]);
    paintBoth();
    return said.textContent;
  };
  // What the layer gave is in the engine's buffers until the next picture.
  const update = async (ask) => {
    const { network, layer } = get();
    const net = nets[network];
    if (net.state !== "ready") return;
    const index = clamp(layer, 0, net.layers.length - 1);
    mark?.();
    pick();
    const one = net.layers[index];
    said.textContent = words(one);
    const found = await ask({ do: "layer", name: net.name, index });
    if (get().network !== network || clamp(get().layer, 0, net.layers.length - 1) !== index) return;
    seen = { one, layer: found };
    paintBoth();
    box.dataset.shown = `${network}-${index}`;
  };
  return { redraw, update };
}
