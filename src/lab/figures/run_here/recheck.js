// Re-check in the browser: a network on the embedded test images, and the count of right answers against its record.
const CONFIDENCE = 0.999;

// The central interval of the binomial distribution, as lab.runs.recheck.interval has it.
function interval(share, n) {
  const chances = new Float64Array(n + 1);
  let choose = 0;
  for (let k = 0; k <= n; k++) {
    const logs = (k ? k * Math.log(share) : 0) + (n - k ? (n - k) * Math.log(1 - share) : 0);
    chances[k] = Math.exp(choose + logs);
    choose += Math.log((n - k) / (k + 1));
  }
  const tail = (1 - CONFIDENCE) / 2;
  let [sum, low, high] = [0, 0, 0];
  for (const chance of chances) {
    sum += chance;
    if (sum <= tail) low++;
    if (sum < 1 - tail) high++;
  }
  return [low, Math.min(n, high)];
}

const best = (scores) => scores.indexOf(Math.max(...scores));

function recheckView(parent, root, { state, nets, get, load, ask, zeros, say }) {
  const box = html(parent, "section", "pa-recheck");
  html(box, "div", "pa-label", `Do not believe the record: count on ${state.sheet.count.toLocaleString("en")} test images`);
  const line = html(box, "div", "pa-drops");
  const pick = dropdown(line, "network", (at) => get().go({ network: Number(at) }));
  const button = set(html(line, "button", "pa-button"), { type: "button" });
  const bar = set(html(line, "progress"), { max: state.sheet.count, value: 0, "aria-label": "Images evaluated" });
  const said = html(box, "output", "pa-tell");
  let images = null;
  let running = null;

  const size = (bytes) => (bytes / 1e6).toFixed(1) + GAP + "MB";
  const show = () => {
    const { network } = get();
    pick(nets.map((net, i) => [String(i), net.title]), String(network));
    const more = (images ? 0 : state.sheet.bytes) + (nets[network].state === "ready" ? 0 : nets[network].load);
    button.textContent = running ? "Stop" : "Re-check" + (more ? ` (loads ${size(more)})` : "");
  };
  const verdict = (net, answers, ms) => {
    const right = answers.reduce((sum, answer, i) => sum + (String(answer) === state.sheet.labels[i]), 0);
    const n = answers.length;
    const [low, high] = interval(net.accuracy, n);
    const agrees = right >= low && right <= high;
    return `${net.title}: ${right.toLocaleString("en")} of ${n.toLocaleString("en")} right, ${percent(right / n)}. Its record says ` +
      `${percent(net.accuracy)} on 10,000; of so many images 99.9${GAP}% of all draws lie in [${percent(low / n)}, ${percent(high / n)}]: ` +
      `it ${agrees ? "agrees" : "DISAGREES"}. ${(ms / 1000).toFixed(1)}${GAP}s, ${three(ms / n)}${GAP}ms an image.`;
  };
  const start = async () => {
    const { network } = get();
    const net = nets[network];
    const turn = (running = {});
    delete root.dataset.rechecked;
    said.textContent = "Loading …";
    show();
    images ??= await readSheet(await load(state.sheet.name), state.sheet);
    await net.ready();
    const begun = performance.now();
    const answers = [];
    let drawn = 0;
    while (answers.length < images.length && running === turn) {
      const { scores } = await ask({ do: "answer", name: net.name, pixels: images[answers.length], dense: zeros() });
      answers.push(best(scores));
      if (performance.now() - drawn < 100 && answers.length < images.length) continue;
      drawn = performance.now();
      bar.value = answers.length;
      said.textContent = `${net.title}: ${answers.length.toLocaleString("en")} images …`;
    }
    if (answers.length) said.textContent = (running === turn ? "" : "Stopped. ") + verdict(net, answers, performance.now() - begun);
    say(said.textContent);
    root.dataset.rechecked = answers.join("");
  };
  button.addEventListener("click", async () => {
    if (running) {
      running = null;
      said.textContent = "Stopping …";
      return show();
    }
    try {
      await start();
    } catch (error) {
      said.textContent = `The re-check did not run: ${error.message}`;
      say(said.textContent);
    }
    running = null;
    show();
    get().after();
  });
  return { show };
}
