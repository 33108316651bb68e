// Chapter 6: Adam's and AvaGrad's maps over (alpha, epsilon). Draws recorded grids and plays recorded searches; samples nothing.
const SEGMENTS = 4; // of the colour ramp, between five colours
const GOAL = 0.005; // the suboptimality of Figure 6.5

// A hue and a dash for each optimizer; Adam and AvaGrad have theirs throughout the book.
const hue = ({ optimizer }, m) => `pa-hue${{ Adam: 0, AvaGrad: 1 }[optimizer] ?? 2 + (m % 2)}`;

// One scale for all maps: what is close to the best value of all gets the most room. 1 is the best, 0 the worst. Bits per character
// have no worst: cells that exploded would take all colours for themselves. Where some lie that far out, the scale ends at twice
// the median's distance from the best, and what is beyond has the last colour.
function scaleOf({ maps, metric }) {
  const all = maps.flatMap(({ mean }) => mean.flat()).filter((value) => value !== null).sort((one, other) => one - other);
  const [best, last] = [all[0], all.at(-1)];
  const far = 2 * (all[all.length >> 1] - best);
  const open = last - best > 2 * far && far > 0;
  const worst = open ? best + far : last;
  const unit = (worst - best) / 30 || 1;
  const most = Math.log1p((worst - best) / unit) || 1;
  return {
    best, open,
    of: (gap) => 1 - Math.log1p(gap / unit) / most,
    at: (good) => best + unit * Math.expm1((1 - good) * most),
    words: metric === "accuracy" ? percent : (value) => value.toFixed(3),
    points: metric === "accuracy" ? (gap) => (100 * gap).toFixed(1) + GAP + "points" : (gap) => gap.toFixed(3) + GAP + "BPC",
  };
}
const paint = (good) => {
  const at = clamp(good, 0, 1) * SEGMENTS;
  const segment = Math.min(Math.floor(at), SEGMENTS - 1);
  return { class: `pa-cell pa-ramp${segment}`, style: `--t:${(100 * (at - segment)).toFixed(1)}%` };
};

