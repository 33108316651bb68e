// Chapter 6: problem (6.13), simulated here. The steps are lab.figures.nonconvergence.simulator's; tests hold both against each other.
const BINS = 320; // moments that are drawn
const SLICE_MS = 9; // of a frame, for computing
const SPEEDS = [["2000", "2,000 steps a second"], ["20000", "20,000 steps a second"], ["200000", "200,000 steps a second"], ["Infinity", "as fast as it can"]];
const LOWEST = 1e-3; // of the logarithmic axis
const RECENT = 2000; // steps that are drawn one by one
const RING = 2048; // a power of two, for the steps before the present one

// One number in [0, 1) a call: mulberry32, by which a seed is enough to see the same samples again.
function mulberry32(seed) {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

// All methods on the same samples. `advance(n)` makes n more steps; each of `methods` holds its iterate w, the sum of squared
// expected gradients, and for each bin of steps the least, the greatest and the last iterate and the mean square so far.
function simulation({ rules, alphas, C, delta, start, eps, beta1, beta2, grow, seed, steps }) {
  const p = (1 + delta) / (C + 1); // chance of the rare sample
  const size = Math.ceil(steps / BINS);
  const draw = mulberry32(seed);
  const rare = new Uint8Array(size);
  const rarely = new Uint8Array(RING);
  const methods = rules.map((rule, i) => ({
    rule, alpha: alphas[i], w: start, m: 0, v: 0, largest: 0, total: 0,
    recent: new Float64Array(RING).fill(start), // iterates w_1, w_2, ... at their index modulo RING
    low: new Float64Array(BINS).fill(1), high: new Float64Array(BINS), last: new Float64Array(BINS), mean: new Float64Array(BINS),
  }));
  const sim = { t: 0, steps, size, methods, rarely, p, start, stationary: (1 - p) / (p * C), delta };

  const walk = (one, count, bin) => {
    const { rule, alpha } = one;
    const adaptive = rule.kind !== "plain" && rule.kind !== "avagrad"; // in one dimension Algorithm 7's rate is 1
    const [delayed, amsgrad] = [rule.kind === "delayed", rule.kind === "amsgrad"];
    const growing = rule.power > 0;
    const base = growing ? rule.eps : eps;
    const scaled = growing && grow; // Corollary 6.1: alpha_t in step with eps_t
    const { recent } = one;
    let { w, m, v, largest, total } = one;
    let [low, high] = [one.low[bin], one.high[bin]];
    for (let i = 0; i < count; i++) {
      const gradient = p * C * w - (1 - p);
      total += gradient * gradient;
      const g = rare[i] ? C * w : -1;
      m = beta1 * m + (1 - beta1) * g;
      let step;
      if (adaptive) {
        const fresh = beta2 * v + (1 - beta2) * g * g; // (6.7)
        if (amsgrad) largest = Math.max(largest, fresh);
        const epsilon = growing ? base * (sim.t + i + 1) ** rule.power : base;
        const root = Math.sqrt(delayed ? v : amsgrad ? largest : fresh) + epsilon; // 1 / eta, (6.6)
        step = root > 0 ? (scaled ? alpha * epsilon : alpha) * (m / root) : 0;
        v = fresh;
      } else {
        step = alpha * m;
      }
      w -= step; // (6.4)
      if (w < 0) w = 0; // projected
      else if (w > 1) w = 1;
      recent[(sim.t + i + 1) & (RING - 1)] = w;
      if (w < low) low = w;
      if (w > high) high = w;
    }
    Object.assign(one, { w, m, v, largest, total });
    one.low[bin] = low;
    one.high[bin] = high;
    one.last[bin] = w;
    one.mean[bin] = total / (sim.t + count);
  };
  sim.advance = (count) => {
    for (let left = Math.min(count, steps - sim.t); left > 0;) {
      const bin = Math.floor(sim.t / size);
      const part = Math.min(left, (bin + 1) * size - sim.t);
      for (let i = 0; i < part; i++) rarely[(sim.t + i + 1) & (RING - 1)] = rare[i] = draw() < p ? 1 : 0;
      for (const one of methods) walk(one, part, bin);
      sim.t += part;
      left -= part;
    }
  };
  sim.bins = () => Math.ceil(sim.t / size);
  sim.at = (bin) => Math.min((bin + 1) * size, sim.t); // the step at which a bin ends so far
  return sim;
}

const thousands = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, ",");
const kilo = (count) => (count >= 1e6 ? `${count / 1e6}M` : count >= 1000 ? `${count / 1000}k` : String(count));
// A logarithmic axis of such numbers reads best with two digits.
const squared = (value) => (value >= 0.01 ? String(+value.toPrecision(3)) : scientific(value));

