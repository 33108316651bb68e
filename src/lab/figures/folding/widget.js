// Chapter 3: a trained network folds. Draws recorded matrices and measured folds; computes nothing about the network.
const COLOURS = 5; // of groups and of paths; letters and numbers tell them apart where colours repeat
const letter = (n) => String.fromCharCode(65 + (n % 26)) + (n < 26 ? "" : Math.floor(n / 26));
const many = (count, thing) => `${count} ${thing}${count === 1 ? "" : "s"}`;
const short = (count) => {
  const [unit, sign] = count < 1e3 ? [1, ""] : count < 1e6 ? [1e3, "k"] : [1e6, "M"];
  return (unit === 1 ? count : three(count / unit)) + (sign && GAP + sign);
};
// Rising numbers in words: 1, 2, 3 and 5 are "1–3" and "5".
function ranges(numbers) {
  const found = [];
  for (const n of numbers) {
    if (found.at(-1)?.[1] === n - 1) found.at(-1)[1] = n;
    else found.push([n, n]);
  }
  return found.map(([first, last]) => (first === last ? `${first}` : `${first}–${last}`));
}
const level = (threshold) => threshold.toFixed(4).replace(/0{1,2}$/, "");
const shown = (run, score) => (score === undefined ? "–" : run.metric === "accuracy" ? percent(1 - score) : score.toFixed(3));

// A packed matrix: what stands above the diagonal, row by row, as base64 of 16-bit numbers.
function unpack(packed, layers) {
  const bytes = Uint8Array.from(atob(packed), (char) => char.charCodeAt(0));
  const matrix = Array.from({ length: layers }, (_, i) => Array.from({ length: layers }, (_, j) => +(i === j)));
  let at = 0;
  for (let i = 0; i < layers; i++) {
    for (let j = i + 1; j < layers; j++, at += 2) matrix[i][j] = matrix[j][i] = (bytes[at] + 256 * bytes[at + 1]) / 65535;
  }
  return matrix;
}

// Who is one layer with whom in a group, at a moment and a fold: for each layer the first layer of its kind.
function kinds(run, g, m, f) {
  const layers = run.groups[g].layers;
  if (m === run.moments.length - 1) {
    const order = layers.map((step) => run.folds[f].order[step]);
    return order.map((one) => order.indexOf(one));
  }
  const kind = layers.map((_, i) => i);
  const merged = f ? run.moments[m].merges[g].filter(([at]) => at >= run.folds[f].level) : [];
  for (const [, a, b] of merged) kind.forEach((k, i) => k === b && (kind[i] = a));
  return kind;
}

// For each layer of each group a mark: a letter for those that are one, its number for one on its own. Groups that are drawn
// in one row go on with each other's letters.
function marks(run, m, f) {
  const used = new Map();
  return run.groups.map((group, g) => {
    const kind = kinds(run, g, m, f);
    const row = run.rows.findIndex(({ end }) => group.layers[0] < end);
    const letters = [];
    const start = used.get(row) ?? 0;
    const mark = kind.map((k, i) => {
      if (kind.filter((other) => other === k).length === 1) return { kind: k, name: String(i + 1), colour: -1 };
      if (!letters.includes(k)) letters.push(k);
      const n = start + letters.indexOf(k);
      return { kind: k, name: letter(n), colour: n % COLOURS };
    });
    used.set(row, start + letters.length);
    return mark;
  });
}
const dye = (colour) => (colour < 0 ? "pa-alone" : `pa-g${colour}`);