// One map; a cell is chosen by pointer and arrow keys. `choose` hears [row, column] or null, `pin` keeps it.
function heatMap(parent, one, scale, { narrow, choose, pin, chosen }) {
  const { alphas, epsilons, mean, diverged, missing, runs, best } = one;
  const [columns, rows] = [alphas.length, epsilons.length];
  const margin = [6, 4, 40, 54];
  const room = Math.max(240, parent.clientWidth) - margin[1] - margin[3];
  const size = Math.min(room / columns, 52);
  const tall = Math.min(size, (narrow ? 320 : 370) / rows);
  const p = plot(parent, tall * rows + margin[0] + margin[2], margin, {
    role: "application", tabindex: 0, class: "pa-map", ...KEYS,
    "aria-label": `${one.optimizer}: ${rows} values of epsilon by ${columns} of alpha. Arrow keys choose a cell, Home the best one`,
  });
  const box = (row, column) => ({
    x: px(column * size), y: px((rows - 1 - row) * tall), width: px(size - 1), height: px(tall - 1),
  });
  const middle = ([row, column]) => [(column + 0.5) * size - 0.5, (rows - 0.5 - row) * tall - 0.5];
  const crosses = { "pa-lost": [], "pa-some": [] };
  const around = Math.min(size, tall);
  mean.forEach((values, row) => values.forEach((value, column) => {
    const look = value !== null ? paint(scale.of(value - scale.best)) : { class: missing[row][column] === runs.length ? "pa-missing" : "pa-diverged" };
    svg(p.frame, "rect", { ...box(row, column), ...look });
    if (!diverged[row][column]) return;
    const [x, y] = middle([row, column]);
    const reach = around * (value === null ? 0.2 : 0.14);
    crosses[value === null ? "pa-lost" : "pa-some"].push(`M${px(x - reach)} ${px(y - reach)}l${px(2 * reach)} ${px(2 * reach)}m0 ${px(-2 * reach)}l${px(-2 * reach)} ${px(2 * reach)}`);
  }));
  for (const [name, d] of Object.entries(crosses)) if (d.length) svg(p.frame, "path", { d: d.join(""), class: name });

  // Both lines come in cells from the low corner.
  const at = ([x, y]) => [x * size - 0.5, (rows - y) * tall - 0.5];
  const edges = one.border.map((edge) => line([at(edge.slice(0, 2)), at(edge.slice(2))])).join("");
  for (const name of ["pa-border pa-halo", "pa-border"]) if (edges) svg(p.frame, "path", { d: edges, class: name });
  for (const name of ["pa-ridge pa-halo", "pa-ridge"]) if (one.ridge.length) svg(p.frame, "path", { d: line(one.ridge.map(at)), class: name });
  if (best) {
    const [cx, cy] = middle(best);
    for (const name of ["pa-best pa-halo", "pa-best"]) svg(p.frame, "circle", { cx: px(cx), cy: px(cy), r: px(around * 0.3), class: name });
  }

  // Powers of ten where there is room for them; if the axis has fewer than two, whatever it has.
  const labelled = (values, pitch, gap) => {
    const tens = values.flatMap((value, i) => (Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-6 ? [i] : []));
    let last = -Infinity;
    return (tens.length > 1 ? tens : values.map((_, i) => i)).filter((i) => i * pitch - last >= gap && ((last = i * pitch), true));
  };
  for (const i of labelled(alphas, size, 36)) text(p, (i + 0.5) * size, rows * tall + 15, power(alphas[i]));
  for (const i of labelled(epsilons, tall, 17)) text(p, -6, (rows - 0.5 - i) * tall + 4, power(epsilons[i]), "end");
  text(p, (columns * size) / 2, rows * tall + 34, "learning rate α");
  set(text(p, 0, 0, "ε"), { transform: `translate(-46 ${px((rows * tall) / 2)})` });

  const halo = svg(p.frame, "path", { class: "pa-walk pa-halo" });
  const steps = svg(p.frame, "path", { class: "pa-walk" });
  const dots = svg(p.frame, "path", { class: "pa-tried" });
  const here = svg(p.frame, "circle", { class: "pa-here", r: px(around * 0.38) });
  const frames = [0, 1].map(() => svg(p.frame, "rect", { class: "pa-frame", width: px(size + 1), height: px(tall + 1) })); // halo, line

  const under = (event) => {
    const corner = p.outer.getBoundingClientRect();
    const column = Math.floor((event.clientX - corner.left - margin[3]) / size);
    const row = rows - 1 - Math.floor((event.clientY - corner.top - margin[0]) / tall);
    return row >= 0 && row < rows && column >= 0 && column < columns ? [row, column] : null;
  };
  p.outer.addEventListener("pointermove", (event) => choose(under(event)));
  p.outer.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && choose(null));
  p.outer.addEventListener("click", (event) => pin(under(event)));
  p.outer.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const from = best ?? [0, 0];
    if (event.key === "Escape") pin(null);
    else if (event.key === "Home") pin(from);
    else if (step) pin(chosen() ? [clamp(chosen()[0] + step[0], 0, rows - 1), clamp(chosen()[1] + step[1], 0, columns - 1)] : from);
    else return;
    event.preventDefault();
  });

  return {
    frame(cell) {
      for (const one of frames) {
        one.style.display = cell ? "" : "none";
        if (cell) set(one, { x: px(cell[1] * size - 1), y: px((rows - 1 - cell[0]) * tall - 1) });
      }
    },
    // The first `count` trials: dots where it was, a line from each best so far to the next, a ring where it is.
    walk(trials, bests, count) {
      const tried = new Set(trials.slice(0, count).map(String));
      const r = Math.round(Math.max(1.5, around * 0.12));
      const disc = ([x, y]) => `M${px(x - r)} ${px(y)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`;
      dots.setAttribute("d", [...tried].map((cell) => disc(middle(cell.split(",").map(Number)))).join(""));
      const points = [];
      for (const i of bests.slice(0, count)) if (i >= 0 && String(points.at(-1)) !== String(trials[i])) points.push(trials[i]);
      const d = points.length ? line(points.map(middle)) : "";
      halo.setAttribute("d", d);
      steps.setAttribute("d", d);
      here.style.display = count ? "" : "none";
      if (!count) return;
      const [cx, cy] = middle(trials[Math.min(count, trials.length) - 1]);
      set(here, { cx: px(cx), cy: px(cy) });
    },
  };
}