// A plot over the steps: iterates as bands, or mean squares as lines on a logarithmic axis.
function tracePlot(parent, kind, steps, { rules, narrow, stationary, delta }) {
  const label = kind === "w" ? `Iterates w of each method over ${thousands(steps)} steps, and the stationary point ${stationary.toFixed(4)}`
    : `Mean of the squared gradient so far of each method over ${thousands(steps)} steps, on a logarithmic axis`;
  const p = plot(parent, narrow ? 176 : 216, [10, 12, 38, 46], { role: "img", "aria-label": label, class: `pa-trace pa-of-${kind}` });
  const x = (t) => (p.w * t) / steps;
  const top = Math.max(1, Math.ceil(2 * Math.log10(delta)));
  const low = Math.log10(LOWEST);
  const y = kind === "w" ? (w) => p.h * (1 - w) : (square) => p.h * (1 - (Math.log10(Math.max(square, LOWEST)) - low) / (top - low));
  if (kind === "w") {
    for (const w of [0, 0.5, 1]) {
      rule(p, 0, y(w), p.w, y(w), w ? "pa-grid" : "pa-axis");
      text(p, -8, y(w) + 4, w, "end");
    }
  } else {
    for (let exponent = low; exponent <= top; exponent++) {
      const at = y(10 ** exponent);
      rule(p, 0, at, p.w, at, exponent > low ? "pa-grid" : "pa-axis");
      text(p, -8, at + 4, power(10 ** exponent), "end");
    }
  }
  for (const t of ticks(0, steps, p.w / 70)) text(p, x(t), p.h + 17, kilo(t), t === steps ? "end" : "middle");
  text(p, p.w / 2, p.h + 34, "steps");
  const mark = kind === "w" ? stationary : delta * delta;
  rule(p, 0, y(mark), p.w, y(mark), "pa-mark");
  const words = kind === "w" ? `w* = ${stationary.toFixed(4)}` : `δ² = ${squared(mark)}, at w = 1`;
  const clip = svg(p.frame, "svg", { width: p.w, height: p.h + 2, y: -1, viewBox: `0 -1 ${p.w} ${p.h + 2}` });
  const bands = rules.map((_, i) => svg(clip, "path", { class: `pa-band pa-m${i}` }));
  const lines = rules.map((_, i) => svg(clip, "path", { class: `pa-line pa-m${i}` }));
  text(p, p.w - 4, y(mark) - 6, words, "end", "pa-mark-ink pa-over");
  return (sim, shown) => {
    const bins = sim.bins();
    sim.methods.forEach((one, i) => {
      const seen = shown.includes(i) && bins > 0;
      lines[i].style.display = bands[i].style.display = seen ? "" : "none";
      if (!seen) return;
      const values = kind === "w" ? one.last : one.mean;
      let d = kind === "w" ? `M0 ${px(y(sim.start))}` : "";
      for (let b = 0; b < bins; b++) d += `${d ? "L" : "M"}${px(x(sim.at(b)))} ${px(y(values[b]))}`;
      lines[i].setAttribute("d", d);
      if (kind !== "w") return;
      let up = "";
      let down = "";
      for (let b = 0; b < bins; b++) {
        const at = px(x(sim.at(b)));
        up += `${b ? "L" : "M"}${at} ${px(y(one.high[b]))}`;
        down = `L${at} ${px(y(one.low[b]))}${down}`;
      }
      bands[i].setAttribute("d", `${up}${down}Z`);
    });
  };
}

