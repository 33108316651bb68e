// Start page, Chapters 4, 5 and 7: shipped networks answer in this browser. What computes is in engine.js; this file shows it.
const size = (bytes) => (bytes >= 1e6 ? (bytes / 1e6).toFixed(2) + GAP + "MB" : Math.round(bytes / 1e3) + GAP + "kB");
const time = (ms) => (ms === null ? "\u2013" : (ms < 10 ? ms.toFixed(1) : ms.toFixed(0)) + GAP + "ms");
const softmax = (scores) => {
  const most = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((one) => one / sum);
};
const AGAIN = 5; // times that an answer is computed for its time, the median

// The table of answers: a column for each network, a row for each thing that is said of it.
function answerTable(parent, state, nets) {
  const table = html(parent, "table", "pa-answers");
  const head = html(html(table, "thead"), "tr");
  html(head, "td");
  const most = Math.max(...nets.map((net) => net.bytes));
  const states = nets.map((net) => {
    const cell = set(html(head, "th"), { scope: "col" });
    const stage = html(cell, "div", "pa-stage");
    html(stage, "i", "pa-square").style.setProperty("--side", Math.sqrt(net.bytes / most)); // areas are as the bytes
    html(cell, "div", "pa-label", net.title);
    html(cell, "div", "pa-small", net.bits === null ? (net.zeros ? `${percent(net.zeros)} zeros` : "no zeros") : `${net.bits.toFixed(2)} bits a weight`);
    return html(cell, "div", "pa-small pa-state");
  });
  const body = html(table, "tbody");
  const row = (label, name = "", title = "") => {
    const line = html(body, "tr", name);
    const th = set(html(line, "th", "", label), { scope: "row" });
    if (title) th.title = title;
    return nets.map(() => html(line, "td"));
  };
  const rows = {
    file: row("file"),
    work: row("multiplies", "", "for one picture, without those by zero"),
    time: row("time here", "", `for one picture in this browser, the median of ${AGAIN}`),
    dense: row("zeros too", "", "the same loop, which multiplies the zeros too"),
    says: row("sees", "pa-says"),
  };
  const classes = state.classes.map((name) => row(name, "pa-class"));
  return ({ truth, zeros }) => {
    nets.forEach((net, n) => {
      states[n].textContent = { asleep: "", loading: "loading \u2026", ready: "", failed: "not readable" }[net.state];
      rows.file[n].textContent = size(net.bytes);
      rows.work[n].textContent = net.layers ? millions(net.work) : "\u2013";
      rows.time[n].textContent = time(net.ms.sparse);
      rows.dense[n].textContent = time(net.ms.dense);
      rows.time[n].classList.toggle("pa-now", !zeros);
      rows.dense[n].classList.toggle("pa-now", zeros);
      const shares = net.shares;
      const top = shares && best(shares);
      rows.says[n].textContent = shares ? state.classes[top] : "\u2013";
      rows.says[n].classList.toggle("pa-wrong", Boolean(shares) && truth !== null && top !== truth);
      classes.forEach((cells, c) => {
        cells[n].textContent = shares && shares[c] >= 0.005 ? Math.round(100 * shares[c]) + GAP + "%" : "";
        cells[n].style.setProperty("--share", shares ? shares[c] : 0);
        cells[n].classList.toggle("pa-top", Boolean(shares) && c === top);
      });
    });
    classes.forEach((cells, c) => cells[0].parentElement.classList.toggle("pa-true", c === truth));
  };
}