// How far the best so far is from each map's best, over the trials; shares its horizontal axis with the slider below.
function gapPlot(parent, maps, searches, scale, most, metric, go) {
  const label = `How far the best found so far is from each map's best, over ${most} trials; the slider below goes along it`;
  const p = plot(parent, 128, [10, 74, 22, 46], { role: "img", "aria-label": label, class: "pa-timeline" });
  const x = (count) => (p.w * count) / most;
  const top = Math.max(...searches.flatMap((one) => one?.gaps.filter((gap) => gap !== null) ?? []), GOAL);
  const y = (gap) => (p.h * (1 - scale.of(gap))) / (1 - scale.of(top) || 1); // the best is at the top
  const flip = (gap) => p.h - y(gap);
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const gap = scale.at(1 - share * (1 - scale.of(top))) - scale.best;
    rule(p, 0, flip(gap), p.w, flip(gap), share ? "pa-grid" : "pa-axis");
    text(p, -8, flip(gap) + 4, metric === "accuracy" ? (100 * gap).toFixed(1) : gap.toFixed(2), "end");
  }
  for (const count of ticks(0, most, p.w / 70)) if (Number.isInteger(count)) text(p, x(count), p.h + 17, count);
  const ends = [];
  searches.forEach((one, m) => {
    if (!one) return;
    let d = "";
    one.gaps.forEach((gap, i) => gap !== null && (d += `${d ? "H" + px(x(i + 1)) + "V" : `M${px(x(i + 1))} `}${px(flip(gap))}`));
    if (d) svg(p.frame, "path", { d: `${d}H${px(x(one.gaps.length))}`, class: `pa-gap ${hue(maps[m], m)}` });
    ends.push({ at: flip(one.gaps.at(-1) ?? top), words: maps[m].optimizer, name: hue(maps[m], m) });
  });
  ends.sort((one, other) => one.at - other.at);
  ends.forEach((end, i) => (end.at = Math.max(end.at, i ? ends[i - 1].at + 15 : 4)));
  for (let i = ends.length - 1, room = p.h; i >= 0; i--, room -= 15) ends[i].at = Math.min(ends[i].at, room);
  for (const end of ends) text(p, p.w + 10, end.at + 4, end.words, "start", end.name);
  const now = rule(p, 0, -4, 0, p.h, "pa-now");
  const point = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    go(clamp(Math.round(((event.clientX - p.outer.getBoundingClientRect().left - p.left) / p.w) * most), 0, most));
  };
  p.outer.addEventListener("pointerdown", point);
  p.outer.addEventListener("pointermove", point);
  return (count) => set(now, { x1: px(x(count)), x2: px(x(count)) });
}

