"""Run it here, in a real browser, from a file: the shipped networks' scores are PyTorch's; pick, drop, switch, look
inside, re-check and stop, by mouse and by keyboard; and what is wrong is one line while the rest works."""

import base64
import copy
import io
import json
import random
import zlib

import numpy as np
import pytest
import torch
from page_tools import opened
from PIL import Image
from torch import nn

from browser.test_every_widget import HELPERS
from browser.test_six_figures import FOREIGN, OUTSIDE, WORDS
from lab.datasets import load
from lab.figures.run_here import state as run_here
from lab.figures.run_here import widget
from lab.figures.run_here.program import program
from lab.figures.run_here.widget import HERE, RunHereWidget
from lab.figures.widget import module
from lab.models import wrn
from lab.runs import recheck
from principled.files import container, save
from principled.files import load as load_file

pytestmark = pytest.mark.browser
SHIPPED = [network.name for network in run_here.shipped()]
SMALLEST = SHIPPED[-1]
ENGINE = module(*widget.ENGINE, folder=HERE)
RUN = """async ({ file, steps, images, shape, dense }) => {
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const drain = (work) => { let step; do step = work.next(); while (!step.done); return step.value; };
  const { about, tensors } = drain(Decoder().decode(await unwrap(bytes(file))));
  const engine = Engine();
  const network = drain(engine.compile(steps, tensors, shape));
  const flat = new Float32Array(bytes(images).buffer);
  const size = shape[0] * shape[1] * shape[2];
  const scores = [];
  for (let i = 0; i < flat.length; i += size) {
    scores.push([...drain(engine.run(network, Float64Array.from(flat.subarray(i, i + size)), dense))]);
  }
  return { about, scores, sums: [...tensors].map(([name, { data }]) => [name, data.reduce((a, b) => a + b, 0)]) };
}"""


def text64(data):
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def bench(browser):
    """A page that holds the engine, and nothing else."""
    page = browser.new_page()
    page.add_script_tag(content=ENGINE)
    yield page
    page.close()


def computed(page, path, steps, images, dense=False):
    """What the page's engine makes of a packed file and of images (N, C, H, W)."""
    data = text64(images.numpy().tobytes())
    given = {"file": text64(path.read_bytes()), "steps": steps, "images": data, "shape": list(images.shape[1:])}
    return page.evaluate(RUN, given | {"dense": dense})


def shipped(name):
    """A shipped network in PyTorch, and the test images as it takes them."""
    (network,) = [each for each in run_here.shipped() if each.name == name]
    mean, std = (torch.tensor(json.loads(network.about[key])).view(3, 1, 1) for key in ("mean", "std"))
    net = load_file(network.path, recheck.network(network.about["model"], 10)).eval()
    return network, net, (load("cifar10-mini", "test").images.float() / 255 - mean) / std


@pytest.mark.parametrize("name", SHIPPED)
def test_the_scores_of_a_shipped_network_are_pytorchs(bench, name):
    network, net, images = shipped(name)
    images = images[:24]
    with torch.no_grad():
        wanted = net(images)
    for dense in (False, True):
        found = torch.tensor(computed(bench, network.path, program(net), images, dense)["scores"])
        assert (found - wanted).abs().max() < 1e-3
        assert torch.equal(found.argmax(1), wanted.argmax(1))


NETS = {**{name: lambda name=name: recheck.network(name, 10) for name in recheck.NETWORKS}, "wrn": lambda: wrn(10, 1)}


@pytest.mark.parametrize("name", NETS)
def test_other_networks_give_pytorchs_scores_too(bench, tmp_path, name):
    torch.manual_seed(0)
    net, images = NETS[name](), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        net.train()(torch.randn(16, 3, 32, 32))  # running statistics of its own
        for parameter in net.parameters():
            if parameter.ndim > 1:
                parameter.masked_fill_(torch.rand_like(parameter) < 0.7, 0)
        wanted = net.eval()(images)
    save(tmp_path / "net", net, meta={"model": name})
    found = computed(bench, tmp_path / "net", program(net), images)
    assert found["about"] == {"model": name}
    assert (torch.tensor(found["scores"]) - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.mark.parametrize("values", ["float32", "bfloat16", "int8"])
def test_a_file_is_decoded_to_what_python_reads(bench, tmp_path, values):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 7, 3, padding=1), nn.BatchNorm2d(7), nn.Flatten(), nn.Linear(7 * 16, 5))
    twin = nn.Linear(7 * 16, 5, bias=False)
    twin.weight = net[3].weight
    net.add_module("twin", twin)  # a second name of one tensor
    save(tmp_path / "net", net, values=values)
    steps = [{"do": "flatten", "of": [0]}]
    sums = dict(computed(bench, tmp_path / "net", steps, torch.zeros(1, 3, 4, 4))["sums"])
    state = load_file(tmp_path / "net")
    assert set(sums) == set(state)
    for name, tensor in state.items():
        assert sums[name] == pytest.approx(float(tensor.double().sum()), rel=1e-5, abs=1e-5)


