// Chapter 4: the soft mask hardens. Draws recorded moments of one run; computes nothing about the network.
// The smooth step over the histogram of s.
function maskPlot(parent, state, narrow) {
  const { s_edges: edges, snapshots, curve, zero, open_ends: open } = state;
  const p = plot(parent, narrow ? 190 : 230, [12, 54, 40, 28], {
    role: "img", "aria-label": "Histogram of the mask variables s; over it the curve from s to the mask, which the temperature makes steeper",
  });
  const low = edges[0];
  const high = edges.at(-1);
  const x = (s) => ((s - low) / (high - low)) * p.w;
  const y = (share) => p.h * (1 - share);
  const most = Math.max(...snapshots.flatMap((moment) => moment.s_hist));
  const tall = (count) => (0.94 * Math.log1p(count)) / Math.log1p(most);
  for (const share of [0, 0.5, 1]) {
    rule(p, 0, y(share), p.w, y(share), share ? "pa-grid" : "pa-axis");
    text(p, -8, y(share) + 4, { 0: "0", 0.5: "½", 1: "1" }[share], "end", "pa-curve-ink");
  }
  for (let count = 10; count <= most; count *= 100) {
    text(p, p.w + 8, y(tall(count)) + 4, count < 1000 ? count : `${count / 1000}k`, "start");
  }
  set(text(p, 0, 0, "weights per bin, log"), { transform: `translate(${p.w + 50} ${p.h / 2}) rotate(-90)` });
  for (const s of ticks(low, high, p.w / 64)) {
    text(p, x(s), p.h + 17, signed(s));
  }
  text(p, p.w / 2, p.h + 34, `mask variable s${open.some(Boolean) ? "; the end bins hold all beyond" : ""}`);
  // A nested svg clips what leaves the plot, with no id that a second figure could share.
  const inside = svg(p.frame, "svg", { width: p.w, height: p.h });
  const zone = svg(inside, "rect", { x: 0, y: 0, height: p.h, class: "pa-zone" });
  const bars = edges.slice(1).map((right, i) => {
    const width = Math.max(0.5, x(right) - x(edges[i]) - 1);
    return svg(inside, "rect", { x: px(x(edges[i]) + 0.5), width: px(width), y: 0, height: p.h, class: "pa-bar" });
  });
  const path = svg(inside, "path", { class: "pa-curve" });
  rule(p, x(0), -4, x(0), p.h, "pa-decide");
  const label = text(p, 8, 16, "counts as zero", "start", "pa-zone-ink");
  const b = (z) => {
    const i = clamp(curve.z.findIndex((at) => at >= z), 1, curve.z.length - 1);
    const t = (z - curve.z[i - 1]) / (curve.z[i] - curve.z[i - 1]);
    return clamp(curve.b[i - 1] + t * (curve.b[i] - curve.b[i - 1]), 0, 1);
  };
  return (moment) => {
    const edge = clamp(x(zero.z / moment.beta), 0, p.w);
    zone.setAttribute("width", px(edge));
    label.style.opacity = edge > 104 ? 1 : 0;
    bars.forEach((bar, i) => {
      const height = tall(moment.s_hist[i]);
      const mask = b((moment.beta * (edges[i] + edges[i + 1])) / 2);
      const zeroed = mask < zero.below;
      bar.classList.toggle("pa-zeroed", zeroed);
      const opacity = zeroed ? 0.6 : 0.2 + 0.8 * mask; // a bar is as strong as its mask
      set(bar, { y: px(y(height)), height: px(p.h * height), "fill-opacity": opacity.toFixed(3) });
    });
    path.setAttribute("d", line(curve.z.map((z, i) => [x(z / moment.beta), y(curve.b[i])])));
  };
}

