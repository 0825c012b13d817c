"""The report in a real Chromium: what it shows, what it never runs, and that it asks for nothing."""

import re
from pathlib import Path

import pytest

from candist_core.edges.report.page import Page
from candist_core.edges.report.plots import audited_confidences
from candist_core.edges.report.svg import INKS, draw
from candist_core.reports import GoldDetails
from tests.browser import browser as browser
from tests.core.injections import INJECTIONS
from tests.published_rows import NAMES, check, frame, manifest_of, many_rows, quality, row, share, with_gold

EVIL = (
    "</script><script>window.ran=1</script><img src=x onerror=window.ran=1>\"'><svg onload=window.ran=1>"
    "{{ 7*7 }}{% x %}"
)
OVERRIDE = "\u202egnp.exe\u2066"
CSS = Path(__file__).parents[2] / "candist_core" / "edges" / "report" / "page.css"


class Opened:
    """A report opened as a file, with all that it asked for and complained of."""

    def __init__(self, browser, folder, html, **options):
        path = folder / "report.html"
        path.write_bytes(html)
        self.requests, self.complaints = [], []
        self.context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | options))
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())
        self.url = path.as_uri()

    @property
    def texts(self):
        """Texts of the rows that are to be seen, from the top."""
        return self.page.locator("table.doubtful tbody tr:visible td.text p").all_inner_texts()

    def value(self, script):
        return self.page.evaluate(script)


@pytest.fixture
def opened(browser, tmp_path):
    made = []

    def show(html, **options):
        made.append(Opened(browser, tmp_path, html, **options))
        return made[-1]

    yield show
    for one in made:
        one.context.close()


def render(rows, *, is_published=True, **changes):
    manifest = manifest_of(**changes)
    page = Page(manifest.spec)
    for part in rows.iter_slices(1000):
        page.add(part)
    return page.render(manifest, is_published=is_published)


FULL = {
    "metrics": with_gold(share(0.95, 0.93, 0.97)),
    "quality": quality(("identical_sets", "warn"), ("capacity", "note"), ("class_collapse", "stop")),
    "checks": [check("rates", True), check("agreement", False, "warn")],
}


# what it shows


@pytest.mark.slow
def test_the_answer_stands_first_and_the_figures_are_the_versions(opened):
    page = opened(render(many_rows(200), metrics=with_gold(share(0.95, 0.9, 0.99)))).page
    body = page.inner_text("main")
    assert page.inner_text("h1") == "mails"
    assert body.index("You may use it") < body.index("What to do next") < body.index("Findings")
    assert page.locator("figure svg").count() == 5
    assert page.inner_text("table.classes tbody tr:first-child th").startswith("outage")


@pytest.mark.slow
def test_every_finding_shows_evidence_consequence_and_remedy_and_its_weight_in_words(opened):
    page = opened(render(many_rows(50), **FULL)).page
    found = page.locator("ul.findings").first.inner_text()
    assert re.findall(r"Evidence of (\w+)", found) == ["class_collapse", "identical_sets", "capacity"]
    assert all(word in found for word in ("Stop", "Warning", "Note", "Labels are bent.", "Ask another teacher."))
    assert "Observed 0.4, wanted at most 0.1" in page.inner_text("#checks")
    assert "Do not use it yet." in page.inner_text(".verdict")


@pytest.mark.slow
def test_a_version_without_gold_shows_no_figure_that_needs_it(opened):
    page = opened(render(many_rows(50, has_gold=False))).page
    assert page.locator("figure svg").count() == 2
    body = page.inner_text("body")
    assert "estimated, not measured" in body
    assert "precision" not in body
    assert "a person says" not in body


@pytest.mark.slow
@pytest.mark.parametrize("rows", [frame(), frame(row("1")), frame(row("1", confidence=0.1, candidates=[]))])
def test_versions_of_no_row_or_one_have_a_page(opened, rows):
    shown = opened(render(rows))
    assert shown.page.inner_text("h1") == "mails"
    assert shown.complaints == []


