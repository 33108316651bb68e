// What the moving figures share. Not a module: base.py joins it in front of a figure's own file.
const NS = "http://www.w3.org/2000/svg";
const GAP = "\u202f"; // narrow no-break space, as in 51.0 %
const KEYS = { "data-lm-suppress-shortcuts": "true" }; // or JupyterLab takes the arrow keys for its cells
const MOMENT_MS = 450; // how long play stays on a moment

const html = (parent, tag, name = "", text = "") => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.textContent = text; // never markup: titles and names come from data
  return parent.appendChild(node);
};
const set = (node, attributes) => {
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};
const svg = (parent, tag, attributes = {}, text = "") => {
  const node = set(document.createElementNS(NS, tag), attributes);
  if (text) node.textContent = text;
  return parent.appendChild(node);
};
const percent = (share) => (100 * share).toFixed(1) + GAP + "%";
const three = (number) => (number < 1000 ? number.toPrecision(3) : number.toFixed(0));
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const px = (number) => number.toFixed(1);
const line = (points) => "M" + points.map(([x, y]) => `${px(x)} ${px(y)}`).join("L");
const signed = (number) => String(number).replace("-", "\u2212");

function ticks(low, high, most) {
  const raw = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= raw) * power;
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(6)));
}

// Speaks what a figure shows to those who do not see it: once the reader's hand rests, not at every moment of a film.
const REST_MS = 600; // longer than play stays on a moment
function voice(root) {
  const said = set(html(root, "output", "pa-unseen"), { "aria-live": "polite" });
  let words = null;
  let later = 0;
  return (next) => {
    if (words === null) said.textContent = next; // nothing has changed yet: there to be read, not announced
    else if (words !== next) {
      clearTimeout(later);
      later = setTimeout(() => (said.textContent = words), REST_MS);
    }
    words = next;
  };
}

// A number of a log axis: a power of ten as such, another as it is read most easily.
const power = (number) => {
  const exponent = Math.round(Math.log10(number));
  if (Math.abs(number / 10 ** exponent - 1) > 1e-6) return scientific(number);
  return exponent >= -2 && exponent <= 3 ? String(+number.toPrecision(3)) : `10${raised(exponent)}`;
};
const raised = (exponent) => [...String(exponent)].map((sign) => (sign === "-" ? "\u207b" : "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[sign])).join("");
const scientific = (number) => {
  if (!number || (Math.abs(number) >= 1e-3 && Math.abs(number) < 1e4)) return signed(+number.toPrecision(3));
  const [digits, exponent] = number.toExponential(1).split("e").map(Number);
  return (digits === 1 ? "" : signed(digits) + "\u00b7") + `10${raised(exponent)}`;
};

// A labelled menu; the function that it gives back sets its options [value, words] and the chosen one.
function dropdown(parent, label, picked) {
  const box = html(parent, "label", "pa-drop", label);
  const select = set(html(box, "select"), { "aria-label": label, ...KEYS }); // or its options would be part of its name
  select.addEventListener("change", () => picked(select.value));
  return (options, value) => {
    const key = JSON.stringify(options);
    if (select.dataset.key !== key) {
      select.replaceChildren();
      for (const [at, words] of options) set(html(select, "option", "", words), { value: at });
      select.dataset.key = key;
    }
    select.value = value;
  };
}

// One of several: buttons of which one is pressed; arrow keys go along. What leaves no choice is not offered.
function choice(parent, label, names, get, go) {
  if (names.length < 2) return () => {};
  const group = set(html(parent, "div", "pa-choice"), { role: "radiogroup", "aria-label": label });
  const buttons = names.map((name, i) => {
    const button = set(html(group, "button", "", name), { type: "button", role: "radio", ...KEYS });
    button.addEventListener("click", () => go(i));
    return button;
  });
  group.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = (get() + step + names.length) % names.length;
    go(next);
    buttons[next].focus();
  });
  return () =>
    buttons.forEach((button, i) => set(button, { "aria-checked": i === get(), tabindex: i === get() ? 0 : -1 }));
}