# -- the figure --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """The scripts that a built page finds beside it."""
    folder = tmp_path_factory.mktemp("scripts")
    for name, content in run_here.scripts():
        (folder / name.rpartition("/")[2]).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def state():
    return run_here.run_state(title="Run it here")


@pytest.fixture
def beside(tmp_path, scripts):
    """The folder of scripts beside the page, for a test that damages one."""
    folder = tmp_path / "_static/run-here"
    folder.mkdir(parents=True)
    for file in scripts.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


@pytest.fixture
def show(browser, tmp_path, beside):
    with opened(browser, tmp_path) as show:
        yield show


def answered(page, what):
    page.wait_for_selector(f".pa-run[data-answered='{what}']")


def column(page, index):
    """What the table says of a network: label to text."""
    rows = page.locator(".pa-answers tbody tr").evaluate_all(
        "(rows, i) => rows.map((row) => [row.cells[0].textContent, row.cells[i + 1].textContent])", index
    )
    return {label: text.replace("\u202f", " ") for label, text in rows}


def seen(state, name, place):
    """The class and its probability that PyTorch gives for a test image."""
    _, net, images = shipped(name)
    with torch.no_grad():
        shares = net(images[place : place + 1]).softmax(1)[0]
    return state["classes"][int(shares.argmax())], f"{100 * float(shares.max()):.0f} %"


def small(state, *names):
    """The state with these networks alone."""
    return state | {"networks": [network for network in state["networks"] if network["name"] in names]}


def test_nothing_is_loaded_before_the_reader_asks_and_its_size_is_stated(show, state):
    page = show(RunHereWidget(state))
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    assert page.locator(".pa-verdict").inner_text().startswith("Nothing has been computed yet.")
    button = page.get_by_role("button", name="Let them answer")
    total = sum(network["load"] for network in state["networks"])
    assert f"(loads {total / 1e6:.2f}\u202fMB)" in button.inner_text()
    assert asked == []
    button.click()
    answered(page, "0-false")
    assert sorted(url.rpartition("/")[2] for url in asked if url.startswith("file:")) == sorted(
        f"{n}.js" for n in SHIPPED
    )
    for i, network in enumerate(state["networks"]):
        name, share = seen(state, network["name"], state["pictures"]["places"][0])
        told = column(page, i)
        assert (told["sees"], told[name]) == (name, share)
        assert told["time here"].endswith(" ms")
        assert told["zeros too"].endswith(" ms")


def test_pick_by_keyboard_switch_and_look_inside(show, state):
    page = show(RunHereWidget(small(state, SMALLEST)))
    page.get_by_role("radio", name="airplane").first.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    answered(page, "4-false")
    name, share = seen(state, SMALLEST, state["pictures"]["places"][4])
    assert column(page, 0)[name] == share
    truth = state["classes"][state["pictures"]["labels"][4]]
    voice = page.locator(".pa-run > output.pa-unseen")
    page.wait_for_function(
        "(words) => document.querySelector('.pa-unseen').textContent.includes(words)", arg=f"says {name}."
    )
    assert f"It is an {truth}." in voice.inner_text()
    page.get_by_role("checkbox", name="multiply the zeros too").focus()
    page.keyboard.press("Space")
    answered(page, "4-true")
    assert column(page, 0)[name] == share
    page.get_by_role("group", name="Multiplications of each layer").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".pa-inside[data-shown='0-1']")
    _, net, _ = shipped(SMALLEST)
    weight = net.blocks[0].conv1.weight
    kept = int((weight != 0).sum())
    assert (
        page.locator(".pa-inside .pa-tell")
        .inner_text()
        .startswith(f"blocks.0.conv1: 16 × 16 × 3 × 3, {kept:,} of {weight.numel():,} weights kept")
    )
    painted = (
        page.locator(".pa-view canvas")
        .nth(1)
        .evaluate(
            "(e) => { const all = e.getContext('2d').getImageData(0, 0, e.width, e.height).data;"
            " return all.filter((value, i) => i % 4 === 3 && value > 0).length; }"
        )
    )
    assert painted == kept