// The similarity matrix; a cell tells its layers, and pressed it asks for the fold that makes them one.
function matrixPlot(parent, said, run, g, narrow, { hot, merge }) {
  const steps = run.groups[g].layers.map((step) => run.steps[step]);
  const count = steps.length;
  const edge = 32;
  const side = Math.min(Math.max(240, parent.clientWidth) - edge - 2, narrow ? 340 : 380);
  const p = plot(parent, side + edge + 2, [edge, 2, 2, edge], {
    role: "application", tabindex: 0, class: "pa-matrix", ...KEYS,
    "aria-label": `Layer similarity matrix of ${run.groups[g].name}, ${count} layers. ` +
      "Arrow keys choose a cell, Enter folds its two layers into one",
  });
  const size = side / count;
  const gap = size > 8 ? 1 : 0;
  const box = (x, y, w, h) => svg(p.frame, "rect", { x: px(x), y: px(y), width: px(w - gap), height: px(h - gap) });
  const cells = steps.map((_, i) => steps.map((_, j) => box(j * size, i * size, size, size)));
  const strips = steps.map((_, i) => [box(i * size, -7, size, 6), box(-7, i * size, 6, size)]);
  const every = Math.ceil(15 / size);
  const names = steps.map((_, i) => i % every ? [] : [
    text(p, (i + 0.5) * size, -12, ""), text(p, -12, (i + 0.5) * size + 4, "", "end"),
  ]);
  const frame = svg(p.frame, "rect", { class: "pa-cell", fill: "none", width: px(size), height: px(size) });
  let matrix;
  let mark = [];
  let chosen = null;
  const say = () => {
    frame.style.opacity = +!!chosen;
    hot(chosen ? chosen.map((i) => run.groups[g].layers[i]) : []);
    if (!chosen) {
      const letters = [...new Set(mark.filter(({ colour }) => colour >= 0).map(({ name }) => name))];
      const list = letters.map((name) => `${name} = ` + ranges(mark.flatMap((one, i) => one.name === name ? [i + 1] : [])).join(" "));
      said.textContent = list.length ? `One layer: ${list.join(", ")}` : "No two layers are folded into one here";
      return;
    }
    const [i, j] = chosen;
    set(frame, { x: px(j * size - gap / 2), y: px(i * size - gap / 2) });
    const one = mark[i].kind === mark[j].kind ? `, one layer: ${mark[i].name}` : "";
    said.textContent = i === j ? `Layer ${i + 1}, ${steps[i]}`
      : `Layer ${i + 1}, ${steps[i]}, and layer ${j + 1}, ${steps[j]}: similarity ${matrix[i][j].toFixed(3)}${one}`;
  };
  const choose = (cell) => {
    if (String(cell) === String(chosen)) return;
    chosen = cell;
    say();
  };
  const under = (event) => {
    const corner = p.outer.getBoundingClientRect();
    const cell = [event.clientY - corner.top - edge, event.clientX - corner.left - edge].map((at) => Math.floor(at / size));
    return cell.every((i) => i >= 0 && i < count) ? cell : null;
  };
  p.outer.addEventListener("pointermove", (event) => choose(under(event)));
  p.outer.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && choose(null));
  p.outer.addEventListener("blur", () => choose(null));
  p.outer.addEventListener("click", (event) => {
    choose(under(event));
    if (chosen) merge(...chosen);
  });
  p.outer.addEventListener("keydown", (event) => {
    if ((event.key === "Enter" || event.key === " ") && chosen) merge(...chosen);
    else if (event.key === "Escape") choose(null);
    else {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -count], End: [0, count] }[event.key];
      if (!step) return;
      choose(chosen ? chosen.map((i, axis) => clamp(i + step[axis], 0, count - 1)) : [0, 0]);
    }
    event.preventDefault();
  });
  return (m, f) => {
    matrix = unpack(run.moments[m].similarity[g], count);
    mark = marks(run, m, f)[g];
    cells.forEach((row, i) => row.forEach((cell, j) => {
      const name = mark[i].kind === mark[j].kind ? dye(mark[i].colour) : "pa-alone";
      const strength = (0.04 + 0.96 * matrix[i][j]).toFixed(2);
      if (cell.drawn === name + strength) return;
      cell.drawn = name + strength;
      set(cell, { class: name, "fill-opacity": strength });
    }));
    strips.forEach((pair, i) => pair.forEach((strip) => strip.setAttribute("class", dye(mark[i].colour))));
    names.forEach((pair, i) => pair.forEach((word) => {
      word.textContent = mark[i].name;
      word.setAttribute("class", mark[i].colour < 0 ? "" : `${dye(mark[i].colour)} pa-strong`);
    }));
    say();
  };
}

const LANE = 17; // from one path to the next above or below it
const TALL = 24; // a box
// Which paths of the order one drawn path is.
function numbered(numbers) {
  const words = ranges(numbers);
  return words.length < 4 ? words.join(" ") : `${words[0]} … ${words.at(-1)}`;
}
const badge = ({ back, numbers }) => (back ? 8 + 6.5 * numbered(numbers).length : 0); // its width

