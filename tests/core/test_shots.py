"""Which examples a teacher sees: the same ones each time, none of them the text itself."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candist_core.errors import ConfigError
from candist_core.shots import NearestShots, Shot, balanced_shots, shared_shots, shots_fingerprint, to_shots
from candist_core.teacher_config import ShotChoice, ShotsConfig

LABELS = ["spam", "ham", "news"]
POOL = [Shot(f"text {i}", label) for i, label in enumerate(["spam"] * 6 + ["ham"] * 3 + ["news"])]

pools = st.lists(st.builds(Shot, st.text(max_size=4), st.sampled_from(LABELS)), unique=True, max_size=12)


def embed(texts):
    """Unit vectors at the angle that the text names in degrees."""
    angles = np.radians([float(text.split()[0]) for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def nearest(pool, text, n):
    (row,) = NearestShots([Shot(name, "spam") for name in pool], embed, n).rows([text])
    return [pool[place] for place in row]


# reading


def test_rows_become_shots_under_the_tasks_own_names():
    rows = [("a", "SPAM"), ("b", " ham "), ("a", "spam")]
    assert to_shots(rows, LABELS, "f") == (Shot("a", "spam"), Shot("b", "ham"))


def test_rows_without_text_or_label_are_passed_over():
    assert to_shots([(None, "spam"), (" ", "ham"), ("a", None), ("b", ""), ("c", "ham")], LABELS, "f") == (
        Shot("c", "ham"),
    )


def test_an_unknown_label_ends_the_run_in_one_sentence_with_the_nearest_name():
    with pytest.raises(ConfigError) as caught:
        to_shots([("a", "spam"), ("b", "spamm")], LABELS, "shots.uri f.csv")
    assert str(caught.value) == (
        "shots.uri f.csv: found the label 'spamm', wanted one of task.labels in each row; did you mean 'spam'?"
    )


def test_an_unknown_label_that_is_like_no_other_names_the_ways_out():
    with pytest.raises(ConfigError, match=r"correct the row or shots\.label, or add it under task\.labels"):
        to_shots([("a", "weather")], LABELS, "f")


def test_a_text_taken_for_a_label_is_not_quoted_at_length():
    with pytest.raises(ConfigError) as caught:
        to_shots([("spam", "x" * 500)], LABELS, "f")
    assert "x" * 60 in str(caught.value)
    assert "x" * 61 not in str(caught.value)


def test_a_file_without_a_labelled_text_is_refused():
    with pytest.raises(ConfigError, match="no row with a text and a label"):
        to_shots([("a", None)], LABELS, "f")


# for all requests


def test_fixed_shots_are_the_first_of_the_file():
    assert shared_shots(POOL, ShotsConfig(choice="fixed", n=3), seed=1) == tuple(POOL[:3])


def test_nearest_shots_belong_to_no_head():
    assert shared_shots(POOL, ShotsConfig(choice="nearest"), seed=1) == ()


@pytest.mark.parametrize(
    ("n", "counts"),
    [
        (3, {"spam": 1, "ham": 1, "news": 1}),
        (5, {"spam": 2, "ham": 2, "news": 1}),
        (7, {"spam": 3, "ham": 3, "news": 1}),
        # Of ham and news there are no more.
        (10, {"spam": 6, "ham": 3, "news": 1}),
        (99, {"spam": 6, "ham": 3, "news": 1}),
    ],
)
def test_balanced_shots_show_equally_many_of_each_label_while_there_are_some(n, counts):
    assert Counter(shot.label for shot in balanced_shots(POOL, n, seed=0)) == counts


def test_balanced_shots_of_more_labels_than_places_show_no_label_twice():
    pool = [Shot(f"{label} {i}", f"label {label}") for label in range(20) for i in range(3)]
    assert max(Counter(shot.label for shot in balanced_shots(pool, 8, seed=0)).values()) == 1


def test_balanced_shots_never_show_one_label_in_a_row_while_others_remain():
    labels = [shot.label for shot in balanced_shots(POOL, 6, seed=0)]
    assert len(set(labels[:3])) == 3


@given(pools, st.integers(0, 15), st.integers(0, 3), st.randoms())
def test_balanced_shots_hang_on_the_content_and_the_seed_alone(pool, n, seed, random):
    shuffled = list(pool)
    random.shuffle(shuffled)
    chosen = balanced_shots(pool, n, seed)
    assert balanced_shots(shuffled, n, seed) == chosen
    assert len(chosen) == min(n, len(pool))
    assert set(chosen) <= set(pool)
    counts = Counter(shot.label for shot in chosen)
    available = Counter(shot.label for shot in pool)
    assert all(counts[one] + 1 >= counts[other] or counts[one] == available[one] for one in counts for other in counts)


def test_another_seed_shows_other_shots():
    assert len({balanced_shots(POOL, 4, seed) for seed in range(8)}) > 1


def test_balanced_shots_are_the_same_on_every_machine():
    assert [shot.text for shot in balanced_shots(POOL, 4, seed=0)] == ["text 2", "text 9", "text 7", "text 0"]


def test_the_fingerprint_changes_with_the_pool_and_the_choice_only():
    config = ShotsConfig(uri="f.csv", choice=ShotChoice.NEAREST, n=4)
    same = config.model_copy(update={"uri": "g.csv", "text": "body"})
    assert shots_fingerprint(POOL, config) == shots_fingerprint(POOL, same)
    changed = [config.model_copy(update=update) for update in ({"n": 5}, {"encoder": "e"}, {"choice": "fixed"})]
    prints = {shots_fingerprint(POOL, other) for other in [config, *changed]} | {shots_fingerprint(POOL[1:], config)}
    assert len(prints) == 5


# for each text


def test_the_most_alike_stands_last():
    assert nearest(["0", "90", "50", "21"], "10 degrees?", n=3) == ["50", "21", "0"]


def test_a_text_is_never_its_own_example_however_it_is_spaced_or_cased():
    pool = ["30", "30 Degrees", "31", "60"]
    assert nearest(pool, "30  degrees ", n=2) == ["31", "30"]


def test_a_text_that_stands_twice_in_the_pool_under_two_labels_is_left_out_twice():
    shots = [Shot("10", "spam"), Shot("10", "ham"), Shot("40", "ham")]
    assert NearestShots(shots, embed, 2).rows(["10"]) == [(2,)]


def test_a_pool_of_the_text_alone_gives_no_example():
    assert nearest(["30"], "30", n=4) == []


def test_equally_alike_shots_keep_the_order_of_the_pool():
    # All at one angle: the first two are in, the first of them last.
    shots = [Shot(f"45 {i}", "spam") for i in range(5)]
    assert NearestShots(shots, embed, 2).rows(["45", "45 0"]) == [(1, 0), (2, 1)]


def test_a_small_pool_gives_all_it_has():
    assert nearest(["0", "90"], "80", n=8) == ["0", "90"]


@given(
    st.lists(st.integers(0, 89), min_size=1, max_size=9), st.lists(st.integers(90, 180), max_size=4), st.integers(1, 5)
)
def test_rows_agree_with_sorting_every_shot_by_its_angle(pool, asked, n):
    shots = [Shot(f"{angle} #{place}", "ham") for place, angle in enumerate(pool)]
    rows = NearestShots(shots, embed, n).rows([f"{angle}" for angle in asked])
    for row in rows:
        # Every asked angle is at 90 degrees or beyond, so a greater angle is a nearer one; angles of a whole degree
        # apart differ by far more in their cosine than float32 rounds away.
        assert [pool[place] for place in row] == sorted(pool)[-n:]


def test_many_texts_are_handled_in_blocks_with_equal_results(monkeypatch):
    shots = [Shot(f"{angle}", "ham") for angle in range(0, 90, 7)]
    texts = [f"{angle} asked" for angle in range(50)]
    whole = NearestShots(shots, embed, 3).rows(texts)
    monkeypatch.setattr("candist_core.shots._BLOCK_CELLS", 1)
    assert NearestShots(shots, embed, 3).rows(texts) == whole
