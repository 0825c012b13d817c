"""The forecast of a learning curve: exact where the points lie on one, never negative, none of too few points."""

import pytest

from candist_core.curve import forecast
from candist_core.metrics import wilson
from candist_core.sampling import CurvePoint


def point(n, share):
    return CurvePoint(n_rows=n, agreement=wilson(0, 100).model_copy(update={"value": share}))


def test_points_on_a_curve_forecast_the_next_point_of_it():
    def error(n):
        return 0.1 + 2 * n**-0.5

    found = forecast([point(n, 1 - error(n)) for n in (100, 200, 400, 800)], 800, usd_a_text=0.01)
    assert found.gain == pytest.approx(error(800) - error(1600), abs=0.002)
    assert found.ceiling == pytest.approx(0.9, abs=0.02)
    assert found.cost_usd == pytest.approx(8.0)


def test_a_curve_that_falls_forecasts_no_gain_rather_than_a_loss():
    assert forecast([point(100, 0.9), point(200, 0.85), point(400, 0.8)], 400).gain == 0


def test_two_points_and_no_further_texts_forecast_nothing():
    assert forecast([point(100, 0.5), point(200, 0.6)], 100) is None
    assert forecast([point(100, 0.5), point(200, 0.6), point(400, 0.7)], 0) is None


def test_an_unknown_price_leaves_the_gain_and_names_no_cost():
    found = forecast([point(100, 0.5), point(200, 0.6), point(400, 0.7)], 400)
    assert found.cost_usd is None
    assert "$" not in str(found)