// How one row of a fold runs: its boxes, and the paths between them that do not simply go on to the next.
function routes(run, f, row, pitch) {
  const order = run.folds[f].order.slice(row.start, row.end);
  const base = order[0];
  const boxes = [...new Set(order)].map((layer) => ({ layer, runs: [], ports: { top: [], bottom: [] } }));
  order.forEach((layer, i) => boxes[layer - base].runs.push(row.start + i));
  const paths = [];
  const nexts = new Set(); // boxes from which the next one is reached
  let taken = 0;
  [...order, base + boxes.length].forEach((layer, i, all) => {
    if (!i) return;
    const [from, to] = [all[i - 1] - base, layer - base];
    if (to === from + 1) return nexts.add(from);
    if (to <= from) taken++; // a jump of principled.folding.Program
    const same = paths.find((path) => path.from === from && path.to === to);
    if (same) return same.steps.push(row.start + i), same.numbers.push(taken);
    paths.push({ from, to, back: to <= from, numbers: [taken], steps: [row.start + i] });
  });
  // A colour for each path back, in order; what then skips ahead goes on in its colour.
  const backs = paths.filter(({ back }) => back);
  for (const path of paths) path.colour = backs.findIndex(({ numbers }) => numbers.includes(path.numbers[0])) % COLOURS;
  // Paths that overlap stand in different lanes, the short ones nearest to the boxes.
  const lanes = { true: [], false: [] };
  const span = (path) => {
    const [middle, half] = [((path.from + path.to) * pitch) / 2, (Math.abs(path.from - path.to) * pitch) / 2];
    const room = Math.max(half, badge(path) / 2 + 1);
    return [middle - room, middle + room];
  };
  for (const path of [...paths].sort((a, b) => Math.abs(a.from - a.to) - Math.abs(b.from - b.to))) {
    const [low, high] = span(path);
    const meets = (other) => {
      const [left, right] = span(other);
      return Math.max(low, left) < Math.min(high, right);
    };
    path.lane = lanes[path.back].findIndex((lane) => !lane.some(meets));
    if (path.lane < 0) path.lane = lanes[path.back].push([]) - 1;
    lanes[path.back][path.lane].push(path);
  }
  return { boxes, paths, nexts, above: lanes.true.length, below: lanes.false.length };
}

// Where paths meet a box: those from the left at its left, those from the right at its right, so that none cross there.
function ports(boxes, paths) {
  for (const path of paths) {
    const side = path.back ? "top" : "bottom";
    const toward = Math.sign(path.to - path.from);
    boxes[path.from].ports[side].push({ path, end: "x1", toward });
    boxes[path.to]?.ports[side].push({ path, end: "x2", toward: -toward });
  }
  const place = ({ toward, path }) => toward * (1000 - path.lane); // at the left the outer lanes stand further in, too
  for (const box of boxes) for (const side of ["top", "bottom"]) box.ports[side].sort((a, b) => place(a) - place(b));
}