function render({ model, el }) {
  const state = model.get("state");
  const { maps, walks, metric, shown } = state;
  const scale = scaleOf(state);
  const root = set(html(el, "div", "pa-figure pa-grids"), { role: "group", "aria-label": model.get("alt") });
  const head = html(root, "div", "pa-head");
  html(head, "div", "pa-title", state.title);
  html(head, "div", "pa-meta", `${state.network} · ${state.profile} profile`);

  // For each trial which one was the best so far, and how far that is from the map's best.
  const searches = walks.map(({ trials }) => trials.map((list, m) => {
    if (!list || !maps[m].best) return null;
    const at = ([row, column]) => maps[m].mean[row][column];
    let best = -1;
    const bests = list.map((cell, i) => (at(cell) !== null && (best < 0 || at(cell) < at(list[best])) ? (best = i) : best));
    return { list, bests, gaps: bests.map((i) => (i < 0 ? null : at(list[i]) - at(maps[m].best))) };
  }));
  const long = (w) => Math.max(0, ...searches[w].map((one) => one?.list.length ?? 0));

  const charts = html(root, "div", "pa-charts");
  const rooms = maps.map((one) => {
    const room = html(charts, "div", "pa-chart");
    html(room, "div", "pa-label", one.optimizer);
    const best = one.best && `best ${scale.words(one.mean[one.best[0]][one.best[1]])} at α = ${scientific(one.alphas[one.best[1]])}, ε = ${scientific(one.epsilons[one.best[0]])}`;
    html(room, "div", "pa-small", best ?? "no run finished");
    return html(room, "div", "pa-room");
  });
  const said = set(html(root, "output", "pa-told"), { "aria-live": "polite" });

  const legend = set(html(root, "div", "pa-legend"), { "aria-hidden": true });
  const ramp = html(legend, "div", "pa-scale");
  html(ramp, "span", "pa-small", shown);
  for (let i = 0; i <= SEGMENTS; i++) {
    const step = html(ramp, "span", "pa-step");
    const look = paint(1 - i / SEGMENTS);
    set(html(step, "span"), { ...look, class: look.class.replace("pa-cell", "pa-swatch") });
    html(step, "span", "pa-small", (scale.open && i === SEGMENTS ? "≥ " : "") + scale.words(scale.at(1 - i / SEGMENTS)));
  }
  const keys = html(legend, "div", "pa-keys");
  const key = (words, draw) => {
    const item = html(keys, "span", "pa-key");
    draw(svg(item, "svg", { width: 22, height: 14, viewBox: "0 0 22 14" }));
    html(item, "span", "", words);
  };
  key("best cell", (to) => svg(to, "circle", { cx: 11, cy: 7, r: 5, class: "pa-best" }));
  const any = (test) => maps.some((one) => one.mean.some((values, row) => values.some((_, column) => test(one, row, column))));
  if (any((one, row, column) => one.diverged[row][column])) key("diverged", (to) => svg(to, "path", { d: "M7 3l8 8m0-8l-8 8", class: "pa-lost" }));
  if (any((one, row, column) => one.missing[row][column] === one.runs.length)) key("not run", (to) => svg(to, "rect", { x: 5, y: 1.5, width: 11, height: 11, class: "pa-missing" }));
  if (maps.some((one) => one.border.length)) key("predicted border: above it ε outweighs √v", (to) => svg(to, "path", { d: "M0 7H22", class: "pa-border" }));
  if (maps.some((one) => one.ridge.length)) key("predicted to step as far as the best cell", (to) => svg(to, "path", { d: "M0 7H22", class: "pa-ridge" }));

  // What one map has to say about one setting.
  const tell = (one, alpha, epsilon) => {
    const near = (axis, value) => axis.findIndex((other) => Math.abs(other / value - 1) < 1e-6);
    const [row, column] = [near(one.epsilons, epsilon), near(one.alphas, alpha)];
    if (row < 0 || column < 0) return { cell: null, words: `${one.optimizer}: not on this grid.` };
    const mean = one.mean[row][column];
    const spread = one.spread[row][column];
    const [lost, absent, runs] = [one.diverged[row][column], one.missing[row][column], one.runs.length];
    const seeds = one.runs.flatMap(({ seed }, i) => (one.values[i][row][column] === null ? [] : [`seed ${seed} ${scale.words(one.values[i][row][column])}`]));
    const parts = [];
    if (mean !== null) parts.push(scale.words(mean) + (spread === null ? "" : ` ± ${scale.words(spread)}`) + ` (${seeds.join(", ")})`);
    if (lost) parts.push(lost === runs && runs > 1 ? `diverged with all ${runs} seeds` : runs === 1 ? "diverged" : `diverged with ${lost} of ${runs} seeds`);
    if (absent) parts.push(absent === runs ? "not run" : `${absent} of ${runs} seeds not run`);
    const root = one.root_v[row][column];
    const ratio = root === null ? "" : `; √v is ${scientific(root)}, so ε is ${scientific(epsilon / root)} times that: ${epsilon < root ? "adaptive" : "SGD-like"}`;
    return { cell: [row, column], words: `${one.optimizer}: ${parts.join(", ")}${ratio}.` };
  };

  let parts = [];
  let pinned = null; // a setting: [alpha, epsilon]
  let hovered = null;
  let updating = 0;
  const timed = (work) => {
    const begun = performance.now();
    work();
    root.dataset.redrawMs = (performance.now() - begun).toFixed(3);
  };
  const showCell = () => timed(() => {
    const setting = hovered ?? pinned;
    said.replaceChildren();
    if (!setting) {
      html(said, "div", "", `Choose a cell: its ${shown}, seed by seed, and how ε compares to the second moments there.`);
      for (const part of parts) part.frame(null);
    } else {
      html(said, "div", "pa-setting", `α = ${scientific(setting[0])}, ε = ${scientific(setting[1])}`);
      maps.forEach((one, m) => {
        const { cell, words } = tell(one, ...setting);
        html(said, "div", "", words);
        parts[m]?.frame(cell);
      });
    }
    root.dataset.cell = setting ? setting.join(" ") : "";
  });
  const same = (one, other) => String(one) === String(other);
  const setting = (one, cell) => cell && [one.alphas[cell[1]], one.epsilons[cell[0]]];
  const hooks = (one) => ({
    chosen() {
      if (!pinned) return null;
      const [row, column] = [one.epsilons.indexOf(pinned[1]), one.alphas.indexOf(pinned[0])];
      return row < 0 || column < 0 ? null : [row, column];
    },
    choose(cell) {
      if (same(setting(one, cell), hovered)) return;
      hovered = setting(one, cell);
      showCell();
    },
    pin(cell) {
      pinned = setting(one, cell);
      hovered = null;
      showCell();
    },
  });

  const search = html(root, "div", "pa-search");
  const foot = html(root, "div", "pa-foot");
  const ids = maps.map((one) => `${one.optimizer} ` + one.runs.map(({ seed, run }) => `seed ${seed} ${run}`).join(", ")).join("; ");
  foot.textContent = `√v: ${state.statistic}. A run is a whole map of one seed. Runs: ${ids}.`;

  const now = () => {
    const w = clamp(model.get("walk"), 0, walks.length - 1);
    return { w, count: clamp(model.get("trial"), 0, long(w)) };
  };
  const go = (values) => {
    updating++;
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
    updating--;
    showWalk();
  };
  const speak = voice(root);
  let drops = null;
  let built = null; // of one walk: its plot and its player
  if (walks.length) {
    html(search, "div", "pa-label", "A search walks over the maps");
    const row = html(search, "div", "pa-drops");
    const samplers = [...new Set(walks.map(({ sampler }) => sampler))];
    const find = (sampler, seed) => {
      const of = walks.flatMap((walk, w) => (walk.sampler === sampler ? [w] : []));
      return of.find((w) => walks[w].seed === seed) ?? of[0];
    };
    const sampler = dropdown(row, "Search", (name) => go({ walk: find(name, walks[now().w].seed), trial: 0 }));
    const seed = dropdown(row, "Seed", (w) => go({ walk: Number(w), trial: 0 }));
    drops = (w) => {
      sampler(samplers.map((name) => [name, name]), walks[w].sampler);
      seed(walks.flatMap((walk, i) => (walk.sampler === walks[w].sampler ? [[i, walk.seed]] : [])), w);
    };
  }
  const arena = html(search, "div");
  const buildWalk = () => {
    built?.controls.stop();
    arena.replaceChildren();
    const { w } = now();
    html(arena, "div", "pa-small", `The best found so far: how far above the map's own best (${metric === "accuracy" ? "percentage points" : "BPC"}), by trials`);
    const room = html(arena, "div", "pa-room");
    const most = long(w);
    built = { w, plot: gapPlot(room, maps, searches[w], scale, most, metric, (trial) => (built.controls.stop(), go({ trial }))) };
    built.controls = player(arena, {
      places: Array.from({ length: most + 1 }, (_, i) => i),
      label: "Trials of the search", what: ` ${walks[w].sampler}`, ms: 220,
      get: () => now().count, go: (trial) => go({ trial }),
    });
    built.where = html(arena, "div", "pa-where");
  };
  const showWalk = () => {
    if (!walks.length || updating || !parts.length) return;
    timed(() => {
      const { w, count } = now();
      if (built?.w !== w) buildWalk();
      drops(w);
      const words = maps.map((one, m) => {
        const found = searches[w][m];
        if (!found) {
          parts[m].walk([], [], 0);
          return `${one.optimizer} no search`;
        }
        const done = Math.min(count, found.list.length);
        parts[m].walk(found.list, found.bests, done);
        const gap = done ? found.gaps[done - 1] : null;
        return `${one.optimizer} ${gap === null ? (done ? "nothing finished yet" : "not begun") : gap === 0 ? "at its best" : `${scale.points(gap)} above its best`}`;
      });
      built.plot(count);
      const spoken = `Trial ${count} of ${long(w)}: ${words.join(", ")}`;
      built.where.textContent = spoken;
      built.controls.show(spoken);
      speak(`${walks[w].sampler}, seed ${walks[w].seed}. ${spoken}`);
      Object.assign(root.dataset, { walk: w, trial: count });
    });
  };
  let width = 0;
  const observer = new ResizeObserver(() => {
    if (root.clientWidth === width || !root.clientWidth) return;
    width = root.clientWidth;
    const narrow = width < 640;
    root.classList.toggle("pa-narrow", narrow);
    for (const room of rooms) room.replaceChildren();
    const begun = performance.now();
    parts = maps.map((one, m) => heatMap(rooms[m], one, scale, { narrow, ...hooks(one) }));
    root.dataset.buildMs = (performance.now() - begun).toFixed(3);
    if (built) built.w = -1;
    showWalk();
    showCell();
  });
  observer.observe(root);
  const heard = ["walk", "trial"].map((name) => `change:${name}`);
  for (const event of heard) model.on(event, showWalk);
  return () => {
    built?.controls.stop();
    observer.disconnect();
    for (const event of heard) model.off(event, showWalk);
  };
}

export default { initialize, render };