// What the last steps did to each iterate, step by step, and when the rare sample came.
function recentPlot(parent, { rules, narrow }) {
  const p = plot(parent, narrow ? 150 : 164, [16, 12, 38, 46], {
    role: "img", "aria-label": `How far w of each method moved in each of the last ${thousands(RECENT)} steps`, class: "pa-trace pa-of-recent",
  });
  const axes = svg(p.frame, "g");
  const rare = svg(p.frame, "path", { class: "pa-rare" });
  const lines = rules.map((_, i) => svg(p.frame, "path", { class: `pa-line pa-m${i}` }));
  text(p, p.w / 2, p.h + 34, "steps");
  const every = narrow ? 8 : 4; // steps a point: finer than the screen
  return (sim, shown) => {
    const count = Math.min(RECENT, sim.t);
    const from = sim.t - count;
    const at = (ring, t) => ring[t & (RING - 1)];
    const seen = sim.methods.map(({ recent }, i) => {
      if (!shown.includes(i)) return [];
      const points = [];
      for (let t = from; t <= sim.t; t += t + every > sim.t && t < sim.t ? sim.t - t : every) points.push([t, at(recent, t) - at(recent, from)]);
      return points;
    });
    const reach = 1.1 * Math.max(1e-6, ...seen.flat().map(([, change]) => Math.abs(change)));
    const x = (t) => (p.w * (t - from)) / (count || 1);
    const y = (change) => (p.h * (1 - change / reach)) / 2;
    axes.replaceChildren();
    const inner = { frame: axes };
    for (const change of ticks(-reach, reach, 7)) {
      rule(inner, 0, y(change), p.w, y(change), change ? "pa-grid" : "pa-axis");
      text(inner, -8, y(change) + 4, signed(+change.toPrecision(3)), "end");
    }
    if (count) for (const t of ticks(from, sim.t, p.w / 90)) text(inner, x(t), p.h + 17, thousands(t), t === sim.t ? "end" : "middle");
    let d = "";
    for (let t = from + 1; t <= sim.t; t++) if (at(sim.rarely, t)) d += `M${px(x(t))} -10V-2`;
    rare.setAttribute("d", d);
    seen.forEach((points, i) => lines[i].setAttribute("d", points.length > 1 ? line(points.map(([t, change]) => [x(t), y(change)])) : ""));
  };
}

// A slider that stops at given values; between the stops only Python can put it.
function stops(parent, { values, label, words, get, go }) {
  const input = set(html(parent, "input", "pa-slider"), { type: "range", min: 0, max: values.length - 1, step: 1, "aria-label": label, ...KEYS });
  const near = (value) => {
    const far = values.map((stop) => Math.abs(stop - value) / (Math.abs(stop) + Math.abs(value) || 1));
    return far.indexOf(Math.min(...far));
  };
  input.addEventListener("input", () => go(values[Number(input.value)]));
  return () => {
    const at = near(get());
    input.value = at;
    input.style.setProperty("--pa-done", at / (values.length - 1));
    input.setAttribute("aria-valuetext", words(get()));
  };
}