function render({ model, el }) {
  const state = model.get("state");
  const { pictures, classes } = state;
  el.classList.add("pa-host");
  const root = set(html(el, "div", "pa-figure pa-run"), { role: "group", "aria-label": model.get("alt") });
  const room = engineRoom();
  const bytesOf = pantry(model);
  const save = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const nets = state.networks.map((net) => ({ ...net, state: "asleep", layers: null, work: 0, shares: null, ms: { sparse: null, dense: null } }));
  const smallestFirst = [...nets].sort((a, b) => a.bytes - b.bytes);
  const total = nets.reduce((sum, net) => sum + net.load, 0);
  let images = null; // planes of the test images to pick from
  let own = null; // the reader's picture, while it is the one that is shown
  let turn = 0;

  // -- what stands there --

  const head = html(root, "div", "pa-head");
  html(head, "div", "pa-title", state.title);
  const meta = html(head, "div", "pa-meta");
  const desk = html(root, "div", "pa-desk");
  const shown = html(desk, "div", "pa-shown");
  const large = set(html(shown, "canvas", "pa-large"), { role: "img" });
  const caption = html(shown, "div", "pa-small");
  const shelf = html(desk, "div", "pa-shelf");
  html(shelf, "div", "pa-label", "Pick a picture, or drop one of your own on this figure");
  const names = pictures.labels.map((label, i) => `test image ${pictures.places[i] + 1}, ${classes[label]}`);
  const markPicture = choice(shelf, "Test images", names, () => model.get("picture"), (i) => pick(i));
  const thumbs = [...shelf.querySelectorAll(".pa-choice button")].map((button, i) => {
    set(button, { "aria-label": names[i], title: names[i] }).textContent = "";
    return set(html(button, "canvas"), { "aria-hidden": true });
  });
  const tools = html(shelf, "div", "pa-drops");
  const chooser = set(html(tools, "input"), { type: "file", accept: "image/*", hidden: true, tabindex: -1 });
  const runButton = set(html(tools, "button", "pa-button pa-first"), { type: "button" });
  const ownButton = set(html(tools, "button", "pa-button", "A picture of your own\u2026"), { type: "button" });
  const toggle = html(tools, "label", "pa-drop");
  const box = set(html(toggle, "input"), { type: "checkbox", ...KEYS });
  toggle.append(" multiply the zeros too");
  const trouble = set(html(root, "output", "pa-trouble"), { "aria-live": "assertive" });
  const draw = answerTable(html(root, "div", "pa-tablebox"), state, nets);
  const verdict = html(root, "p", "pa-verdict");
  const speak = voice(root);
  const complain = (words) => (trouble.textContent = words);

  // -- networks --

  const wake = (net) => {
    net.waking ??= (async () => {
      net.state = "loading";
      show();
      try {
        const file = await unwrap(await bytesOf(net.name));
        if (file.size !== net.bytes) throw new Error("it is another file than the page tells of");
        const { layers } = await room.ask({ do: "load", name: net.name, file, program: state.programs[net.model] });
        Object.assign(net, { layers, work: layers.reduce((sum, one) => sum + one.kept * one.positions, 0), state: "ready" });
      } catch (error) {
        net.state = "failed";
        net.waking = null; // another press tries again
        throw new Error(`${net.title} could not be read: ${error.message}.`);
      } finally {
        show();
      }
    })();
    return net.waking;
  };
  for (const net of nets) net.ready = () => wake(net);

  // -- answers --

  const pixels = () => own?.pixels ?? images?.[model.get("picture")];
  const truth = () => (own ? null : pictures.labels[model.get("picture")]);
  const answer = async (net, dense, repeats, mine) => {
    const { scores, ms } = await room.ask({ do: "answer", name: net.name, pixels: pixels(), dense, repeats });
    if (mine !== turn) return false;
    net.shares = softmax(scores);
    net.scores = scores;
    if (repeats > 1) net.ms[dense ? "dense" : "sparse"] = ms;
    return true;
  };
  const run = async () => {
    const mine = ++turn;
    complain("");
    delete root.dataset.answered;
    const dense = model.get("zeros");
    for (const net of nets) net.shares = null;
    show();
    try {
      await ready;
    } catch (error) {
      return complain(`The test images cannot be shown: ${error.message}.`);
    }
    const passes = [[dense, 1], [dense, AGAIN], [!dense, AGAIN]]; // the answer, its time, and the other loop's time
    const failed = new Set();
    for (const [loop, repeats] of passes) {
      for (const net of smallestFirst) {
        if (failed.has(net) || (loop !== dense && net.ms[loop ? "dense" : "sparse"] !== null)) continue;
        try {
          await wake(net);
          if (mine !== turn) return;
          if (!(await answer(net, loop, repeats, mine))) return;
        } catch (error) {
          if (mine !== turn) return;
          failed.add(net);
          complain(error.message);
        }
        show();
      }
      if (repeats === 1) inside?.update(room.ask).catch((error) => complain(error.message));
    }
    root.dataset.answered = `${own ? "own" : model.get("picture")}-${dense}`;
  };
  const awake = () => nets.some((net) => net.state !== "asleep");
  const pick = (i) => {
    own = null;
    turn++;
    save({ picture: i });
    run();
  };
  const take = async (file) => {
    complain("");
    try {
      own = await readOwn(file);
      run();
    } catch (error) {
      complain(error.message);
      speak(error.message);
    }
  };

  // -- words --

  const told = () => {
    const answered = nets.filter((net) => net.shares);
    if (!answered.length) return "";
    const seen = new Map();
    for (const net of answered) {
      const name = classes[best(net.shares)];
      seen.set(name, [...(seen.get(name) ?? []), net.title]);
    }
    const is = truth() === null ? "" : ` It is ${/^[aeiou]/.test(classes[truth()]) ? "an" : "a"} ${classes[truth()]}.`;
    if (seen.size === 1) return `${answered.length > 1 ? "All" : answered[0].title} say${answered.length > 1 ? "" : "s"} ${[...seen.keys()][0]}.${is}`;
    return `They disagree: ${[...seen].map(([name, who]) => `${name} (${who.join(", ")})`).join("; ")}.${is}`;
  };
  const show = () => {
    markPicture();
    if (own) for (const thumb of thumbs) set(thumb.parentElement, { "aria-checked": false });
    box.checked = model.get("zeros");
    const picture = pixels();
    if (picture) paint(large, picture);
    const what = own ? ["your own picture, at 32 \u00d7 32 pixels", ...own.remarks].join("; ") : names[model.get("picture")];
    large.setAttribute("aria-label", `The picture that the networks see: ${what}`);
    caption.textContent = what;
    runButton.hidden = awake();
    runButton.textContent = `Let them answer (loads ${size(total)})`;
    draw({ truth: truth(), zeros: model.get("zeros") });
    verdict.textContent = told() || (nets.some((net) => net.state === "failed") ? "No answer yet." : awake() ? "Reading \u2026" : `Nothing has been computed yet. The ${nets.length} files come from beside this page; your picture stays in it.`);
    verdict.classList.toggle("pa-split", /disagree/.test(verdict.textContent));
    meta.textContent = room.worker ? "computed in this browser" : "computed in this browser, between its frames: it gives no worker";
    speak(`${what}. ${model.get("zeros") ? "Zeros are multiplied too. " : ""}${verdict.textContent}`);
    root.dataset.drawn = `${own ? "own" : model.get("picture")}-${model.get("zeros")}`;
    redrawInside();
    recheck?.show();
  };

  // -- further down --

  const look = () => ({ network: model.get("network"), layer: model.get("layer") });
  const inside = state.inside ? insideView(root, root, { nets, get: look, set: (values) => save(values) }) : null;
  const recheck = state.inside
    ? recheckView(root, root, {
        state, nets, load: bytesOf, ask: room.ask, zeros: () => model.get("zeros"), say: speak,
        get: () => ({ ...look(), go: save, after: () => awake() && run() }),
      })
    : null;
  let drawnInside = "";
  const redrawInside = () => {
    const net = nets[model.get("network")];
    const key = `${model.get("network")}-${net.state}-${width}`;
    if (!inside || !width || drawnInside === key) return;
    drawnInside = key;
    inside.redraw(root.clientWidth < 600);
  };
  let width = 0;
  const looked = () => {
    redrawInside();
    recheck?.show();
    const net = nets[model.get("network")];
    speak(net.layers ? `${net.title}, layer ${model.get("layer") + 1} of ${net.layers.length}` : `${net.title}: not loaded`);
    inside?.update(room.ask).catch((error) => complain(error.message));
  };

  // -- what the reader does --

  ownButton.addEventListener("click", () => {
    speak("Choose a picture from your files.");
    chooser.click();
  });
  chooser.addEventListener("change", () => {
    if (chooser.files.length) take(chooser.files[0]);
    chooser.value = "";
  });
  runButton.addEventListener("click", run);
  box.addEventListener("change", () => {
    save({ zeros: box.checked });
    if (awake()) run();
    else show();
  });
  root.addEventListener("dragover", (event) => {
    event.preventDefault();
    root.classList.add("pa-over");
  });
  root.addEventListener("dragleave", (event) => root.contains(event.relatedTarget) || root.classList.remove("pa-over"));
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    root.classList.remove("pa-over");
    take(event.dataTransfer.files[0]);
  });

  const ready = unpackPictures(pictures).then((planes) => {
    images = planes;
    planes.forEach((one, i) => paint(thumbs[i], one));
  });
  ready.then(show, (error) => complain(`The test images cannot be shown: ${error.message}.`));
  const observer = new ResizeObserver(() => {
    if (root.clientWidth === width || !root.clientWidth) return;
    width = root.clientWidth;
    root.classList.toggle("pa-narrow", width < 600);
    show();
  });
  observer.observe(root);
  const mode = new MutationObserver(() => {
    drawnInside = "";
    show();
  });
  mode.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
  const seen = ["change:picture", "change:zeros"];
  const lookedAt = ["change:network", "change:layer"];
  for (const event of seen) model.on(event, show);
  for (const event of lookedAt) model.on(event, looked);
  return () => {
    observer.disconnect();
    mode.disconnect();
    room.close();
    for (const event of seen) model.off(event, show);
    for (const event of lookedAt) model.off(event, looked);
  };
}

const unpackPictures = async (pictures) => readSheet(unpack64(pictures.webp), pictures);

export default { initialize, render };
