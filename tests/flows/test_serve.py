"""`candist serve` as a person has it: the command, the form in a real browser, a click, the artifacts, Ctrl-C.

`CANDIST_SCREENSHOTS=docs` writes the pictures of `docs/deployments.md`.
"""

import os
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import psutil
import pytest

from candist_core.stages.versions import load
from tests.browser import browser as browser
from tests.flows.corpora import demo_config, write_config
from tests.flows.operated import Api, wait_for

pytestmark = [pytest.mark.flow, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
N = 120


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The process, its address, and the folder in which its form publishes."""
    folder = tmp_path_factory.mktemp("served")
    config = write_config(folder, demo_config(folder, n=N, epochs=1))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "serve", str(config), "--port", "0", "--home", str(folder / "home")],
        cwd=ROOT,
        env=kept | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    said = []
    while not said or "Ctrl-C" not in said[-1]:
        said.append(process.stdout.readline())
        assert said[-1], said
    page = next(line.split()[-1] for line in said if line.startswith("Prefect UI")).removesuffix("/deployments")
    yield process, page, folder
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def keep(page, name, height=860):
    """A picture of the upper part of the page for the docs, where they are wanted."""
    if folder := os.environ.get("CANDIST_SCREENSHOTS"):
        from PIL import Image

        shot = page.screenshot(animations="disabled", clip={"x": 0, "y": 0, "width": 1200, "height": height})
        Image.open(BytesIO(shot)).quantize(48).save(Path(folder) / f"ui-{name}.png", optimize=True)


def field(page, title):
    """The first input under a title of the form."""
    header = f".p-label__header .schema-form-property__label:text-is('{title}')"
    return page.locator(f".schema-form-property:has(> {header})").locator("textarea, input").first


def test_a_form_filled_in_the_browser_and_a_click_label_the_corpus(served, browser):
    _, address, folder = served
    api = Api(f"{address}/api")
    context = browser.new_context(viewport={"width": 1200, "height": 860}, color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{address}/deployments")
    page.locator(f"a[href='/deployments/deployment/{api.deployment('label-corpus')['id']}']").wait_for()
    keep(page, "deployments")
    page.goto(f"{address}/deployments/deployment/{api.deployment('label-corpus')['id']}/run")
    field(page, "Name").fill("not a name!")
    page.get_by_role("button", name="Submit").click()
    page.get_by_text("Validation failed for field 'config.name'").first.wait_for()
    assert api.call("/flow_runs/count", {}) == 0, "a wrong value starts nothing"
    field(page, "Name").fill("from-the-form")
    field(page, "Name").evaluate("element => element.scrollIntoView({block: 'center'})")
    keep(page, "form")
    page.get_by_role("button", name="Submit").click()
    (run,) = wait_for(lambda: api.call("/flow_runs/filter", {}), 60, "run")
    page.goto(f"{address}/runs/flow-run/{run['id']}")
    wait_for(lambda: api.state(run["id"]) != "Running" or "annotate:" in str(api.logs(run["id"])), 120, "progress")
    page.get_by_text("ingest: 120 rows").first.wait_for()
    keep(page, "run")
    api.wait_for_state(run["id"], "Completed", within_s=200)
    page.reload()
    page.get_by_text("from-the-form@1").first.wait_for()
    page.get_by_role("tab", name="Artifacts").or_(page.get_by_text("Artifacts", exact=True)).first.click()
    for key in ("summary", "checks-labels", "report", "set-sizes", "progress-annotate"):
        page.get_by_text(key, exact=True).first.wait_for()
    keep(page, "artifacts")
    artifacts = api.artifacts(run["id"])
    assert "120 texts" in artifacts["summary"]["data"]
    assert "texts, " in artifacts["progress-annotate"]["description"]
    page.goto(f"{address}/artifacts/artifact/{artifacts['summary']['id']}")
    page.get_by_text("120 texts, 120 labelled").first.wait_for()
    keep(page, "summary", height=805)
    page.goto(f"{address}/artifacts/artifact/{artifacts['set-sizes']['id']}")
    page.wait_for_function("[...document.images].some(image => image.src.startsWith('data:') && image.naturalWidth)")
    context.close()
    assert load(str(folder / "published" / "from-the-form")).collect().height == N


def test_a_second_server_on_its_port_is_refused_with_one_sentence(served, tmp_path):
    _, address, folder = served
    port = address.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "serve", str(folder / "candist.yaml"), "--port", port],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip() == f"candist: port {port}: found one that is taken, wanted a free one; name another " + (
        "with --port"
    )


def test_ctrl_c_ends_server_worker_and_all_that_they_started(served):
    process, _, _ = served
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 2
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert said.endswith("ended; what runs have paid for is kept\n")
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