@pytest.mark.slow
def test_an_audit_measures_a_version_whose_rows_have_no_gold(opened):
    details = {
        "coverage_by_size": {}, "coverage_by_label": [], "teacher_by_label": [], "recall": [], "precision": [],
        "confusion": [{"gold": "outage", "label": "outage", "n": 7}, {"gold": "outage", "label": "billing", "n": 3}],
        "risk_coverage": [{"confidence": 0.9, "kept": 0.5, "risk": 0}, {"confidence": 0.6, "kept": 1, "risk": 0.3}],
        "reliability": [], "calibration_error": 0.1,
    }  # fmt: skip
    audit = with_gold(share(1.0, 0.6, 1.0, n=5))["gold"] | {"final_accuracy": share(0.7, 0.4, 0.9, n=10)}
    metrics = manifest_of().metrics.model_dump(mode="json") | {"audit": audit | {"details": details}}
    page = opened(render(many_rows(50, has_gold=False), metrics=metrics)).page
    assert page.locator("figure svg").count() == 5
    body = page.inner_text("body")
    assert "of the 5 that a person labelled, 100.0 % are right" in body
    assert "Have a person label" not in body
    assert "Of all texts 70.0 % are right" in body


def test_texts_of_an_audit_are_counted_back_from_their_risk_curve():
    points = [(0.9, 0.5, 0.0), (0.6, 0.8, 0.25), (0.4, 1.0, 0.3)]
    curve = [{"confidence": bound, "kept": kept, "risk": risk} for bound, kept, risk in points]
    nothing = {name: () for name in ("coverage_by_label", "teacher_by_label", "recall", "precision", "confusion")}
    details = GoldDetails(coverage_by_size={}, reliability=(), calibration_error=0, risk_coverage=curve, **nothing)
    counted = audited_confidences(details, 10).select("bin", "n_gold", "n_right")
    # Of 10 texts 5 lie at 0.9, all right; 3 at 0.6, 2 of them wrong; 2 at 0.4, 1 of them wrong.
    assert counted.rows() == [(899, 5, 5), (599, 3, 1), (399, 2, 1)]


# what it never does


@pytest.mark.slow
def test_opening_it_asks_for_nothing_and_complains_of_nothing(opened):
    shown = opened(render(many_rows(300), **FULL))
    shown.page.wait_for_load_state("networkidle")
    assert shown.requests == [shown.url]
    assert shown.complaints == []


@pytest.mark.slow
def test_no_text_of_a_corpus_is_run_or_read_as_markup(opened):
    # A table holds no half of a surrogate pair; ingest has turned those into rejects.
    texts = [EVIL, *(one.text.encode("utf-8", "replace").decode() for one in INJECTIONS)]
    rows = frame(
        *(row(f"{EVIL}{i}", text, EVIL, 0.5, reason=EVIL, gold=EVIL, source="agreed") for i, text in enumerate(texts))
    )
    evil_quality = quality((EVIL, "warn")) | {"confusable": [{"first": EVIL, "second": EVIL, "n": 1, "lift": 1.0}]}
    shown = opened(
        render(
            rows,
            spec={"instruction": EVIL, "labels": [{"name": EVIL, "description": EVIL}, {"name": "other"}]},
            config={"publish": {"uri": EVIL}, "teacher": {"kind": EVIL, "model": EVIL}},
            source_files=[{"uri": EVIL, "size_bytes": 1, "etag": EVIL}],
            checks=[check(EVIL, False), check(EVIL, True)],
            quality=evil_quality,
            run_id=EVIL,
        )
    )
    assert shown.value("window.ran") is None
    assert shown.complaints == []
    assert shown.requests == [shown.url]
    assert shown.value("[document.scripts.length, document.images.length]") == [1, 0]
    assert (
        shown.value("[...document.querySelectorAll('*')].some(e => [...e.attributes].some(a => /^on/.test(a.name)))")
        is False
    )
    assert any(EVIL in text for text in shown.texts)
    assert "49" not in " ".join(shown.texts)


@pytest.mark.slow
def test_a_script_that_got_in_would_not_run(opened):
    shown = opened(render(many_rows(20)))
    shown.value(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    shown.value("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')")
    shown.page.wait_for_timeout(100)
    assert shown.value("window.ran") is None
    assert any("Content Security Policy" in text for text in shown.complaints)


def test_bidi_overrides_and_controls_are_seen_and_do_not_act():
    html = render(frame(row("1", f"pay {OVERRIDE}\x1b[2J now", confidence=0.5))).decode()
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x1b]", html)
    assert "pay \ufffdgnp.exe\ufffd\ufffd[2J now" in html