// The folded network: a line a stage, its layers as boxes, what is executed again as numbered paths that lead back.
function networkPlot(parent, said, run, { stage }) {
  const width = Math.max(240, parent.clientWidth);
  const longest = Math.max(...run.rows.map((row) => row.end - row.start));
  // From one box to the next: the same for every fold, unless the unfolded network leaves too little room for a name.
  const distinct = ({ order }) => Math.max(...run.rows.map(({ start, end }) => new Set(order.slice(start, end)).size));
  const pitches = run.folds.map((one) => Math.min(40, (width - 30) / (longest > 20 ? distinct(one) : longest)));
  const all = run.folds.map((_, f) => run.rows.map((row) => routes(run, f, row, pitches[f])));
  const lines = run.rows.map((row, r) => {
    const head = html(parent, "div", "pa-line-head");
    const names = row.name.split(" + ");
    const button = set(html(head, "button", "pa-stage", row.name), { type: "button" });
    button.addEventListener("click", () => stage(run.groups.findIndex((group) => group.name === names[0])));
    const order = html(head, "span", "pa-order");
    const room = html(parent, "div", "pa-room");
    const above = 10 + LANE * Math.max(...all.map((rows) => rows[r].above));
    const below = 6 + LANE * Math.max(...all.map((rows) => rows[r].below));
    const p = plot(room, above + TALL + below, [above, 0, 0, 12], { "aria-hidden": true });
    return { p, button, order, names };
  });
  let fold = 0;
  let label = []; // by step
  let step = -1;
  let lit = [];
  const owner = new Map();
  run.groups.forEach((group, g) => group.layers.forEach((at, i) => owner.set(at, { g, i })));
  const light = () => {
    for (const { p } of lines) {
      for (const node of p.frame.querySelectorAll("[data-steps]")) {
        const steps = node.dataset.steps.split(" ").map(Number);
        node.classList.toggle("pa-hot", steps.some((at) => lit.includes(at)));
      }
    }
  };
  const tell = () => {
    const order = run.folds[fold].order;
    if (step < 0) {
      said.textContent = "";
      return;
    }
    const mark = label[step];
    const what = mark.name ? `layer ${mark.name}` : "a layer of its own";
    const again = order.indexOf(order[step]) < step ? `, first run as ${run.steps[order.indexOf(order[step])]}` : "";
    const ratio = run.folds[fold].ratios[step];
    const row = run.rows.findIndex(({ end }) => step < end);
    const path = all[fold][row].paths.find((one) => one.back && one.steps.includes(step));
    const back = path ? `Back by path ${path.numbers[path.steps.indexOf(step)]}. ` : "";
    said.textContent = `${back}Step ${step + 1} of ${order.length}: ${run.steps[step]} runs ${what}${again}` +
      (ratio === undefined ? "" : `, times ${signed(ratio)}`);
  };
  const walk = (to) => {
    step = to;
    lit = step < 0 ? [] : [step];
    light();
    tell();
  };
  parent.addEventListener("keydown", (event) => {
    const last = run.folds[fold].order.length - 1;
    const to = { ArrowRight: step + 1, ArrowLeft: step - 1, Home: 0, End: last, Escape: -1 }[event.key];
    if (event.target !== parent || to === undefined) return;
    event.preventDefault();
    walk(to < 0 && event.key !== "Escape" ? 0 : Math.min(to, last));
  });
  parent.addEventListener("blur", () => walk(-1));
  const point = (event) => {
    const box = event.target.closest("[data-box]");
    if (!box) return event.pointerType === "mouse" && step < 0 && walk(-1);
    const steps = box.dataset.steps.split(" ").map(Number);
    lit = steps;
    light();
    const mark = label[steps[0]];
    said.textContent = (mark.name ? `Layer ${mark.name}` : "A layer that shares nothing") +
      (steps.length > 1 ? `, executed ${steps.length} times: ` : ": ") + steps.map((at) => run.steps[at]).join(", ");
  };
  parent.addEventListener("pointermove", point);
  parent.addEventListener("pointerdown", point);
  parent.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && walk(-1));

  const draw = ({ p }, { boxes, paths, nexts }) => {
    p.frame.replaceChildren();
    const pitch = pitches[fold];
    const wide = Math.max(2, Math.min(26, pitch * 0.72));
    const middle = (i) => i * pitch + pitch / 2;
    const end = middle(boxes.length);
    const arrow = (x1, x2, y) => svg(p.frame, "path", { d: `M${px(x1)} ${px(y)}H${px(x2)}`, class: "pa-next" });
    arrow(-10, middle(0) - wide / 2, TALL / 2);
    for (const i of nexts) {
      arrow(middle(i) + wide / 2, i + 1 < boxes.length ? middle(i + 1) - wide / 2 : end - pitch / 2 + 12, TALL / 2);
    }
    for (const box of boxes) {
      for (const side of ["top", "bottom"]) {
        box.ports[side].forEach(({ path, end: which }, i, { length }) => {
          path[which] = middle(boxes.indexOf(box)) - wide / 2 + (wide * (i + 1)) / (length + 1);
        });
      }
    }
    const signs = [];
    for (const path of paths) {
      const { x1, back, lane } = path;
      const out = path.to === boxes.length;
      const x2 = out ? end - pitch / 2 + 8 : path.x2;
      const y = back ? -LANE * (lane + 1) + 4 : TALL + LANE * (lane + 1) - 6;
      const bend = Math.min(5, Math.abs(x2 - x1) / 2) * Math.sign(x2 - x1);
      const rise = back ? 5 : -5;
      const d = `M${px(x1)} ${back ? 0 : TALL}V${y + rise}Q${px(x1)} ${y} ${px(x1 + bend)} ${y}H${px(x2 - bend)}Q${px(x2)} ${y} ${px(x2)} ${y + rise}` +
        (out ? `V${TALL / 2}h10` : `V${back ? -1 : TALL + 1}`);
      const line = { class: `pa-path pa-p${path.colour}`, "data-steps": path.steps.join(" ") };
      const group = svg(p.frame, "g", line);
      svg(group, "path", { d });
      if (!out) {
        const [tip, foot] = back ? [-0.5, -5.5] : [TALL + 0.5, TALL + 5.5];
        svg(group, "path", { class: "pa-tip", d: `M${px(x2)} ${tip}L${px(x2 - 3)} ${foot}H${px(x2 + 3)}Z` });
      }
      if (back) signs.push({ line, x: (x1 + x2) / 2, y, room: badge(path), words: numbered(path.numbers) });
    }
    for (const { line, x, y, room, words } of signs) { // above all lines
      const group = svg(p.frame, "g", line);
      svg(group, "rect", { x: px(x - room / 2), y: y - 7.5, width: px(room), height: 15, rx: 7.5 });
      svg(group, "text", { x: px(x), y: y + 4, "text-anchor": "middle" }, words);
    }
    boxes.forEach((box, i) => {
      const mark = label[box.runs[0]];
      const place = { x: px(middle(i) - wide / 2), y: 0, width: px(wide), height: TALL, rx: Math.min(4, wide / 4) };
      const group = svg(p.frame, "g", { "data-box": i, "data-steps": box.runs.join(" "), class: `pa-box ${mark.shares ? dye(mark.colour) : "pa-fixed"}` });
      svg(group, "rect", place);
      if (mark.name && wide > 11) svg(group, "text", { x: px(middle(i)), y: TALL / 2 + 4, "text-anchor": "middle" }, mark.name);
    });
  };
  for (const rows of all) for (const row of rows) ports(row.boxes, row.paths);

  return (f, g) => {
    fold = f;
    const last = run.moments.length - 1;
    const mark = marks(run, last, f);
    label = run.steps.map((_, at) => owner.has(at) ? { shares: true, ...mark[owner.get(at).g][owner.get(at).i] } : { name: "", colour: -1 });
    const spoken = lines.map((one, r) => {
      const row = run.rows[r];
      draw(one, all[f][r]);
      const words = [];
      for (let at = row.start; at < row.end;) {
        const loop = run.folds[f].loops.find(([start]) => start === at);
        const [length, times] = loop ? loop.slice(1) : [1, 1];
        const body = label.slice(at, at + length).map(({ name }) => name || "·").join(" ");
        words.push(times === 1 ? body : length === 1 ? `${body}×${times}` : `(${body})×${times}`);
        at += length * times;
      }
      one.order.textContent = words.join(" ");
      one.button.setAttribute("aria-pressed", one.names.includes(run.groups[g].name));
      return `${row.name}: ${words.join(" ")}`;
    });
    parent.setAttribute("aria-label", `Order of execution. ${spoken.join("; ")}. Left and right arrow walk along it`);
    walk(-1);
  };
}

