// Chapters 3 to 6, at the end: recorded runs as points, the one nearest to the knobs marked; the reader's own points beside them.
const shown = (value, { scale }) => (scale === "share" ? percent(value) : value >= 1e4 ? Math.round(value).toLocaleString("en") : scientific(value));

function scatter(parent, state, narrow) {
  const label = `Recorded runs by ${state.x.label} and ${state.y.label}`;
  const p = plot(parent, narrow ? 224 : 264, [28, 16, 40, 52], { role: "img", "aria-label": label });
  const log = state.x.scale === "log";
  const place = (x) => (log ? Math.log10(x) : x);
  return (points, own, distances, nearest) => {
    p.frame.replaceChildren();
    const all = [...points, ...own];
    const span = (values, least) => {
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const room = Math.max((high - low) * 0.08, least);
      return [low - room, high + room];
    };
    const [left, right] = span(all.map((one) => place(one.x)), log ? 0.2 : Math.abs(all[0].x) * 0.02 || 0.02);
    const [bottom, top] = span(all.map((one) => one.y), 0.01);
    const x = (value) => ((place(value) - left) / (right - left)) * p.w;
    const y = (value) => p.h * (1 - (value - bottom) / (top - bottom));
    for (const at of ticks(bottom, top, 4)) {
      rule(p, 0, y(at), p.w, y(at), "pa-grid");
      text(p, -7, y(at) + 4, percent(at), "end");
    }
    rule(p, 0, p.h, p.w, p.h, "pa-axis");
    for (const at of ticks(left, right, narrow ? 4 : 6)) {
      if (log && at % 1) continue;
      text(p, ((at - left) / (right - left)) * p.w, p.h + 17, log ? power(10 ** at) : shown(at, state.x));
    }
    text(p, p.w / 2, p.h + 35, state.x.label);
    text(p, -48, -16, state.y.label, "start");
    points.forEach((one, i) => {
      const near = i === nearest;
      const ink = near ? 1 : 0.25 + 0.6 * Math.exp(-2 * distances[i]); // the nearer to the knobs, the more
      svg(p.frame, "circle", { cx: px(x(one.x)), cy: px(y(one.y)), r: near ? 6 : 4.5, opacity: ink.toFixed(3), class: near ? "pa-dot pa-near" : "pa-dot" });
    });
    for (const one of own) {
      const [cx, cy] = [x(one.x), y(one.y)];
      svg(p.frame, "path", { d: `M${px(cx)} ${px(cy - 8)}l8 8l-8 8l-8 -8z`, class: "pa-own" });
      text(p, cx, cy - 12, "yours");
    }
    p.outer.setAttribute("aria-label", `${label}: ${points.length} recorded${own.length ? `, ${own.length} of your own` : ""}`);
  };
}

function render({ model, el }) {
  const state = model.get("state");
  el.classList.add("pa-host");
  const root = set(html(el, "div", "pa-figure pa-knobs"), { role: "group", "aria-label": model.get("alt") });
  const head = html(root, "div", "pa-head");
  html(head, "div", "pa-title", state.title);
  const { knobs, points } = state;
  const board = html(root, "div", "pa-board");
  const share = (knob, value) => {
    const scale = knob.log ? Math.log10 : (one) => one;
    return (scale(value) - scale(knob.low)) / (scale(knob.high) - scale(knob.low));
  };
  const value = (knob, at) => {
    const found = knob.log ? 10 ** (Math.log10(knob.low) + at * (Math.log10(knob.high) - Math.log10(knob.low))) : knob.low + at * (knob.high - knob.low);
    return knob.whole ? Math.round(found) : +found.toPrecision(3);
  };
  const turn = (n, to) => {
    const settings = [...model.get("settings")];
    settings[n] = clamp(to, knobs[n].low, knobs[n].high);
    model.set("settings", settings);
    model.save_changes();
  };
  const sliders = model.get("live") ? [] : knobs.map((knob, n) => {
    const box = html(board, "div", "pa-knob");
    const words = html(box, "div", "pa-label");
    const slider = set(html(box, "input", "pa-slider"), { type: "range", min: 0, max: 1, step: "any", "aria-label": knob.label, ...KEYS });
    slider.addEventListener("input", () => turn(n, value(knob, Number(slider.value))));
    slider.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const at = share(knob, model.get("settings")[n]);
      turn(n, knob.whole ? model.get("settings")[n] + step : value(knob, clamp(at + step / 20, 0, 1)));
    });
    return { slider, words };
  });
  const room = html(root, "div", "pa-room");
  const said = html(root, "div", "pa-said");
  html(root, "div", "pa-foot", model.get("live") ? "" : "Without a kernel nothing trains here: the page shows what was recorded. In JupyterLab the same place trains with your settings.");
  const speak = voice(root);
  const far = (one) => Math.hypot(...knobs.map((knob, n) => share(knob, one.values[n]) - share(knob, model.get("settings")[n])));
  let draw = null;
  const update = () => {
    if (!draw) return;
    const begun = performance.now();
    const settings = model.get("settings");
    sliders.forEach(({ slider, words }, n) => {
      words.textContent = `${knobs[n].label} = ${scientific(settings[n])}`;
      slider.value = share(knobs[n], settings[n]);
      slider.style.setProperty("--pa-done", slider.value);
      slider.setAttribute("aria-valuetext", scientific(settings[n]));
    });
    const distances = points.map(far);
    const nearest = distances.indexOf(Math.min(...distances));
    draw(points, model.get("own"), distances, nearest);
    const one = points[nearest];
    const where = knobs.map((knob, n) => `${knob.label} ${scientific(one.values[n])}`).join(", ");
    const exact = distances[nearest] < 1e-6;
    said.textContent = `${exact ? "Recorded with these settings" : "The nearest recorded run"}: ${where}: ${state.x.label} ${shown(one.x, state.x)}, ` +
      `${state.y.label} ${percent(one.y)} (run ${one.run}).`;
    speak(`${knobs.map((knob, n) => `${knob.label} ${scientific(settings[n])}`).join(", ")}. ${said.textContent}`);
    root.dataset.redrawMs = (performance.now() - begun).toFixed(3);
  };
  let width = 0;
  const observer = new ResizeObserver(() => {
    if (root.clientWidth === width || !root.clientWidth) return;
    width = root.clientWidth;
    root.classList.toggle("pa-narrow", width < 600);
    room.replaceChildren();
    draw = scatter(room, state, width < 600);
    update();
  });
  observer.observe(root);
  const events = ["change:settings", "change:own"];
  for (const event of events) model.on(event, update);
  return () => {
    observer.disconnect();
    for (const event of events) model.off(event, update);
  };
}

export default { initialize, render };