// A plot: an svg as wide as its parent, with the margins [top, right, bottom, left] around the inner part.
function plot(parent, height, [top, right, bottom, left], attributes) {
  const width = Math.max(240, parent.clientWidth);
  const outer = svg(parent, "svg", { width, height, viewBox: `0 0 ${width} ${height}`, ...attributes });
  const w = width - left - right;
  const h = height - top - bottom;
  const frame = svg(outer, "g", { transform: `translate(${left} ${top})` });
  return { outer, frame, w, h, width, left };
}
const text = (p, x, y, words, anchor = "middle", name = "") =>
  svg(p.frame, "text", { x: px(x), y: px(y), "text-anchor": anchor, class: name }, words);
const rule = (p, x1, y1, x2, y2, name) => svg(p.frame, "line", { x1, y1, x2, y2, class: name });

// A play button and a slider over recorded moments that stand at `places` (rising; the thumb snaps to them).
// `get` reads the present moment's index, `go` asks for another; `what` tells two players of a figure apart.
function player(parent, { places, label, get, go, what = "", ms = MOMENT_MS }) {
  const count = places.length;
  const share = (i) => (places[i] - places[0]) / (places[count - 1] - places[0]);
  const control = html(parent, "div", "pa-control");
  const button = set(html(control, "button", "pa-play"), { type: "button" });
  const icon = svg(svg(button, "svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": true }), "path");
  const range = { type: "range", min: 0, max: 1, step: "any", "aria-label": label };
  const slider = set(html(control, "input", "pa-slider"), { ...range, ...KEYS });
  let timer = null;
  const play = (on) => {
    clearInterval(timer);
    timer = on ? setInterval(step, ms) : null;
    icon.setAttribute("d", on ? "M4 3h3v10H4zM9 3h3v10H9z" : "M5 2.8v10.4L13 8z");
    button.setAttribute("aria-label", (on ? "Pause" : "Play") + what);
  };
  const step = () => {
    if (get() < count - 1) go(get() + 1);
    if (get() === count - 1) play(false);
  };
  const pick = (i) => {
    play(false);
    go(i);
  };
  button.addEventListener("click", () => {
    if (!timer && get() === count - 1) go(0);
    play(!timer);
  });
  slider.addEventListener("input", () => {
    const far = places.map((_, i) => Math.abs(share(i) - slider.value));
    pick(far.indexOf(Math.min(...far)));
    slider.value = share(get());
  });
  const keys = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 3, PageDown: -3, Home: -count, End: count };
  slider.addEventListener("keydown", (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault(); // a key goes to the next moment, however far that is
    pick(clamp(get() + keys[event.key], 0, count - 1));
  });
  play(false);
  const show = (said) => {
    slider.value = share(get());
    slider.style.setProperty("--pa-done", share(get()));
    slider.setAttribute("aria-valuetext", said);
  };
  return { pick, show, stop: () => play(false) };
}

// JupyterLab saves a notebook without its widgets' state: opened later, its kernel gone, it would show "model not found". So the
// state of each figure that a notebook shows goes into its metadata, where JupyterLab looks for it. Other hosts have no context.
const VIEW = "application/vnd.jupyter.widget-view+json";
const STATE = "application/vnd.jupyter.widget-state+json";
const isFigure = (entry) => entry?.model_module === "anywidget" && "alt" in entry.state;
const parts = (id, entry) => [id, entry.state.layout?.replace("IPY_MODEL_", "")]; // the model and its layout's
function initialize({ model }) {
  const manager = model.widget_manager;
  const context = manager?.context;
  if (!context?.saveState || !context.model?.setMetadata) return;
  const live = () => manager.get_state_sync({ drop_defaults: true }).state; // empty once the kernel is gone
  if (manager.figures) return void Object.assign(manager.figures, live()); // of each manager one figure listens
  manager.figures = live();
  context.saveState.connect((_, phase) => {
    if (phase !== "started") return;
    const state = { ...context.model.getMetadata("widgets")?.[STATE]?.state }; // other widgets' stays
    const known = Object.assign({ ...state }, manager.figures, live());
    for (const [id, entry] of Object.entries(state)) if (isFigure(entry)) for (const part of parts(id, entry)) delete state[part];
    for (const cell of context.model.toJSON().cells) {
      for (const { data } of cell.outputs ?? []) {
        const id = data?.[VIEW]?.model_id;
        if (isFigure(known[id])) for (const part of parts(id, known[id])) state[part] = known[part];
      }
    }
    if (!Object.keys(state).length) context.model.deleteMetadata("widgets");
    else context.model.setMetadata("widgets", { [STATE]: { version_major: 2, version_minor: 0, state } });
  });
}