# filter and sort


@pytest.mark.slow
def test_rows_are_filtered_by_words_label_and_reason_and_counted_aloud(opened):
    rows = frame(
        row("1", "the router is dead", "outage", 0.5),
        row("2", "router too dear", "billing", 0.6, reason="student and teacher disagree"),
        row("3", "calls to Poland", "roaming", 0.7),
    )
    shown = opened(render(rows))
    shown.page.locator("input[name=search]").fill("ROUTER")
    assert shown.texts == ["the router is dead", "router too dear"]
    assert shown.page.inner_text("output") == "2 texts"
    shown.page.locator("select[name=label]").select_option("billing")
    assert shown.texts == ["router too dear"]
    assert shown.page.inner_text("output") == "1 text"
    shown.page.locator("select[name=reason]").select_option("low confidence")
    assert shown.texts == []
    assert shown.page.locator("p.empty").is_visible()
    shown.page.get_by_role("button", name="Clear").click()
    # A form tells of its reset before its fields are empty, so the page filters a moment later.
    shown.page.locator("p.empty").wait_for(state="hidden")
    assert len(shown.texts) == 3
    assert shown.complaints == []


@pytest.mark.slow
def test_headings_sort_by_keyboard_and_say_so(opened):
    rows = frame(*(row(str(i), text, "outage", 0.5 + i / 10) for i, text in enumerate("bca")))
    shown = opened(render(rows))
    assert shown.texts == ["b", "c", "a"]
    shown.page.locator("table.doubtful thead button").first.focus()
    shown.page.keyboard.press("Enter")
    assert shown.texts == ["a", "b", "c"]
    head = shown.page.locator("table.doubtful thead th")
    assert [head.nth(i).get_attribute("aria-sort") for i in (0, 1)] == ["ascending", None]
    shown.page.keyboard.press("Space")
    assert shown.texts == ["c", "b", "a"]
    assert head.first.get_attribute("aria-sort") == "descending"
    shown.page.locator("select[name=sort]").select_option("least sure first")
    assert shown.texts == ["b", "c", "a"]


@pytest.mark.slow
def test_numbers_of_the_label_table_sort_as_numbers(opened):
    rows = frame(*(row(str(i), label=NAMES[0 if i < 2 else 1 if i < 12 else 2]) for i in range(21)))
    shown = opened(render(rows))
    shown.page.get_by_role("button", name="texts", exact=True).click()
    assert shown.page.locator("table.classes tbody td:nth-child(2)").all_inner_texts() == ["10", "9", "2"]


@pytest.mark.slow
def test_a_long_list_opens_short_and_the_rest_is_one_press_away(opened):
    shown = opened(render(frame(*(row(str(i), f"text {i}", confidence=0.5 + i / 1000) for i in range(80)))))
    assert len(shown.texts) == 30
    assert shown.page.inner_text("output") == "80 texts, 30 shown"
    shown.page.get_by_role("button", name="Show all 80 texts").click()
    assert len(shown.texts) == 80
    assert shown.page.inner_text("output") == "80 texts"


@pytest.mark.slow
def test_without_scripts_every_row_is_there(opened):
    rows = frame(*(row(str(i), f"text {i}", confidence=0.5 + i / 1000) for i in range(80)))
    shown = opened(render(rows), java_script_enabled=False)
    assert len(shown.texts) == 80
    assert not shown.page.locator("form.tools").is_visible()