// What each fold costs: its measured score over the threshold; shares its horizontal axis with the slider below.
function costPlot(parent, run, go) {
  const { folds } = run;
  const value = run.metric === "accuracy" ? (score) => 1 - score : (score) => score;
  const drawn = [["score", "pa-folded", "as folded"], ["score_bn", "pa-again", "re-estimated"], ["score_tuned", "pa-tuned", "fine-tuned"]]
    .map(([key, ...named]) => [folds.filter((one) => key in one), key, ...named]).filter(([measured]) => measured.length);
  const p = plot(parent, 138, [10, 98, 26, 46], {
    role: "img", class: "pa-timeline",
    "aria-label": `${run.metric === "accuracy" ? "Test error" : `Test ${run.metric}`} over the threshold of folding; the slider below goes along it`,
  });
  const [first, last] = [folds[0].level, folds.at(-1).level];
  const x = (at) => ((first - at) / (first - last)) * p.w;
  const most = Math.min(1, 1.08 * Math.max(...drawn.flatMap(([measured, key]) => measured.map((one) => value(one[key])))) || 1);
  const y = (share) => p.h * (1 - share / most);
  for (const share of ticks(0, most, 4)) {
    rule(p, 0, y(share), p.w, y(share), share ? "pa-grid" : "pa-axis");
    text(p, -8, y(share) + 4, run.metric === "accuracy" ? Math.round(100 * share) + GAP + "%" : share, "end");
  }
  for (const at of ticks(last, first, p.w / 80)) text(p, x(at), p.h + 19, at.toFixed(2));
  for (const [measured, key, name] of drawn) {
    if (measured.length < folds.length) { // measured for some folds alone: a ring each
      for (const one of measured) svg(p.frame, "circle", { r: 4, cx: px(x(one.level)), cy: px(y(value(one[key]))), class: name });
      continue;
    }
    // A fold holds from its own threshold down to the next one's.
    const d = folds.map((one, i) => `${i ? "H" + px(x(one.level)) + "V" : "M0 "}${px(y(value(one[key])))}`).join("");
    svg(p.frame, "path", { d, class: name });
  }
  const ends = drawn.map(([measured, key, name, words]) => ({ at: y(value(measured.at(-1)[key])), words, name: `${name}-ink` }));
  ends.sort((one, other) => one.at - other.at);
  ends.forEach((end, i) => (end.at = Math.max(end.at, i ? ends[i - 1].at + 15 : 4)));
  for (let i = ends.length - 1, room = p.h; i >= 0; i--, room -= 15) ends[i].at = Math.min(ends[i].at, room);
  for (const end of ends) text(p, p.w + 10, end.at + 4, end.words, "start", end.name);
  const now = rule(p, 0, -4, 0, p.h, "pa-now");
  const dots = drawn.map(([, , name]) => svg(p.frame, "circle", { r: 4.5, class: `${name}-dot` }));
  const point = (event) => {
    if (event.type === "pointermove" && !event.buttons) return;
    const at = event.clientX - p.outer.getBoundingClientRect().left - p.left;
    const far = folds.map((one) => Math.abs(x(one.level) - at));
    go(far.indexOf(Math.min(...far)));
  };
  p.outer.addEventListener("pointerdown", point);
  p.outer.addEventListener("pointermove", point);
  return (f) => {
    const at = px(x(folds[f].level));
    set(now, { x1: at, x2: at });
    drawn.forEach(([, key], i) => {
      const here = key in folds[f];
      set(dots[i], { cx: at, cy: here ? px(y(value(folds[f][key]))) : 0, opacity: +here });
    });
  };
}