def picture(kind, size=(32, 32), mode="RGB", pixels=None, **options):
    stream = io.BytesIO()
    rng = np.random.default_rng(0)
    shape = (size[1], size[0], len(mode))
    Image.fromarray(rng.integers(0, 256, shape, np.uint8) if pixels is None else pixels, mode).save(
        stream, kind, **options
    )
    return stream.getvalue()


def drop(page, name, kind, data):
    page.evaluate(
        """([name, type, data]) => {
          const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], name, { type }));
          const event = new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true });
          document.querySelector('.pa-run').dispatchEvent(event);
        }""",
        [name, kind, text64(data)],
    )


def test_a_picture_of_the_readers_own_is_seen_as_it_is(show, state):
    page = show(RunHereWidget(small(state, SMALLEST)))
    place = 17
    pixels = load("cifar10-mini", "test").images[place].permute(1, 2, 0).numpy()
    drop(page, "mine.png", "image/png", picture("PNG", pixels=pixels))
    answered(page, "own-false")
    name, share = seen(state, SMALLEST, place)
    assert column(page, 0)[name] == share
    assert page.locator(".pa-shown .pa-small").inner_text() == "your own picture, at 32 × 32 pixels"
    page.locator("input[type=file]").set_input_files(
        {"name": "wide.jpg", "mimeType": "image/jpeg", "buffer": picture("JPEG", (700, 300))}
    )
    page.wait_for_function(
        "document.querySelector('.pa-shown .pa-small').textContent.endsWith('middle square was taken')"
    )
    answered(page, "own-false")
    page.get_by_role("radio").first.click()
    answered(page, "0-false")


ANIMATED = picture("GIF", append_images=[Image.new("RGB", (32, 32))], save_all=True, loop=0, duration=50)
LARGE = picture("PNG", (9000, 9000), pixels=np.zeros((9000, 9000), np.uint8), mode="L")


@pytest.mark.parametrize(
    ("name", "kind", "data", "says"),
    [
        ("notes.txt", "text/plain", b"words", "notes.txt is no picture (text/plain)"),
        ("odd.png", "image/png", b"no picture at all", "odd.png is no picture that this browser can read"),
        ("none.png", "image/png", b"", "none.png is empty"),
        ("vast.png", "image/png", LARGE, "vast.png has 9000 × 9000 pixels: choose one below 60 million"),
        ("moves.gif", "image/gif", ANIMATED, "it moves, and its first frame was taken"),
        ("glass.png", "image/png", picture("PNG", mode="RGBA"), "it is transparent in places, and was laid on white"),
    ],
)
def test_a_file_that_is_no_plain_picture_is_one_line(show, state, name, kind, data, says):
    page = show(RunHereWidget(small(state, SMALLEST)))
    drop(page, name, kind, data)
    page.wait_for_function("(says) => document.querySelector('.pa-run').innerText.includes(says)", arg=says)
    page.get_by_role("radio").nth(2).click()  # and the rest works
    answered(page, "2-false")
    assert page.locator(".pa-trouble").inner_text() == ""


def test_a_damaged_network_is_one_line_and_the_others_answer(show, state, beside):
    damaged = beside / f"{SHIPPED[1]}.js"
    text = damaged.read_text()
    damaged.unlink()
    middle = len(text) // 2
    damaged.write_text(text[:middle] + ("A" if text[middle] != "A" else "B") + text[middle + 1 :])
    page = show(RunHereWidget(small(state, SHIPPED[1], SMALLEST)))
    page.get_by_role("button", name="Let them answer").click()
    answered(page, "0-false")
    title = small(state, SHIPPED[1])["networks"][0]["title"]
    assert (
        page.locator(".pa-trouble").inner_text() == f"{title} could not be read: it was altered: its digest is another."
    )
    assert column(page, 0)["sees"] == "–"
    assert column(page, 1)["sees"] in state["classes"]