function render({ model, el }) {
  const state = model.get("state");
  const { rules, choices } = state;
  const root = set(html(el, "div", "pa-figure pa-simulator"), { role: "group", "aria-label": model.get("alt") });
  const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  const get = (name) => model.get(name);
  let setting = false;
  const put = (values) => {
    setting = true;
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
    setting = false;
    changed();
  };

  const head = html(root, "div", "pa-head");
  html(head, "div", "pa-title", state.title);
  const meta = html(head, "div", "pa-meta");
  const charts = html(root, "div", "pa-charts");
  const rooms = ["Iterates w", "Mean of ‖∇f(w)‖² so far"].map((title) => {
    const box = html(charts, "div", "pa-chart");
    html(box, "div", "pa-label", title);
    return html(box, "div", "pa-room");
  });

  const control = html(root, "div", "pa-control");
  const button = set(html(control, "button", "pa-play"), { type: "button" });
  const icon = svg(svg(button, "svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": true }), "path");
  const progress = html(control, "div", "pa-progress");
  const speed = dropdown(control, "Speed", (value) => (speed.chosen = Number(value)));
  speed.chosen = 20000;
  speed(SPEEDS, "20000");
  const said = set(html(root, "output", "pa-unseen"), { "aria-live": "polite" }); // the rows below show the same
  const recentBox = html(root, "div", "pa-chart");
  html(recentBox, "div", "pa-label", `How far w moved in the last ${thousands(RECENT)} steps; a tick above marks each rare sample`);
  rooms.push(html(recentBox, "div", "pa-room"));

  // A row a method: whether it runs, its step size, where it is.
  const table = html(root, "div", "pa-methods");
  const rows = rules.map((rule, i) => {
    const row = html(table, "div", "pa-method");
    const label = html(row, "label", "pa-which");
    const box = set(html(label, "input"), { type: "checkbox", ...KEYS });
    svg(svg(label, "svg", { width: 26, height: 12, viewBox: "0 0 26 12", "aria-hidden": true }), "path", { d: "M1 6H25", class: `pa-line pa-m${i}` });
    html(label, "span", "", rule.name);
    box.addEventListener("change", () => {
      const shown = rules.flatMap((_, n) => (n === i ? box.checked : get("shown").includes(n)) ? [n] : []);
      put({ shown });
    });
    const rate = html(row, "div", "pa-rate");
    const value = html(rate, "span", "pa-value");
    const words = (alpha) => `α = ${scientific(alpha)}${rule.power && get("grow") ? " ε\u209c" : ""}`;
    const slide = stops(rate, {
      values: choices.alpha, label: `Step size of ${rule.name}`, words, get: () => get("alphas")[i],
      go: (alpha) => put({ alphas: get("alphas").map((old, n) => (n === i ? alpha : old)) }),
    });
    const result = html(row, "div", "pa-result");
    return {
      settings() {
        box.checked = get("shown").includes(i);
        row.classList.toggle("pa-off", !box.checked);
        value.textContent = words(get("alphas")[i]);
        slide();
      },
      result(one, t) {
        result.textContent = one && t ? `w = ${one.w.toFixed(3)}, mean ‖∇f‖² = ${squared(one.total / t)}` : "";
      },
    };
  });

  const settings = html(root, "div", "pa-settings");
  const shared = [
    ["eps", "ε", "ε of the methods with a constant ε"], ["beta1", "β₁", "Decay of the first moment"],
    ["beta2", "β₂", "Decay of the second moment"], ["delta", "δ", "δ: the expected gradient at w = 1"],
  ].map(([name, symbol, label]) => {
    const box = html(settings, "div", "pa-setting");
    const value = html(box, "span", "pa-value");
    const slide = stops(box, { values: choices[name], label, words: (number) => `${symbol} = ${scientific(number)}`, get: () => get(name), go: (number) => put({ [name]: number }) });
    return () => {
      value.textContent = `${symbol} = ${name === "eps" ? power(get(name)) : signed(+get(name).toPrecision(6))}`;
      slide();
    };
  });
  const drops = html(root, "div", "pa-drops");
  const length = dropdown(drops, "Steps", (value) => put({ steps: Number(value) }));
  const seedBox = html(drops, "label", "pa-drop", "Seed of the samples");
  const seed = set(html(seedBox, "input"), { type: "number", min: 0, max: 4294967295, step: 1, ...KEYS });
  seed.addEventListener("change", () => {
    const value = Number(seed.value);
    if (seed.value !== "" && Number.isInteger(value) && value >= 0 && value < 2 ** 32) put({ seed: value });
    else seed.value = get("seed");
  });
  let growing = null;
  if (rules.some((rule) => rule.power > 0)) {
    const box = html(drops, "label", "pa-drop");
    growing = set(html(box, "input"), { type: "checkbox", ...KEYS });
    html(box, "span", "", "the step size grows with ε\u209c");
    growing.addEventListener("change", () => put({ grow: growing.checked }));
  }
  const back = set(html(drops, "button", "pa-button", "As in the book"), { type: "button" });
  const NAMES = ["alphas", "eps", "beta1", "beta2", "delta", "seed", "steps", "shown", "grow"];
  const first = Object.fromEntries(NAMES.map((name) => [name, get(name)]));
  back.addEventListener("click", () => put(first));
  const foot = html(root, "div", "pa-foot");

  let sim = null;
  let plots = [];
  let timer = 0; // the next frame
  let mode = ""; // "settle": to the end at once; "play": at the chosen speed; "": at rest
  let spent = 0; // seconds of computing
  let owed = 0;
  let before = 0;

  const summary = () => rules.flatMap((rule, i) => get("shown").includes(i) ? [`${rule.name} w ${sim.methods[i].w.toFixed(3)}, mean square ${sim.t ? squared(sim.methods[i].total / sim.t) : "–"}`] : []);
  const draw = () => {
    const begun = performance.now();
    for (const one of plots) one(sim, get("shown"));
    rows.forEach((row, i) => row.result(get("shown").includes(i) ? sim.methods[i] : null, sim.t));
    const done = sim.t === sim.steps;
    progress.textContent = `${thousands(sim.t)} of ${thousands(sim.steps)} steps` +
      (done && spent ? `, ${three(sim.steps / spent / 1e6)} million a second` : "");
    const active = mode === "play";
    icon.setAttribute("d", active ? "M4 3h3v10H4zM9 3h3v10H9z" : "M5 2.8v10.4L13 8z");
    button.setAttribute("aria-label", active ? "Pause the simulation" : "Play the simulation");
    if (!mode && sim.t) said.textContent = `After ${thousands(sim.t)} steps with ε = ${scientific(get("eps"))} and the samples of seed ${get("seed")}: ${summary().join("; ")}.`;
    Object.assign(root.dataset, { t: sim.t, mode, w: JSON.stringify(sim.methods.map(({ w }) => w)), total: JSON.stringify(sim.methods.map(({ total }) => total)) });
    if (done && spent) root.dataset.rate = Math.round(sim.steps / spent);
    root.dataset.redrawMs = (performance.now() - begun).toFixed(3);
  };
  const compute = (count) => {
    const begun = performance.now();
    sim.advance(count);
    spent += (performance.now() - begun) / 1000;
  };
  const frame = (time) => {
    timer = 0;
    if (!mode) return; // paused meanwhile
    const end = performance.now() + SLICE_MS;
    const fast = mode === "settle" || speed.chosen === Infinity;
    if (fast) {
      do compute(sim.size); while (sim.t < sim.steps && performance.now() < end);
    } else {
      owed += Math.min(0.1, before ? (time - before) / 1000 : 0) * speed.chosen;
      const whole = Math.floor(owed);
      owed -= whole;
      compute(whole);
    }
    before = time;
    if (sim.t === sim.steps) mode = "";
    if (!mode || !calm.matches) draw();
    if (mode) timer = requestAnimationFrame(frame);
  };
  const run = (how) => {
    root.dataset.mode = mode = how;
    before = owed = 0;
    if (!timer) timer = requestAnimationFrame(frame);
  };
  const restart = () => {
    const values = Object.fromEntries(NAMES.map((name) => [name, get(name)]));
    sim = simulation({ rules, C: state.C, start: state.start, ...values });
    spent = 0;
  };
  const stage = () => {
    for (const room of rooms) room.replaceChildren();
    const shape = { rules, narrow: root.classList.contains("pa-narrow"), stationary: sim.stationary, delta: get("delta") };
    plots = ["w", "square"].map((kind, i) => tracePlot(rooms[i], kind, sim.steps, shape));
    plots.push(recentPlot(rooms[2], shape));
  };
  const changed = () => {
    if (setting || !width) return;
    for (const row of rows) row.settings();
    for (const one of shared) one();
    const lengths = [...new Set([20_000, 200_000, 2_000_000, get("steps")])].sort((a, b) => a - b);
    length(lengths.map((count) => [count, thousands(count)]), get("steps"));
    seed.value = get("seed");
    if (growing) growing.checked = get("grow");
    restart();
    meta.textContent = `(6.13): C = ${state.C}, one sample in ${+three(1 / sim.p)} is the rare one`;
    foot.textContent = `With chance ${+three(sim.p)} a sample's gradient is ${state.C} w, else \u22121. A band spans all iterates of ` +
      `${thousands(sim.size)} steps. Each step ends with the projection onto [0, 1]; all methods see the same samples; w starts at ${state.start}. ` +
      "In one dimension AvaGrad's normalised rate is 1, so its steps are SGD's.";
    stage();
    run("settle");
  };
  button.addEventListener("click", () => {
    if (mode === "play") {
      mode = "";
      draw();
    } else {
      if (sim.t === sim.steps || mode === "settle") restart();
      run(calm.matches ? "settle" : "play");
      draw();
    }
  });

  let width = 0;
  const observer = new ResizeObserver(() => {
    if (root.clientWidth === width || !root.clientWidth) return;
    const born = !width;
    width = root.clientWidth;
    root.classList.toggle("pa-narrow", width < 640);
    if (born) return changed();
    stage();
    draw();
  });
  observer.observe(root);
  const heard = NAMES.map((name) => `change:${name}`);
  for (const event of heard) model.on(event, changed);
  return () => {
    cancelAnimationFrame(timer);
    mode = "";
    observer.disconnect();
    for (const event of heard) model.off(event, changed);
  };
}

export { simulation };
export default { initialize, render };
