"""A live figure in JupyterLab: it moves with its kernel, and it is there when the saved notebook is opened without
it."""

import json
import os
import re
import subprocess
import sys

import nbformat
import pytest

from lab.book.pages import ROOT

from .test_annealing import figure

pytestmark = pytest.mark.browser
VIEW, STATE = "application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"
LAYOUT = {"model_module": "@jupyter-widgets/base", "model_module_version": "2.0.0", "model_name": "LayoutModel"}


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab that knows nothing of who uses this machine, and its folder of notebooks."""
    home, folder = tmp_path / "home", tmp_path / "notebooks"
    folder.mkdir()
    names = ["CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR", "LAB_SETTINGS_DIR", "LAB_WORKSPACES_DIR"]
    environment = {f"JUPYTER{'' if name.startswith('LAB') else '_'}{name}": str(home / name) for name in names}
    environment |= {"IPYTHONDIR": str(home), "PYTHONPATH": str(ROOT / "src")}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", f"--ServerApp.root_dir={folder}"]
    options += ["--IdentityProvider.token="]
    log = tmp_path / "log"
    with log.open("w") as output:
        command = [sys.executable, "-m", "jupyterlab", *options]
        server = subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output)
    try:
        while not (address := re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())):
            with pytest.raises(subprocess.TimeoutExpired):  # it has not ended
                server.wait(0.1)
        yield address[0], folder
    finally:
        server.kill()  # asked politely it may wait for a kernel for ever; a kernel whose server is gone ends itself
        server.wait()


def test_a_figure_is_there_with_its_kernel_and_without_it_when_the_notebook_is_opened_again(browser, lab):
    address, folder = lab
    file = folder / "live.ipynb"
    make = (
        "import json\nfrom lab.figures.annealing.widget import AnnealingWidget\nfigure = "
        "AnnealingWidget(json.loads(state))\nfigure"
    )
    code = f"state = {json.dumps(figure().state)!r}\n{make}", "figure.position"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in code])
    notebook.metadata |= {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    other = {"other": LAYOUT | {"state": {}}}  # of a widget that is not ours
    notebook.metadata["widgets"] = {STATE: {"version_major": 2, "version_minor": 0, "state": other}}
    nbformat.write(notebook, file)

    def opened():
        page = browser.new_page(viewport={"width": 1300, "height": 1400})
        page.goto(f"{address}lab/tree/live.ipynb?reset")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell .cm-content")
        return page

    def run(page, number):
        """Run a cell; the number of an execution is shown when it has ended."""
        prompts = page.locator(".jp-CodeCell .jp-InputPrompt")
        before = prompts.nth(number).inner_text()
        page.wait_for_selector("text=/\\| Idle$/")
        page.locator(".jp-CodeCell .cm-content").nth(number).click()
        page.keyboard.press("Control+Enter")
        page.wait_for_function(
            "([n, old]) => ![old, '[*]:'].includes(document.querySelectorAll('.jp-CodeCell "
            ".jp-InputPrompt')[n].innerText)",
            arg=[number, before],
        )

    def shut_down(page):
        page.click(".lm-MenuBar-itemLabel:text-is('Kernel')")
        page.click(".lm-Menu-itemLabel:text-is('Shut Down Kernel')")
        page.wait_for_selector("text=/\\| Idle$/", state="detached")

    def drawn(page):
        """The figure stands there; a cell that failed or a model that is missing ends the wait too."""
        ends = ".pa-annealing svg, .jp-OutputArea-output[data-mime-type*='stderr'], :text('model not found')"
        page.wait_for_selector(ends, state="attached")
        assert page.locator(".jp-OutputArea .pa-annealing").count() == 1, page.locator(".jp-Notebook").inner_text()

    def pressed(page, *keys):
        page.get_by_role("slider").focus()
        for key in keys:
            page.keyboard.press(key)
        return int(page.locator(".pa-annealing").get_attribute("data-position"))

    def saved(page):
        """The id of the figure's model in the saved notebook, and its state; all else that is kept is what it must
        be."""
        with page.expect_response(lambda r: r.request.method == "PUT" and "/api/contents/live.ipynb" in r.url):
            page.keyboard.press("Control+s")
        notebook = nbformat.read(file, as_version=4)
        view = notebook.cells[0].outputs[0].data[VIEW]["model_id"]
        states = notebook.metadata.widgets[STATE]["state"]
        assert set(states) == {"other", view, states[view]["state"]["layout"].removeprefix("IPY_MODEL_")}
        return view, states[view]["state"]

    page = opened()
    run(page, 0)
    run(page, 0)  # the first model is shown no more
    drawn(page)
    assert pressed(page, "Home", "ArrowRight") == 1
    run(page, 1)
    assert page.locator(".jp-OutputArea-output").last.inner_text() == "1"
    first, state = saved(page)
    assert state["position"] == 1
    run(page, 0)
    shut_down(page)
    second, _ = saved(page)
    assert second != first

    page = opened()
    drawn(page)
    assert pressed(page, "Home", "ArrowRight", "ArrowRight") == 2
    run(page, 1)  # by a new kernel, which knows of no figure
    assert "NameError" in page.locator(".jp-OutputArea-output").last.inner_text()
    assert saved(page)[0] == second
    shut_down(page)


def executed(browser, lab, name, code):
    """A page of JupyterLab in which a notebook of one cell, ``code``, has been started."""
    address, folder = lab
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    notebook.metadata |= {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(notebook, folder / f"{name}.ipynb")
    page = browser.new_page(viewport={"width": 1300, "height": 1400})
    page.goto(f"{address}lab/tree/{name}.ipynb?reset")
    page.wait_for_selector("text=/\\| Idle$/")
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Control+Enter")
    return page


def test_networks_come_from_the_kernel_when_they_are_asked_for(browser, lab):
    code = (
        "from lab.figures.run_here.widget import RunHereWidget\nfigure = RunHereWidget.of_shipped(['gmp'], title='t')\n"
        "figure"
    )
    page = executed(browser, lab, "run", code)
    page.get_by_role("button", name="Let them answer").click()
    page.wait_for_selector(".pa-run[data-answered='0-false'], .pa-trouble:not(:empty)")
    assert page.locator(".pa-trouble").inner_text() == ""
    assert page.locator(".pa-verdict").inner_text().startswith("GMP says ")
    page.get_by_role("radio", name="airplane").first.focus()
    page.keyboard.press("ArrowRight")  # which the notebook does not take for its cells
    page.wait_for_selector(".pa-run[data-answered='1-false']")
    page.close()


def test_the_knobs_train_in_the_kernel_and_the_readers_point_appears(browser, lab):
    code = (
        "import json\nfrom lab.experiments.optimizers import knobs\nfrom lab.figures.knobs import panel\n"
        "from lab.utils.files import ROOT\npanel.MOST_SECONDS = 1e9\n"  # however busy this machine is
        "lines = (ROOT / 'data/quick/grids.jsonl').read_text('utf-8').splitlines()\n"
        "knobs.panel([line.get('record', line) for line in map(json.loads, lines)])"
    )
    page = executed(browser, lab, "knobs", code)
    page.get_by_role("button", name="Train with these").click()
    page.wait_for_selector(".pa-knobs .pa-own")
    assert page.get_by_text("your own point").is_visible()
    assert page.locator(".jp-OutputArea input[type=text]").input_value().startswith("AvaGrad(net.parameters(), lr=")
    page.close()
