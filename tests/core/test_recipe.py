import pytest

from candist_core.config import Method, StudentConfig
from candist_core.errors import StudentError
from candist_core.recipe import RECIPES, Rule, Sets, find_recipe, recipe_of


def test_an_unknown_recipe_is_named_with_the_known_ones():
    with pytest.raises(StudentError, match=r"found 'drc', wanted one of sa_ce, .*ca_dr_c"):
        find_recipe("drc")


def test_a_recipe_takes_changes_and_stays_as_it_is():
    assert find_recipe("ca_dr_c", epochs=3, mixup=True).mixup
    assert not RECIPES["ca_dr_c"].mixup


def test_the_controls_differ_from_the_full_recipe_in_their_sets_alone():
    full = find_recipe("ca_dr_c")
    assert find_recipe("sa_dr_c", sets=Sets.TEACHER) == full
    assert find_recipe("rnd2_dr_c", sets=Sets.TEACHER) == full
    assert {RECIPES[name].sets for name in RECIPES if name.startswith("sa_")} == {Sets.FIRST}


@pytest.mark.parametrize("method", Method)
def test_every_method_of_the_settings_has_a_recipe(method):
    recipe = recipe_of(StudentConfig(method=method, epochs=7))
    assert recipe.rule == Rule(method.value)
    assert recipe.epochs == 7
    assert recipe.held_out_share == 0


def test_the_settings_of_dr_reach_its_recipe():
    config = StudentConfig(
        method=Method.DR, warmup_epochs=9, sharpen=0.5, reliable_share=0.4, rescue_above=0.9, max_dropped=0.2
    )
    recipe = recipe_of(config)
    assert (recipe.warmup_epochs, recipe.sharpen, recipe.reliable_share) == (9, 0.5, 0.4)
    assert (recipe.rescue_above, recipe.max_dropped, recipe.lag, recipe.by_order) == (0.9, 0.2, 1, True)