// The share at zero, one bar a layer; a bar tells its name to the pointer, to a finger and to the arrow keys.
function layerPlot(parent, state, narrow) {
  const { layers, snapshots } = state;
  const label = "Share at zero in each layer; left and right arrow choose a layer";
  const attributes = { role: "img", "aria-label": label, tabindex: 0, class: "pa-layers", ...KEYS };
  const p = plot(parent, narrow ? 150 : 230, [12, 8, 40, 46], attributes);
  const slot = p.w / layers.length;
  const wide = Math.max(1, Math.min(26, slot * 0.74));
  for (const share of [0, 0.5, 1]) {
    const y = p.h * (1 - share);
    rule(p, 0, y, p.w, y, share ? "pa-grid" : "pa-axis");
    text(p, -8, y + 4, 100 * share + GAP + "%", "end");
  }
  const bars = layers.map((name, i) => {
    const box = { x: px((i + 0.5) * slot - wide / 2), width: px(wide), rx: Math.min(2, wide / 4) };
    svg(p.frame, "rect", { ...box, y: 0, height: p.h, class: "pa-track" });
    return svg(p.frame, "rect", { ...box, y: 0, height: p.h, class: "pa-gone" });
  });
  const mean = rule(p, 0, 0, p.w, 0, "pa-mean");
  text(p, 0, p.h + 17, "first layer", "start");
  text(p, p.w, p.h + 17, "last", "end");
  const said = set(html(parent, "output", "pa-said"), { "aria-live": "polite" });
  let moment = snapshots[0];
  let chosen = -1;
  const say = () => {
    bars.forEach((bar, i) => bar.classList.toggle("pa-chosen", i === chosen));
    said.textContent = chosen < 0
      ? `all layers: ${percent(moment.sparsity)} (dashed)` : `${layers[chosen]}: ${percent(moment.zero_share[chosen])}`;
  };
  const choose = (i) => {
    chosen = i;
    say();
  };
  const point = (event) => {
    const at = (event.clientX - p.outer.getBoundingClientRect().left - p.left) / slot;
    choose(at >= 0 && at < layers.length ? Math.floor(at) : -1);
  };
  p.outer.addEventListener("pointermove", point);
  p.outer.addEventListener("pointerdown", point);
  p.outer.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && choose(-1));
  p.outer.addEventListener("blur", () => choose(-1));
  p.outer.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    choose(clamp(chosen + step, 0, layers.length - 1));
  });
  return (now) => {
    moment = now;
    bars.forEach((bar, i) => {
      const height = p.h * moment.zero_share[i];
      set(bar, { y: px(p.h - height), height: px(height) });
    });
    const y = px(p.h * (1 - moment.sparsity));
    set(mean, { y1: y, y2: y });
    say();
  };
}

// Accuracy and share at zero over the whole run; shares its horizontal axis with the slider below.
function timePlot(parent, state, go) {
  const { snapshots, dense } = state;
  const p = plot(parent, 112, [10, 78, 8, 46], {
    role: "img", "aria-label": "Share at zero and test accuracy over the training; the slider below goes along it", class: "pa-timeline",
  });
  const start = snapshots[0].progress;
  const x = (progress) => ((progress - start) / (snapshots.at(-1).progress - start)) * p.w;
  const y = (share) => p.h * (1 - share);
  for (const share of [0, 0.5, 1]) {
    rule(p, 0, y(share), p.w, y(share), share ? "pa-grid" : "pa-axis");
    text(p, -8, y(share) + 4, 100 * share + GAP + "%", "end");
  }
  rule(p, 0, y(dense.accuracy), p.w, y(dense.accuracy), "pa-dense");
  const drawn = [["sparsity", "pa-sparsity", "at zero"], ["accuracy", "pa-accuracy", "accuracy"]];
  for (const [key, name] of drawn) {
    svg(p.frame, "path", { d: line(snapshots.map((moment) => [x(moment.progress), y(moment[key])])), class: name });
  }
  // Labels stand at the lines' ends, pushed apart where they would touch.
  const ends = drawn.map(([key, name, words]) => ({ at: y(snapshots.at(-1)[key]), words, name: `${name}-ink` }));
  ends.push({ at: y(dense.accuracy), words: "dense net", name: "" });
  ends.sort((one, other) => one.at - other.at);
  ends.forEach((end, i) => (end.at = Math.max(end.at, i ? ends[i - 1].at + 15 : 4)));
  for (let i = ends.length - 1, room = p.h; i >= 0; i--, room -= 15) ends[i].at = Math.min(ends[i].at, room);
  for (const end of ends) text(p, p.w + 12, end.at + 4, end.words, "start", end.name);
  const now = rule(p, 0, -4, 0, p.h + 8, "pa-now");
  const dots = drawn.map(([, name]) => svg(p.frame, "circle", { r: 4.5, class: `${name}-dot` }));
  const point = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const at = event.clientX - p.outer.getBoundingClientRect().left - p.left;
    const far = snapshots.map((moment) => Math.abs(x(moment.progress) - at));
    go(far.indexOf(Math.min(...far)));
  };
  p.outer.addEventListener("pointerdown", point);
  p.outer.addEventListener("pointermove", point);
  return (moment) => {
    const at = px(x(moment.progress));
    set(now, { x1: at, x2: at });
    drawn.forEach(([key], i) => set(dots[i], { cx: at, cy: px(y(moment[key])) }));
  };
}

