"""What a report says of a run whose teacher read a sample."""

import polars as pl

from candist_core.edges.report.learning import learning_plots
from candist_core.edges.report.plots import size_plot
from candist_core.metrics import wilson
from candist_core.sampling import CurvePoint, Forecast, SamplingReport
from candist_core.tally import Tally
from tests.edges.test_report import render
from tests.published_rows import manifest_of, many_rows

CURVE = tuple(CurvePoint(n_rows=n, agreement=wilson(right, 400)) for n, right in ((100, 240), (200, 300), (400, 340)))
SAMPLING = SamplingReport(
    n_texts=10_000,
    n_read=400,
    rounds=(200, 200),
    how=("random", "doubtful"),
    stopped="the teacher has read what it was to read",
    is_audited=False,
    curve=CURVE,
    forecast=Forecast(n_rows=100, gain=0.012, ceiling=0.93, cost_usd=0.5),
)


def test_the_page_tells_who_read_what_and_what_more_would_bring():
    html = render(many_rows(30), sampling=SAMPLING.model_dump(mode="json")).decode()
    assert "the teacher read 400 of 10,000 texts in 2 rounds" in html
    assert "another 100 texts: +1.2 points, $0.50" in html
    assert "What reading more would bring" in html


def test_the_plot_has_the_points_and_the_forecast_as_numbers_too():
    (plot,) = learning_plots(SAMPLING)
    assert [row[0] for row in plot.rows] == ["100", "200", "400", "500, forecast"]
    assert plot.rows[2][1] == str(wilson(340, 400))
    assert plot.rows[3][1] == "86.2 %"


def test_texts_without_an_answer_are_no_sets_of_no_label_where_the_teacher_read_a_sample():
    rows = many_rows(30).with_columns(candidates=pl.lit([], dtype=pl.List(pl.String)))
    tally = Tally(manifest_of().spec)
    tally.add(pl.concat([rows, many_rows(20)]))
    assert "none" not in [row[0] for row in size_plot(tally, is_sample=True).rows]
    assert size_plot(tally).rows[0][1] == "30"


def test_a_version_whose_teacher_read_everything_has_no_such_plot():
    assert learning_plots(None) == []
    assert "What reading more would bring" not in render(many_rows(30)).decode()
    assert manifest_of().sampling is None
