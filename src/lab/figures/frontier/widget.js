// Chapter 4: accuracy against sparsity. Every recorded run is a point that opens its run; the thesis's points stand beside.
const SHAPES = {
  quick: "M5 0A5 5 0 1 1 -5 0A5 5 0 1 1 5 0Z", // circle
  short: "M-4.5 -4.5H4.5V4.5H-4.5Z", // square
  paper: "M0 -6L5.5 4.5H-5.5Z", // triangle
  thesis: "M0 -6L6 0L0 6L-6 0Z", // hollow diamond
};
const REACH = 26; // px within which a press means a point
const MARKS = [0.01, 0.05, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999];
const logit = (share) => Math.log10(share / (1 - share));
const bare = (share) => `${+(100 * share).toPrecision(4)}`;
const give = (share, spread) => percent(share) + (spread === null ? "" : ` ± ${percent(spread)}`);
const minus = (words) => words.replace(/(^|[\s(])-(?=[\d.])/g, "$1\u2212");
const lasted = (seconds) => {
  if (seconds < 60) return `${seconds.toFixed(1)}${GAP}s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes}${GAP}min` : `${Math.floor(minutes / 60)}${GAP}h ${minutes % 60}${GAP}min`;
};

function frontierPlot(parent, state, view, narrow, { words, pick, hover }) {
  const { points, method, protocol, axis } = view; // all points of the network, and what is switched on
  const on = points.map((p, i) => ({ ...p, i })).filter((p) => method(p.method) && protocol(p.protocol));
  const placed = on.filter((p) => p.accuracy !== null);
  const strip = on.filter((p) => p.accuracy === null);
  const top = 12 + (strip.length ? (narrow ? 64 : 48) : 0);
  const p = plot(parent, (narrow ? 300 : 360) + (top - 12), [top, narrow ? 14 : 22, 42, 44], {
    role: "group", tabindex: 0, class: "pa-field", ...KEYS,
    "aria-label": `Test accuracy against sparsity, ${on.length} points; left and right arrow go from point to point by sparsity, up and down by accuracy`,
  });

  // x: the share of zeros; on the logit axis a network without zeros stands in a gutter of its own
  const inner = on.map((one) => one.sparsity).filter((s) => s > 0 && s < 1);
  const low = Math.min(0.8, ...inner);
  const high = Math.max(0.9, ...inner);
  const whole = on.some((one) => one.sparsity === 0);
  const gutter = axis === "logit" && whole ? 40 : 0;
  const far = (s) => (logit(clamp(s, low, high)) - logit(low)) / (logit(high) - logit(low));
  const x = axis === "logit"
    ? (s) => (s <= 0 ? 8 : gutter + 6 + (p.w - gutter - 18) * far(s))
    : (s) => 8 + (p.w - 16) * s;
  const accuracies = placed.flatMap((one) => [one.accuracy - (one.accuracy_spread ?? 0), one.accuracy + (one.accuracy_spread ?? 0)]);
  const bottom = placed.length ? Math.min(...accuracies) : 0;
  const best = placed.length ? Math.max(...accuracies) : 1;
  const room = Math.max(0.01, (best - bottom) * 0.08);
  const y = (a) => p.h * (1 - (a - bottom + room) / (best - bottom + 2 * room));
  for (const a of ticks(100 * (bottom - room), 100 * (best + room), narrow ? 6 : 9)) {
    rule(p, 0, y(a / 100), p.w, y(a / 100), "pa-grid");
    text(p, -7, y(a / 100) + 4, String(a), "end");
  }
  rule(p, 0, p.h, p.w, p.h, "pa-axis");
  let last = -Infinity;
  const shares = axis === "logit" ? MARKS.filter((s) => s >= low * 0.999 && s <= high * 1.0001) : ticks(0, 1, narrow ? 5 : 10);
  const stops = shares.sort((a, b) => a - b).map((s) => [x(s), bare(s)]);
  if (gutter) {
    stops.unshift([x(0), "0"]);
    svg(p.frame, "path", { d: `M${gutter - 14} ${p.h + 5}l5 -10M${gutter - 8} ${p.h + 5}l5 -10`, class: "pa-break" });
  }
  for (const [at, name] of stops) {
    if (at - last < 30) continue;
    last = at;
    rule(p, at, p.h, at, p.h + 4, "pa-axis");
    text(p, at, p.h + 17, name);
  }
  text(p, p.w / 2, p.h + 36, `zeros (%)${axis === "logit" ? ", logit axis" : ""}`);
  text(p, -38, -12 + (strip.length ? 0 : 6), "test accuracy (%)", "start");

  // the strip of printed points that have a sparsity alone
  const shelf = -38;
  if (strip.length) {
    const lines = narrow ? state.strip.split(": ") : [state.strip];
    lines.forEach((words, i) => text(p, -38, shelf - 14 - 14 * (lines.length - 1 - i), words, "start"));
    rule(p, 0, shelf, p.w, shelf, "pa-grid");
  }
  const height = (one) => (one.accuracy === null ? shelf : y(one.accuracy));
  const dots = on.map((one) => ({ ...one, x: x(one.sparsity), y: height(one) }));

  // behind: dense networks as dotted lines, curves, bars of one standard deviation, seeds
  const series = new Map();
  for (const dot of dots) {
    if (dot.accuracy === null) continue;
    if (dot.method === "dense") rule(p, 0, dot.y, p.w, dot.y, "pa-base");
    else series.set(dot.series, [...(series.get(dot.series) ?? []), dot]);
  }
  const curves = [...series].map(([name, members]) => {
    const by = [...members].sort((a, b) => a.x - b.x);
    const printed = by[0].protocol === "thesis";
    const path = svg(p.frame, "path", { d: line(by.map((dot) => [dot.x, dot.y])), class: `pa-curve${printed ? " pa-printed" : ""}` });
    path.style.stroke = view.colour(by[0].method);
    return { name, path, method: by[0].method, end: by.at(-1) };
  });
  const seeds = [];
  for (const dot of dots) {
    const colour = view.colour(dot.method);
    const bar = (d) => (svg(p.frame, "path", { d, class: "pa-error" }).style.stroke = colour);
    if (dot.accuracy_spread) bar(`M${px(dot.x)} ${px(y(dot.accuracy - dot.accuracy_spread))}V${px(y(dot.accuracy + dot.accuracy_spread))}`);
    if (dot.sparsity_spread) bar(`M${px(x(Math.max(0, dot.sparsity - dot.sparsity_spread)))} ${px(dot.y)}H${px(x(Math.min(1, dot.sparsity + dot.sparsity_spread)))}`);
    if ((dot.runs?.length ?? 0) < 2) continue;
    dot.runs.forEach((run, r) => {
      const seed = { i: dot.i, r, x: x(run.sparsity), y: y(run.accuracy) };
      seeds.push(seed);
      svg(p.frame, "circle", { cx: px(seed.x), cy: px(seed.y), r: 2.2, class: "pa-seed" }).style.fill = colour;
    });
  }
  const marks = dots.map((dot) => {
    const printed = dot.protocol === "thesis";
    const mark = svg(p.frame, "path", { d: SHAPES[dot.protocol], transform: `translate(${px(dot.x)} ${px(dot.y)})`, class: printed ? "pa-dot pa-hollow" : "pa-dot" });
    mark.style[printed ? "stroke" : "fill"] = view.colour(dot.method);
    return mark;
  });

  // names beside the ends of curves, where there is room
  const taken = dots.map((dot) => [dot.x - 6, dot.y - 6, dot.x + 6, dot.y + 6]);
  const said = new Set(); // methods whose name stands nearby already
  const free = (box) => box[0] >= -4 && box[2] <= p.w + 14 && box[3] <= p.h && taken.every((t) => box[2] < t[0] || box[0] > t[2] || box[3] < t[1] || box[1] > t[3]);
  const named = [...curves.map((curve) => [curve.end, curve.method]), ...dots.filter((dot) => dot.accuracy === null || dot.method === "dense").map((dot) => [dot, dot.method])];
  for (const [dot, method] of named) {
    if (said.has(method + dot.protocol + (dot.accuracy === null))) continue;
    const name = view.name(method);
    const wide = 7.2 * [...name].length + 2;
    const tries = [[dot.x + 9, dot.y + 4, "start"], [dot.x - 9, dot.y + 4, "end"], [dot.x, dot.y - 10, "middle"], [dot.x, dot.y + 19, "middle"]];
    for (const [tx, ty, anchor] of tries) {
      const left = tx - { start: 0, end: wide, middle: wide / 2 }[anchor];
      const box = [left, ty - 10, left + wide, ty + 3];
      if (!free(box)) continue;
      taken.push(box);
      said.add(method + dot.protocol + (dot.accuracy === null));
      text(p, tx, ty, name, anchor, "pa-name").style.fill = view.colour(method);
      break;
    }
  }
  if (!on.length) text(p, p.w / 2, p.h / 2, "Every point is switched off: switch a method and a protocol on");
  const front = svg(p.frame, "path"); // the chosen mark once more, above those that cover it
  const ring = svg(p.frame, "circle", { r: 10, class: "pa-ring" });
  const over = svg(p.frame, "circle", { r: 9, class: "pa-over" });
  const show = (node, at) => {
    node.style.display = at ? "" : "none";
    if (at) set(node, { cx: px(at.x), cy: px(at.y) });
  };
  show(over, null);

  const near = (event) => {
    const corner = p.outer.getBoundingClientRect();
    const [cx, cy] = [event.clientX - corner.left - p.left, event.clientY - corner.top - top];
    const how = (at) => Math.hypot(at.x - cx, at.y - cy);
    const closest = [...dots, ...seeds].reduce((a, b) => (!a || how(b) < how(a) ? b : a), null);
    return closest && how(closest) <= REACH ? closest : null;
  };
  p.outer.addEventListener("pointermove", (event) => {
    const at = near(event);
    show(over, at);
    p.outer.style.cursor = at ? "pointer" : "default";
    hover(at ? words(points[at.i], at.r) : "");
  });
  p.outer.addEventListener("pointerleave", () => {
    show(over, null);
    hover("");
  });
  p.outer.addEventListener("click", (event) => {
    const at = near(event);
    if (at) pick(at.i, at.r ?? 0);
  });
  const along = [...dots].sort((a, b) => a.sparsity - b.sparsity || a.y - b.y || a.i - b.i);
  const rising = [...dots].sort((a, b) => b.y - a.y || a.x - b.x || a.i - b.i);
  p.outer.addEventListener("keydown", (event) => {
    const [order, step] = { ArrowRight: [along, 1], ArrowLeft: [along, -1], ArrowUp: [rising, 1], ArrowDown: [rising, -1], Home: [along, -Infinity], End: [along, Infinity] }[event.key] ?? [];
    if (!order || !order.length) return;
    event.preventDefault();
    const now = order.findIndex((dot) => dot.i === view.chosen());
    pick(order[now < 0 ? 0 : clamp(now + step, 0, order.length - 1)].i, 0);
  });
  return {
    count: dots.length,
    visible: (i) => dots.some((dot) => dot.i === i),
    choose(i, r) {
      const dot = dots.find((one) => one.i === i);
      show(ring, dot ? seeds.find((seed) => r && seed.i === i && seed.r === r) ?? dot : null);
      curves.forEach(({ name, path }) => path.classList.toggle("pa-chosen", name === dot?.series));
      front.style.display = dot ? "" : "none";
      if (!dot) return;
      const mark = marks[dots.indexOf(dot)];
      set(front, { d: SHAPES[dot.protocol], transform: mark.getAttribute("transform"), class: mark.getAttribute("class").replace("pa-dot", "pa-front") });
      Object.assign(front.style, { fill: mark.style.fill, stroke: mark.style.stroke });
    },
    only(method) {
      const faint = (node, its) => node.classList.toggle("pa-faint", method !== null && its !== method);
      curves.forEach((curve) => faint(curve.path, curve.method));
      marks.forEach((mark, k) => faint(mark, dots[k].method));
    },
  };
}

function render({ model, el }) {
  const state = model.get("state");
  const { networks, methods, protocols } = state;
  const root = set(html(el, "div", "pa-figure pa-frontier"), { role: "group", "aria-label": model.get("alt") });
  const save = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const of = new Map(methods.map((method) => [method.key, method]));
  const colour = (key) => `var(--method-${of.get(key).colour})`;
  const points = () => networks[model.get("network")].points;
  const chosen = () => Math.min(model.get("point"), points().length - 1); // the network changes before the point
  const one = () => points()[chosen()];
  const seed = () => clamp(model.get("run"), 0, (one().runs?.length ?? 1) - 1);
  const words = (point, r) => {
    const name = of.get(point.method).name + (point.setting ? `, ${minus(point.setting)}` : "");
    const where = point.printed ? point.printed.source : `${point.protocol} profile`;
    const run = r === undefined ? null : point.runs[r];
    const accuracy = run ? percent(run.accuracy) : point.accuracy === null ? "accuracy not printed" : give(point.accuracy, point.accuracy_spread);
    const zeros = run ? percent(run.sparsity) : give(point.sparsity, point.sparsity_spread);
    const n = run ? `, seed ${run.seed}` : point.runs ? `, n = ${point.runs.length}` : "";
    return `${name}: ${zeros} zeros, ${point.accuracy === null ? "" : "test accuracy "}${accuracy} (${where}${n})`;
  };

  const head = html(root, "div", "pa-head");
  html(head, "div", "pa-title", state.title);
  const meta = html(head, "div", "pa-meta");
  const stats = html(root, "div", "pa-stats");
  const tile = (label) => {
    const box = html(stats, "div", "pa-stat");
    html(box, "div", "pa-label", label);
    return { label: box.firstChild, big: html(box, "div", "pa-big"), small: html(box, "div", "pa-small") };
  };
  const [accuracy, zeros, runs] = ["Test accuracy", "Zeros", "Runs"].map(tile);

  const steer = html(root, "div", "pa-steer");
  const labelled = (words) => {
    const box = html(steer, "div", "pa-which");
    html(box, "span", "pa-small", words);
    return box;
  };
  const firstOf = (n) => { // the sparsest that was trained here, else the sparsest
    const here = networks[n].points.map((point, i) => (point.runs ? i : -1)).filter((i) => i >= 0);
    return here.at(-1) ?? networks[n].points.length - 1;
  };
  const pickNetwork = networks.length < 2 ? () => {}
    : choice(labelled("Network"), "Network", networks.map((n) => n.name), () => model.get("network"), (i) => save({ network: i, point: firstOf(i), run: 0 }));
  const AXES = ["linear", "logit"];
  const pickAxis = choice(labelled("Sparsity axis"), "Sparsity axis", AXES, () => AXES.indexOf(model.get("axis")), (i) => save({ axis: AXES[i] }));

  let drawn = null;
  const switches = (label, trait, entries) => {
    const box = set(html(root, "div", "pa-switches"), { role: "group", "aria-label": label });
    html(box, "span", "pa-small", label);
    const buttons = entries.map(({ key, name, shape, ink }) => {
      const button = set(html(box, "button", ""), { type: "button", ...KEYS });
      const mark = svg(svg(button, "svg", { viewBox: "-7 -7 14 14", width: 14, height: 14, "aria-hidden": true }), "path", { d: shape });
      if (ink) mark.style.fill = ink;
      else mark.setAttribute("class", key === "thesis" ? "pa-hollow" : "pa-plain");
      html(button, "span", "", name);
      button.addEventListener("click", () => {
        const off = model.get(trait);
        save({ [trait]: off.includes(key) ? off.filter((other) => other !== key) : [...off, key] });
      });
      for (const [event, now] of [["pointerenter", key], ["focus", key], ["pointerleave", null], ["blur", null]]) {
        if (ink) button.addEventListener(event, () => drawn?.only(model.get(trait).includes(key) ? null : now));
      }
      return button;
    });
    return (there) => entries.forEach(({ key }, i) => {
      buttons[i].hidden = !there.has(key);
      buttons[i].setAttribute("aria-pressed", !model.get(trait).includes(key));
    });
  };
  const shapes = protocols.map((key) => ({ key, name: key === "thesis" ? "thesis, printed" : key, shape: SHAPES[key] }));
  const showMethods = switches("Methods", "methods_off", methods.map(({ key, name }) => ({ key, name, shape: SHAPES.quick, ink: colour(key) })));
  const showProtocols = switches("Protocols", "protocols_off", shapes);

  const room = html(root, "div", "pa-room");
  const hint = html(root, "div", "pa-hint");
  const HINT = "Choose a point by pressing it, or with the arrow keys: it opens the run behind it.";
  const card = html(root, "section", "pa-card");
  const tell = set(html(card, "output", "pa-label"), { "aria-live": "polite" });
  const seedBox = html(card, "div", "pa-seeds");
  const list = html(card, "dl", "pa-run");
  const again = html(card, "div", "pa-again");
  html(again, "div", "pa-small", "Repeat this run");
  const row = html(again, "div", "pa-command");
  const code = set(html(row, "code"), { tabindex: 0, ...KEYS });
  const copy = set(html(row, "button", "pa-button", "Copy"), { type: "button" });
  const copied = set(html(again, "output", "pa-small"), { "aria-live": "polite" });
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      copied.textContent = "Copied.";
    } catch { // not allowed here: the reader's own keys do it
      const range = document.createRange();
      range.selectNodeContents(code);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      copied.textContent = "Marked: copy it with Ctrl+C.";
    }
  });

  const facts = (entries) => {
    list.replaceChildren();
    for (const [name, value] of entries) {
      html(list, "dt", "", name);
      html(list, "dd", "", value);
    }
  };
  const speak = voice(root);
  let pickSeed = null;
  const open = () => {
    if (!drawn) return;
    const point = one();
    const seen = drawn.visible(chosen());
    const network = networks[model.get("network")].name;
    drawn.choose(chosen(), seed());
    meta.textContent = network + (point.runs ? ` · ${point.protocol} profile` : " · printed in the thesis");
    accuracy.big.textContent = point.accuracy === null ? "–" : percent(point.accuracy);
    accuracy.small.textContent = point.accuracy === null ? "not printed"
      : point.accuracy_spread === null ? "one value" : `± ${percent(point.accuracy_spread)}, standard deviation`;
    zeros.big.textContent = percent(point.sparsity);
    const kept = `${percent(1 - point.sparsity)} of the weights kept`;
    zeros.small.textContent = point.sparsity_spread === null ? kept : `± ${percent(point.sparsity_spread)}; ${kept}`;
    runs.label.textContent = point.runs ? "Runs" : "Source";
    runs.big.textContent = point.runs ? `n = ${point.runs.length}` : "thesis";
    runs.small.textContent = of.get(point.method).name + (point.setting ? `, ${minus(point.setting)}` : "");
    tell.textContent = words(point) + (seen ? "" : " — switched off above");
    root.dataset.point = chosen();
    seedBox.replaceChildren();
    again.hidden = !point.runs;
    copied.textContent = "";
    if (!point.runs) {
      facts([["Where", point.printed.source], ["Row", point.printed.row], ["Network", network],
        ["Protocol", "the thesis's own, on the full data set; compare the order of the methods, not the numbers"]]);
      return;
    }
    const run = point.runs[seed()];
    if (point.runs.length > 1) {
      html(seedBox, "span", "pa-small", "Seed");
      const go = (r) => {
        save({ run: r });
        seedBox.querySelectorAll("[role=radio]")[r].focus(); // the row was made again
      };
      pickSeed = choice(seedBox, "Seed", point.runs.map((other) => String(other.seed)), seed, go);
      pickSeed();
    }
    const when = run.recorded.replace("T", " ").replace("+00:00", " UTC");
    facts([
      ["Run", `${run.id}, experiment ${run.experiment}, seed ${run.seed}`],
      ["Result", `${percent(run.accuracy)} with ${percent(run.sparsity)} zeros`],
      ["Network, data", `${network} on ${run.data}`],
      ...Object.entries(run.configuration).map(([part, settings]) => [part[0].toUpperCase() + part.slice(1), minus(settings)]),
      ["Device", run.device],
      ["Time", `${lasted(run.seconds)}, ended ${when}`],
      ["Commit", (run.commit.slice(0, 12) || "unknown: made in a copy without git") + (run.changed ? ", with changes that were not committed" : "")],
    ]);
    code.textContent = run.command ?? "";
    row.hidden = run.command === null;
    if (run.command === null) copied.textContent = "This version of the book declares no such run any more: check out the commit above.";
  };
  const redraw = () => {
    const narrow = root.clientWidth < 600;
    root.classList.toggle("pa-narrow", narrow);
    const held = room.contains(document.activeElement);
    room.replaceChildren();
    pickNetwork();
    pickAxis();
    showMethods(new Set(points().map((point) => point.method)));
    showProtocols(new Set(points().map((point) => point.protocol)));
    hint.textContent = HINT;
    const view = {
      points: points(), axis: model.get("axis"), colour, chosen, name: (key) => of.get(key).name,
      method: (key) => !model.get("methods_off").includes(key), protocol: (key) => !model.get("protocols_off").includes(key),
    };
    drawn = frontierPlot(room, state, view, narrow, {
      words, pick: (point, run) => save({ point, run }), hover: (said) => (hint.textContent = said || HINT),
    });
    if (held) room.querySelector("svg").focus();
    open();
    speak(`${networks[model.get("network")].name}, ${model.get("axis")} axis: ${drawn.count} of ${points().length} points shown`);
    root.dataset.drawn = `${model.get("network")}-${model.get("axis")}`;
  };
  let width = 0;
  const observer = new ResizeObserver(() => {
    if (root.clientWidth === width || !root.clientWidth) return;
    width = root.clientWidth;
    redraw();
  });
  observer.observe(root);
  const redraws = ["network", "axis", "methods_off", "protocols_off"].map((name) => `change:${name}`);
  const opens = ["point", "run"].map((name) => `change:${name}`);
  for (const event of redraws) model.on(event, redraw);
  for (const event of opens) model.on(event, open);
  return () => {
    observer.disconnect();
    for (const event of redraws) model.off(event, redraw);
    for (const event of opens) model.off(event, open);
  };
}

export default { initialize, render };