function render({ model, el }) {
  const { title, runs } = model.get("state");
  const root = set(html(el, "div", "pa-figure pa-folding"), { role: "group", "aria-label": model.get("alt") });
  const head = html(root, "div", "pa-head");
  html(head, "div", "pa-title", title);
  const meta = html(head, "div", "pa-meta");

  // What Python set may lie outside what another run has, for as long as a change is under way.
  const now = () => {
    const r = clamp(model.get("run"), 0, runs.length - 1);
    const [g, m, f] = ["group", "moment", "fold"].map((name) => clamp(model.get(name), 0, runs[r][`${name}s`].length - 1));
    return { r, g, m, f, run: runs[r] };
  };
  let changing = false;
  const go = (values) => {
    changing = true;
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
    changing = false;
    update();
  };
  const toRun = (r) => {
    const before = now();
    const run = runs[r];
    const named = run.groups.findIndex(({ name }) => name === before.run.groups[before.g].name);
    const epoch = run.moments.findIndex(({ epoch }) => epoch === before.run.moments[before.m].epoch);
    const ended = before.m === before.run.moments.length - 1;
    const below = run.folds.findIndex((one) => one.level < before.run.folds[before.f].level); // the same threshold
    const fold = below < 0 ? run.folds.length - 1 : Math.max(0, below - 1);
    go({ run: r, group: Math.max(0, named), moment: ended || epoch < 0 ? run.moments.length - 1 : epoch, fold });
  };

  const pickers = html(root, "div", "pa-pickers");
  const menu = (label, picked) => {
    const box = html(pickers, "label", "pa-picker", label);
    const select = set(html(box, "select"), { "aria-label": label, ...KEYS });
    select.addEventListener("change", () => picked(Number(select.value)));
    return (options, value) => {
      const key = JSON.stringify(options);
      if (select.dataset.key !== key) {
        select.replaceChildren();
        for (const [at, words] of options) set(html(select, "option", "", words), { value: at });
        select.dataset.key = key;
      }
      select.value = value;
    };
  };
  const networks = [...new Set(runs.map(({ network }) => network))];
  const of = (network) => runs.flatMap((run, r) => (run.network === network ? [r] : []));
  const chooseNetwork = menu("Network", (n) => {
    const { seed } = now().run;
    const found = of(networks[n]);
    toRun(found.find((r) => runs[r].seed === seed) ?? found[0]);
  });
  const chooseSeed = menu("Seed", toRun);
  const chooseStage = menu("Stage", (g) => go({ group: g }));

  const stats = html(root, "div", "pa-stats");
  const tile = (label, name = "") => {
    const box = html(stats, "div", `pa-stat ${name}`);
    const head = html(box, "div", "pa-label", label);
    return { label: head, big: html(box, "div", "pa-big"), small: html(box, "div", "pa-small") };
  };
  const tiles = { folded: tile("", "pa-is-folded"), again: tile("BatchNorm re-estimated", "pa-is-again"), layers: tile("Layers"), parameters: tile("Parameters") };

  const cost = html(root, "div", "pa-cost");
  const charts = html(root, "div", "pa-charts");
  const foot = html(root, "div", "pa-foot");

  const speak = voice(root);

  let built = null;
  const build = () => {
    const { r, run } = now();
    const narrow = root.clientWidth < 640;
    built?.epochs.stop();
    built?.thresholds.stop();
    cost.replaceChildren();
    charts.replaceChildren();
    const room = html(cost, "div", "pa-room");
    const pick = (f) => go({ fold: f });
    const thresholds = player(cost, {
      places: run.folds.map((one) => -one.level),
      label: "Threshold: layers at least this similar become one",
      what: ": fold further and further",
      get: () => now().f,
      go: pick,
    });
    const where = html(cost, "div", "pa-where");

    const left = html(charts, "div", "pa-chart");
    const matrixLabel = html(left, "div", "pa-label");
    const matrixRoom = html(left, "div", "pa-room");
    const scale = html(left, "div", "pa-scale");
    html(scale, "span", "", "similarity 0");
    set(html(scale, "span", "pa-ramp"), { "aria-hidden": true });
    html(scale, "span", "", "1 · in colour: one layer");
    const matrixSaid = set(html(left, "output", "pa-told"), { "aria-live": "polite" });
    const epochs = player(left, {
      places: run.moments.map(({ epoch }) => epoch),
      label: "Epoch of the matrix",
      what: ": the matrix while it trains",
      get: () => now().m,
      go: (m) => go({ moment: m }),
    });
    const epochWhere = html(left, "div", "pa-where");

    const right = html(charts, "div", "pa-chart");
    html(right, "div", "pa-label", "The network it folds into");
    const networkRoom = set(html(right, "div", "pa-network"), { role: "application", tabindex: 0, ...KEYS });
    const networkSaid = set(html(right, "output", "pa-told"), { "aria-live": "polite" });
    const none = html(right, "div", "pa-none");
    html(none, "p");
    const back = set(html(none, "button", "pa-back"), { type: "button" });
    back.addEventListener("click", () => go({ moment: run.moments.length - 1 }));

    const network = networkPlot(networkRoom, networkSaid, run, { stage: (group) => go({ group }) });
    const hot = (steps) => networkRoom.querySelectorAll("[data-box]").forEach((box) => {
      box.classList.toggle("pa-hot", box.dataset.steps.split(" ").some((at) => steps.includes(+at)));
    });
    const merge = (i, j) => {
      const { g, m } = now();
      const f = run.folds.findIndex((_, at) => {
        const kind = kinds(run, g, m, at);
        return kind[i] === kind[j];
      });
      if (i !== j && f >= 0) pick(f);
    };
    const matrix = () => {
      built.g = now().g;
      matrixRoom.replaceChildren();
      built.matrix = matrixPlot(matrixRoom, matrixSaid, run, built.g, narrow, { hot, merge });
    };
    built = { r, build: matrix, thresholds, epochs, where, epochWhere, matrixLabel, none, back, networkRoom, networkSaid, network, cost: costPlot(room, run, pick) };
    matrix();
    root.classList.toggle("pa-narrow", narrow);
  };

  const update = () => {
    if (changing || !root.clientWidth) return;
    const begun = performance.now();
    const { r, g, m, f, run } = now();
    if (built?.r !== r) build();
    else if (built.g !== g) built.build();
    const one = run.folds[f];
    const [whole] = run.folds;
    const end = run.moments.at(-1).epoch;
    const measured = m === run.moments.length - 1;
    const error = run.metric === "accuracy" ? "test error" : `test ${run.metric}`;
    const again = "score_bn" in one;

    meta.textContent = `${run.profile} profile · run ${run.run}`;
    chooseNetwork(networks.map((name, n) => [n, name]), networks.indexOf(run.network));
    const seeds = of(run.network);
    const twice = (seed) => seeds.filter((other) => runs[other].seed === seed).length > 1;
    chooseSeed(seeds.map((other) => [other, runs[other].seed + (twice(runs[other].seed) ? `, run ${runs[other].run}` : "")]), r);
    chooseStage(run.groups.map(({ name }, n) => [n, name]), g);

    built.cost(f);
    built.networkRoom.hidden = built.networkSaid.hidden = !measured;
    built.none.hidden = measured;
    if (measured) built.network(f, g);
    else {
      built.none.firstChild.textContent = `At epoch ${+run.moments[m].epoch} no fold was measured, only the matrix was kept. ` +
        `Folds were measured after the last epoch, ${end}.`;
      built.back.textContent = `Go to epoch ${end}`;
    }
    built.matrixLabel.textContent = `How similar the layers of ${run.groups[g].name} are, epoch ${run.moments[m].epoch}`;

    built.matrix(m, f); // after the network: a chosen cell marks its boxes

    const say = (score) => (measured ? shown(run, score) : "–");
    const nothing = `not measured at epoch ${run.moments[m].epoch}`;
    tiles.folded.label.textContent = `${error[0].toUpperCase()}${error.slice(1)}, as folded`;
    tiles.folded.big.textContent = say(one.score);
    tiles.folded.small.textContent = measured ? `unfolded ${shown(run, whole.score)}` : nothing;
    tiles.again.big.textContent = say(one.score_bn);
    tiles.again.small.textContent = !measured ? nothing : !again ? "not measured in this run"
      : "score_tuned" in one ? `fine-tuned ${shown(run, one.score_tuned)}` : `unfolded ${shown(run, whole.score_bn)}`;
    tiles.layers.big.textContent = measured ? one.layers : "–";
    tiles.layers.small.textContent = measured ? `of ${whole.layers}` : nothing;
    tiles.parameters.big.textContent = measured ? short(one.parameters) : "–";
    tiles.parameters.small.textContent = measured ? `of ${short(whole.parameters)}` : nothing;

    const threshold = f ? `Threshold ${level(one.level)}` : "Threshold 1, nothing folded";
    const scores = `${error} ${shown(run, one.score)} as folded` + (again ? `, ${shown(run, one.score_bn)} with BatchNorm re-estimated` : "");
    built.where.textContent = `${threshold}: layers at least this similar become one. Measured at epoch ${end}.`;
    const told = `${threshold}: ${many(one.layers, "layer")}, ${short(one.parameters)} parameters, ${scores}`;
    built.thresholds.show(told);
    speak(`${run.network}, seed ${run.seed}, ${run.groups[g].name}, epoch ${run.moments[m].epoch}. ` + (measured ? told : "No fold measured"));
    built.epochWhere.textContent = `Epoch ${run.moments[m].epoch} of ${end}`;
    built.epochs.show(`Epoch ${run.moments[m].epoch} of ${end}${measured ? "" : ", no fold measured"}`);
    foot.textContent = "Letters: layers that are one. Grey boxes, dots in the order: layers outside the sharing. Numbers on the paths: the order in " +
      "which they are taken; one below the boxes goes on from the path of its colour. Skip connections are not drawn and not counted.";
    Object.assign(root.dataset, { run: r, group: g, moment: m, fold: f });
    root.dataset.redrawMs = (performance.now() - begun).toFixed(3);
  };
  let width = 0;
  const observer = new ResizeObserver(() => {
    if (root.clientWidth === width || !root.clientWidth) return;
    width = root.clientWidth;
    root.classList.toggle("pa-narrow", width < 640); // before anything is measured
    build();
    update();
  });
  observer.observe(root);
  const heard = ["run", "group", "moment", "fold"].map((name) => `change:${name}`);
  for (const event of heard) model.on(event, update);
  return () => {
    built?.epochs.stop();
    built?.thresholds.stop();
    observer.disconnect();
    for (const event of heard) model.off(event, update);
  };
}

export default { initialize, render };