function render({ model, el }) {
  const state = model.get("state");
  const { snapshots, hardened, dense, zero } = state;
  const end = snapshots.at(-1);
  const root = set(html(el, "div", "pa-figure pa-annealing"), { role: "group", "aria-label": model.get("alt") });

  const head = html(root, "div", "pa-head");
  html(head, "div", "pa-title", state.title);
  html(head, "div", "pa-meta", `${state.profile} profile · run ${state.run}`);

  const stats = html(root, "div", "pa-stats");
  const tile = (name, label) => {
    const box = html(stats, "div", `pa-stat ${name}`);
    html(box, "div", "pa-label", label);
    return { big: html(box, "div", "pa-big"), small: html(box, "div", "pa-small") };
  };
  const accuracy = tile("pa-is-accuracy", "Test accuracy");
  const share = tile("pa-is-sparsity", "Weights at zero");
  const heat = tile("", "Temperature β");
  share.small.textContent = zero.text;

  const charts = html(root, "div", "pa-charts");
  const step = state.curve.name === "sigmoid" ? "σ" : state.curve.name;
  const [masks, bars] = [`Mask ${step}(βs) over the recorded s`, "Share at zero, layer by layer"].map((title) => {
    const box = html(charts, "div", "pa-chart");
    html(box, "div", "pa-label", title);
    return html(box, "div", "pa-room");
  });
  const time = html(root, "div", "pa-room pa-time");

  const controls = player(root, {
    places: snapshots.map((moment) => moment.progress),
    label: "Recorded moment of the training run",
    get: () => model.get("position"),
    go(i) {
      model.set("position", i);
      model.save_changes();
    },
  });
  const where = html(root, "div", "pa-where");
  html(root, "div", "pa-foot", `Hardened after the run: ${percent(hardened.accuracy)} test accuracy with ` +
    `${percent(hardened.sparsity)} of these weights removed. The dense network: ${percent(dense.accuracy)}.`);

  const speak = voice(root);

  let parts = [];
  const update = () => {
    const begun = performance.now();
    const i = model.get("position");
    const moment = snapshots[i];
    const power = end.beta ** (moment.progress / end.progress);
    for (const part of parts) part(moment);
    accuracy.big.textContent = percent(moment.accuracy);
    accuracy.small.textContent = "accuracy_hard" in moment
      ? `${percent(moment.accuracy_hard)} if hardened now` : `dense net ${percent(dense.accuracy)}`;
    share.big.textContent = percent(moment.sparsity);
    heat.big.textContent = three(moment.beta);
    // The formula stands only where the run kept to it.
    const formula = Math.abs(power / moment.beta - 1) < 0.03 && end.progress === 1;
    heat.small.replaceChildren(formula ? `= ${+end.beta.toPrecision(3)}` : `rises to ${three(end.beta)}`);
    if (formula) html(heat.small, "sup", "", moment.progress.toFixed(2));
    const epoch = `epoch ${moment.epoch.toFixed(1)} of ${end.epoch.toFixed(1)}`;
    where.textContent = `Training progress ${moment.progress.toFixed(2)} · ${epoch}`;
    const told = `${epoch}, temperature ${three(moment.beta)}, ` +
      `${percent(moment.sparsity)} at zero, test accuracy ${percent(moment.accuracy)}`;
    controls.show(told);
    speak(told);
    root.dataset.position = i;
    root.dataset.redrawMs = (performance.now() - begun).toFixed(3);
  };
  let width = 0;
  const observer = new ResizeObserver(() => {
    if (root.clientWidth === width || !root.clientWidth) return;
    width = root.clientWidth;
    const narrow = width < 600; // its own room counts, not the window's: it may stand in a side panel
    root.classList.toggle("pa-narrow", narrow);
    for (const room of [masks, bars, time]) room.replaceChildren();
    parts = [maskPlot(masks, state, narrow), layerPlot(bars, state, narrow), timePlot(time, state, controls.pick)];
    update();
  });
  observer.observe(root);
  model.on("change:position", update);
  return () => {
    controls.stop();
    observer.disconnect();
    model.off("change:position", update);
  };
}

export default { initialize, render };