def test_without_its_files_the_figure_says_where_they_are(browser, tmp_path, state):
    figure = RunHereWidget(small(state, SMALLEST))
    (tmp_path / "alone.html").write_text(f'<!doctype html><meta charset="utf-8">{figure.static_html()}', "utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "alone.html").as_uri())
    page.get_by_role("button", name="Let them answer").click()
    page.wait_for_selector(".pa-trouble:not(:empty)")
    assert (
        "its file is not beside this page: open the built book, or run this cell"
        in page.locator(".pa-trouble").inner_text()
    )
    page.close()


PAUSES = """async () => {
  const Channel = MessageChannel;
  let [clock, pauses] = [0, 0];
  performance.now = () => clock;
  globalThis.MessageChannel = class extends Channel { constructor() { super(); pauses++; } };
  const ask = inSlices(function* (request) { clock += 1; yield; return request; });
  for (let i = 0; i < 100; i++) await ask(i);
  delete performance.now;
  globalThis.MessageChannel = Channel;
  return pauses;
}"""


def test_requests_that_are_too_short_to_pause_share_a_slice(bench):
    """A hundred requests of 1 ms each, on the test's own clock: slices end after 8 ms, or the page stands still."""
    assert 8 <= bench.evaluate(PAUSES) <= 20


NO_WORKER = "delete globalThis.Worker"
FORBIDDEN = """globalThis.Worker = class {
  constructor() { setTimeout(() => this.onerror({ preventDefault() {}, message: 'refused' })); }
  postMessage() {}
  terminate() {}
}"""


@pytest.mark.parametrize("script", [NO_WORKER, FORBIDDEN])
def test_without_a_worker_the_page_computes_between_its_frames(browser, tmp_path, beside, state, script):
    figure = RunHereWidget(small(state, SMALLEST))
    (tmp_path / "page.html").write_text(f'<!doctype html><meta charset="utf-8">{figure.static_html()}', "utf-8")
    page = browser.new_page()
    page.add_init_script(script)
    page.goto((tmp_path / "page.html").as_uri())
    page.get_by_role("button", name="Let them answer").click()
    answered(page, "0-false")
    assert "it gives no worker" in page.locator(".pa-meta").inner_text()
    name, share = seen(state, SMALLEST, state["pictures"]["places"][0])
    assert column(page, 0)[name] == share
    page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_can_be_read(show, state, width, theme):
    page = show(RunHereWidget(state), theme=theme, width=width)
    page.get_by_role("button", name="Let them answer").click()
    answered(page, "0-false")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate(HELPERS)
    contrasts = page.evaluate("pa.contrasts", page.query_selector(".pa-figure"))
    assert len(contrasts) > 40
    assert [words for words in contrasts if words[0] < 4.5] == []
    assert page.evaluate(OUTSIDE) == []


@pytest.mark.parametrize("word", WORDS)
def test_words_stay_words(show, state, word):
    harmful = copy.deepcopy(small(state, SMALLEST)) | {"title": word, "classes": [f"{word} {i}" for i in range(10)]}
    harmful["networks"][0]["title"] = word
    page = show(RunHereWidget(harmful))
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.get_by_role("button", name="Let them answer").click()
    answered(page, "0-false")
    assert page.locator(".pa-title").inner_text() == word
    assert page.evaluate(FOREIGN) == []
    assert dialogs == []


def test_without_scripts_the_numbers_are_there(browser, tmp_path, state):
    figure = RunHereWidget(state)
    (tmp_path / "still.html").write_text(f'<meta charset="utf-8">{figure.static_html()}', encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((tmp_path / "still.html").as_uri())
    assert page.get_by_text(figure.alt).is_visible()
    page.get_by_text("Its numbers").click()
    assert page.get_by_role("row").count() == len(figure.table(figure.state))
    context.close()


# -- re-check ----------------------------------------------------------------------------------------------------------


def test_the_re_check_gives_pythons_answers_image_by_image_and_can_be_stopped(show, state):
    page = show(RunHereWidget(small(state, SMALLEST)))
    button = page.get_by_role("button", name="Re-check")
    assert (
        f"(loads {(state['sheet']['bytes'] + state['networks'][-1]['load']) / 1e6:.1f}\u202fMB)" in button.inner_text()
    )
    button.focus()
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.pa-recheck progress').value > 0")
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector("[data-rechecked]")
    stopped = page.locator(".pa-run").get_attribute("data-rechecked")
    assert 0 < len(stopped) <= 1000
    assert page.locator(".pa-recheck .pa-tell").inner_text().startswith("Stopped." if len(stopped) < 1000 else "MP")
    page.get_by_role("button", name="Re-check").click()
    page.wait_for_function("document.querySelector('.pa-run').dataset.rechecked?.length === 1000")
    answers = [int(digit) for digit in page.locator(".pa-run").get_attribute("data-rechecked")]
    assert answers[: len(stopped)] == [int(digit) for digit in stopped]
    network, net, images = shipped(SMALLEST)
    with torch.no_grad():
        scores = torch.cat([net(part) for part in images.split(100)])
    first, second = scores.topk(2).values.unbind(1)
    clear = first - second > 1e-3
    assert clear.sum() > 990
    assert torch.equal(torch.tensor(answers)[clear], scores.argmax(1)[clear])
    labels = load("cifar10-mini", "test").labels
    right, recorded = int((torch.tensor(answers) == labels).sum()), network.record["figures"]["accuracy"]
    low, high = recheck.interval(recorded, 1000)
    said = page.locator(".pa-recheck .pa-tell").inner_text().replace("\u202f", " ")
    assert f"{right} of 1,000 right, {right / 10:.1f} %." in said
    assert (
        f"lie in [{low / 10:.1f} %, {high / 10:.1f} %]: it {'agrees' if low <= right <= high else 'DISAGREES'}." in said
    )


def test_the_interval_is_the_one_of_recheck(browser):
    page = browser.new_page()
    page.add_script_tag(content=module("recheck.js", folder=HERE))
    for share in (0.6999, 0.8345, 0.8727, 0.5, 0.99):
        for n in (1, 37, 500, 1000):
            assert page.evaluate("([share, n]) => interval(share, n)", [share, n]) == list(recheck.interval(share, n))
    page.close()


# -- bytes that mean harm ----------------------------------------------------------------------------------------------


def sealed(header, words, raw):
    return container.seal(zlib.compress(json.dumps(header).encode()), words, raw)


def corpus(path):
    """Files whose digest is right and whose content is not: numbers of the header grown, parts cut or turned."""
    whole = container.read_container(path)
    header, raw = json.loads(whole.header), whole.raw + whole.blob
    dice = random.Random(0)
    for _ in range(120):
        words = bytearray(whole.words)
        for _bit in range(3):
            words[dice.randrange(len(words))] ^= 1 << dice.randrange(8)
        yield sealed(header, bytes(words), raw)
        changed = json.dumps(header)
        at = [i for i, letter in enumerate(changed) if letter.isdigit()]
        place = dice.choice(at)
        digits = dice.choice(["0", "9", "99999", "4194304", "-1", "1e9", "null", "[]"])
        try:
            yield sealed(json.loads(changed[:place] + digits + changed[place + 1 :]), whole.words, raw)
        except ValueError:
            continue  # no JSON any more
        yield sealed(header, whole.words[: 4 * dice.randrange(len(words) // 4)], raw[: dice.randrange(len(raw))])
    yield sealed({"meta": {}, "tables": [], "tensors": [["w", "float32", [2**40], "float", {}]], "blob": 0}, b"", b"")
    bomb = zlib.compress(bytes(2**28))
    yield container.seal(bomb, b"", b"")
    yield sealed(
        {"meta": {}, "tables": [], "tensors": [["w", "float32", [4], "bytes", {}]], "blob": len(bomb)}, b"", bomb
    )


def test_hostile_bytes_end_in_a_line(bench, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 4))
    save(tmp_path / "net", net)
    files = [text64(data) for data in corpus(tmp_path / "net")]
    assert len(files) > 300
    ends = bench.evaluate(
        """async (files) => {
          const ends = [];
          for (const file of files) {
            try {
              const bytes = Uint8Array.from(atob(file), (letter) => letter.charCodeAt(0));
              const work = Decoder().decode(await unwrap(bytes));
              let pauses = 0;
              while (!work.next().done) pauses++;
              ends.push(pauses);
            } catch (error) {
              ends.push(String(error.message));
            }
          }
          return ends;
        }""",
        files,
    )
    assert len(ends) == len(files)
    refused = [end for end in ends if isinstance(end, str)]
    assert len(refused) > 0.6 * len(files)
    assert ends[-2] == ends[-1] == "it claims to be larger than this page reads"