# light and dark, wide and narrow


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 768, 1200])
def test_nothing_is_wider_than_the_screen(opened, scheme, width):
    names = ("a_label_name_without_any_space_that_goes_on_and_on_for_ever", "b", "c")
    long = frame(row("x" * 200, "w" * 400, names[0], 0.5), row("2", "ok", "b", 0.6, candidates=list(names)))
    rows = many_rows(100, names=names).vstack(long)
    page = opened(
        render(rows, spec={"labels": [{"name": name} for name in names]}, **FULL),
        viewport={"width": width, "height": 844}, color_scheme=scheme,
    ).page  # fmt: skip
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_plots_are_read_on_a_phone_with_legends_that_hide_no_bar(opened):
    # Nearly all want review: the bars stand high where a legend inside would be.
    rows = [row(str(i), confidence=0.4 + i % 55 / 100, gold=NAMES[i % 3 == 0]) for i in range(300)]
    shown = opened(render(frame(*rows)), viewport={"width": 390, "height": 844})
    box = "document.getElementById('{}').getBoundingClientRect()".format
    for name in ("confidence", "reliability", "risk"):
        legend, axes = box(f"{name}-legend_1"), box(f"{name}-patch_2")
        assert shown.value(f"{legend}.bottom <= {axes}.top + 1"), name
        assert shown.value(f"{legend}.right <= {box(f'{name}-figure_1')}.right + 1"), name
    heights = "[...document.querySelectorAll('figure:not(.wide) svg text')].map(t => t.getBoundingClientRect().height)"
    assert shown.value(f"Math.min(...{heights})") >= 8
    assert not shown.page.locator("figure.wide svg").is_visible(), "a heat map is too small to read there"
    assert shown.page.locator("figure.wide table").is_visible()


@pytest.mark.slow
def test_hundreds_of_labels_make_a_page_that_is_small_and_opens(opened):
    names = tuple(f"label_{j:03d}" for j in range(500))
    html = render(many_rows(2000, names=names), spec={"labels": [{"name": name} for name in names]})
    shown = opened(html)
    assert len(html) < 700_000
    assert "of 500 labels with most texts to review" in shown.page.inner_text("body")
    assert shown.page.locator("table.classes tbody tr").count() == 300
    assert shown.complaints == []


@pytest.mark.slow
def test_dark_mode_turns_page_words_and_plots(opened):
    html = render(many_rows(100))
    colours = {}
    for scheme in ("light", "dark"):
        shown = opened(html, color_scheme=scheme)
        colours[scheme] = shown.value(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,"
            " getComputedStyle(document.querySelector('figure .fill-accent')).fill]"
        )
    assert all(light != dark for light, dark in zip(colours["light"], colours["dark"], strict=True))


def luminance(colour):
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1])
def test_every_ink_is_readable_on_every_ground(theme):
    block = re.findall(r":root \{(.*?)\}", CSS.read_text(), re.DOTALL)[theme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    grounds = {
        "ink": ("page", "card", "wash", "yes-wash", "care-wash", "no-wash"),
        "muted": ("page", "card", "yes-wash"),
    }
    grounds |= {name: ("page", "card") for name in ("accent", "doubt", "care", "no", "yes")}
    for ink, places in grounds.items():
        for place in places:
            high, low = sorted((luminance(colours[ink]), luminance(colours[place])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, place)


@pytest.mark.slow
def test_print_is_light_and_without_controls(opened):
    shown = opened(render(many_rows(100)), color_scheme="dark")
    shown.page.emulate_media(media="print")
    assert shown.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not shown.page.locator("form.tools").is_visible()
    assert not shown.page.locator("nav").is_visible()


# size, and the drawings


@pytest.mark.slow
def test_a_page_of_many_rows_is_no_larger_than_one_of_its_first_hundreds():
    rows = many_rows(30_000)
    sizes = [len(render(rows.head(n))) for n in (3000, 30_000)]
    assert sizes[1] < 1.1 * sizes[0] < 700_000
    assert f"of the {int(rows['needs_review'].sum()):,} texts that want review" in render(rows).decode()


def test_equal_versions_have_equal_pages():
    assert render(many_rows(40)) == render(many_rows(40))


def test_a_drawing_takes_the_pages_colours_and_no_style_of_its_own():
    def paint(axes):
        axes.bar(["$a$ <b>", "名前"], [1, 2], color=INKS["accent"])

    svg = draw("some", paint)
    assert "style=" not in svg
    assert "$a$ &lt;b&gt;" in svg
    assert "名前" in svg
    assert svg.count('class="fill-accent"') == 2
    assert set(re.findall(r'id="(\w+)-', svg)) == {"some"}
