"""The static student: it learns, is the same after it is read again, and needs no encoder to predict."""

import numpy as np
import pytest

from candist_core.config import StudentConfig
from candist_core.errors import StudentError
from candist_core.recipe import find_recipe
from candist_core.student.static import distill_static, load_static, static_embedder

TEXTS = ["the bill is too high", "roaming abroad costs money"] * 40
S = np.eye(2, dtype=bool)[[0, 1] * 40]


@pytest.mark.slow
def test_it_learns_and_predicts_the_same_once_it_is_read_again(tmp_path, tiny_bert):
    config = StudentConfig(model=str(tiny_bert), kind="static", device="cpu")
    made = distill_static(
        TEXTS, S, np.where(S, 0, -1), ("bill", "roaming"), config, 0, tmp_path / "student", recipe=find_recipe("sa_ce")
    )
    assert made.n_train == 80
    student = load_static(tmp_path / "student", "cpu")
    assert student.labels == ("bill", "roaming")
    P = student.predict(TEXTS[:2])
    assert P.argmax(axis=1).tolist() == [0, 1]
    assert not list((tmp_path / "student").glob("model*")), "no encoder lies beside it"
    np.testing.assert_array_equal(load_static(tmp_path / "student", "cpu").predict(TEXTS[:2]), P)


def test_a_text_has_the_same_vector_whatever_stands_beside_it(tiny_bert):
    embed = static_embedder(str(tiny_bert), 16)
    alone = embed(TEXTS[:1])
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(embed([*TEXTS[1:5], TEXTS[0]])[-1], alone[0])
    assert embed([]).shape == (0, alone.shape[1])
    assert not embed([""]).any()


def test_a_folder_without_a_table_is_refused_in_one_sentence(tmp_path, tiny_bert):
    with pytest.raises(StudentError, match="no table that loads"):
        load_static(tiny_bert, "cpu")
