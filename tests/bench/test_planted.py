"""Planted teachers are wrong in the way they claim, and signals read what a hand counts."""

from dataclasses import replace

import numpy as np
import pytest

from candist_core.bench import planted, signals
from candist_core.bench.corpora import Corpus


def corpus_of(y, k=4, R=None):
    y = np.array(y)
    X = np.eye(max(k, 8), dtype=np.float32)[y]
    labels, texts = tuple("abcdefgh"[:k]), tuple(map(str, range(len(y))))
    R = planted.ranked(k, y) if R is None else R
    return Corpus("planted", labels, texts, texts, X, X, y, y, R)


def test_a_mended_answer_keeps_its_size_and_has_the_truth_first():
    R = np.array([[0, 1, 2], [1, 0, -1], [-1, 0, -1], [-1, -1, -1]], dtype=np.int16)
    right = planted.mended(R, np.array([2, 1, 0, 0]), 1.0, seed=0)
    assert right.tolist() == [[1, 2, 0], [1, 0, -1], [0, -1, -1], [-1, -1, -1]]


def test_a_share_of_none_changes_nothing_and_of_one_everything():
    R, other = planted.ranked(4, np.arange(4)), planted.ranked(4, np.arange(4)[::-1].copy())
    assert np.array_equal(planted.mixed(R, other, 0.0, seed=0), R)
    assert np.array_equal(planted.mixed(R, other, 1.0, seed=0), other)
    assert np.array_equal(planted.mended(R, np.zeros(4, dtype=int), 0.0, seed=0), R)


def test_answers_mixed_up_are_the_same_answers_at_other_texts():
    R = planted.ranked(4, np.arange(400) % 4, (np.arange(400) // 4) % 4)
    dealt = planted.shuffled(R, 0.4, seed=0)
    assert sorted(map(tuple, dealt.tolist())) == sorted(map(tuple, R.tolist()))
    assert 0.25 < (dealt != R).any(axis=1).mean() < 0.4


def test_identical_sets_hold_the_two_most_frequent_first_labels():
    R = planted.identical(planted.ranked(4, np.array([3, 3, 3, 1, 1, 0])), 1.0, seed=0)
    assert R.tolist() == [[-1, 1, -1, 0]] * 6


def test_partners_are_the_same_at_every_text_and_an_empty_answer_stays_empty():
    R = planted.partnered(np.array([[0, -1, 1], [-1, 0, -1], [-1, -1, 0], [-1, -1, -1]], dtype=np.int16))
    assert R.tolist() == [[0, 1, -1], [1, 0, -1], [1, -1, 0], [-1, -1, -1]]


def test_wrong_clusters_are_wrong_throughout_and_hold_the_share_asked_for():
    corpus = corpus_of(np.arange(400) % 4)
    R = planted.wrong_clusters(corpus, 0.25, seed=0)
    first = (R == 0).argmax(axis=1)
    is_wrong = first != corpus.y
    assert is_wrong.mean() == 0.25
    assert len(np.unique(corpus.y[is_wrong])) == len(np.unique(first[is_wrong])) == 1
    assert (R[is_wrong] >= 0).sum(axis=1).tolist() == [1] * 100


def test_split_labels_stand_together_in_every_set_with_either_first():
    corpus = planted.split_labels(corpus_of(np.arange(400) % 4), seed=0)
    assert corpus.labels == ("a", "b", "c", "d", "a too", "d too")
    S, of_a = corpus.S, np.arange(400) % 4 == 0
    assert np.array_equal(S[:, 0], S[:, 4])
    assert S[of_a].sum(axis=1).tolist() == [2] * 100
    for share in ((corpus.first == 4)[of_a].mean(), (corpus.y == 4)[of_a].mean(), (corpus.y_test == 4)[of_a].mean()):
        assert 0.35 < share < 0.65
    assert corpus.R.max() == 1


def test_a_projected_corpus_has_so_many_numbers_a_row_of_length_one():
    corpus = planted.projected(corpus_of([0, 1, 2, 3]), 2, seed=0)
    assert corpus.X.shape == corpus.X_test.shape == (4, 2)
    np.testing.assert_allclose(np.linalg.norm(corpus.X, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("n_distractors", [1, 2, 3])
def test_distracted_sets_have_two_labels_the_truth_in_nine_of_ten_and_so_many_others(n_distractors):
    corpus = corpus_of(np.arange(4000) % 4)
    R = planted.distracted(corpus, n_distractors, 0.9, seed=0)
    S = R >= 0
    covered = S[np.arange(4000), corpus.y]
    assert S.sum(axis=1).tolist() == [2] * 4000
    assert covered.mean() == pytest.approx(0.9, abs=0.02)
    assert (R[np.arange(4000), corpus.y][covered] == 0).mean() == pytest.approx(0.5, abs=0.05)
    for j in range(4):
        others = S[covered & (corpus.y == j)].any(axis=0)
        assert others.sum() - 1 == n_distractors


def test_a_sample_is_the_same_texts_under_every_teacher():
    one = corpus_of(np.arange(40) % 4)
    other = replace(one, R=one.R[::-1])
    assert one.sample(10).texts == other.sample(10).texts
    assert np.array_equal(one.sample(10).y, one.y[[int(text) for text in one.sample(10).texts]])
    assert one.sample(100).texts == one.texts


def test_companions_of_a_label_count_alike_what_is_alike_frequent():
    R = planted.ranked(5, np.zeros(30, dtype=int), np.array([1, 2, 3] * 10))
    assert signals.companions(R)[0] == pytest.approx(3)
    assert signals.mean_companions(R) == pytest.approx(3)
    assert signals.mean_companions(planted.ranked(5, np.zeros(30, dtype=int))) == 0


def test_signals_of_sets_without_a_second_label_are_zero():
    S = np.eye(3, dtype=bool)[[0, 1, 2] * 20]
    P = np.full(S.shape, 1 / 3)
    assert (signals.largest_set_share(S), signals.pair_lift(S), signals.pair_overlap(S)) == (0, 0, 0)
    assert signals.in_set_entropy(P, S) == 0


def test_a_pair_seen_fewer_than_ten_times_has_no_lift():
    S = np.array([[1, 1, 0, 0]] * 9 + [[0, 0, 1, 0]] * 91, dtype=bool)
    assert (signals.pair_lift(S), signals.pair_overlap(S)) == (0, 0)
    S[9] = S[0]
    assert signals.pair_lift(S) == pytest.approx(100 * 10 / (10 * 10))
    assert signals.pair_overlap(S) == pytest.approx(1)


def test_a_pair_is_undecided_only_by_the_texts_that_have_both():
    S = np.array([[1, 1, 0]] * 10 + [[1, 0, 0]] * 5, dtype=bool)
    assert signals.pair_entropy(np.array([[0.5, 0.5, 0]] * 10 + [[1, 0, 0]] * 5), S) == pytest.approx(1)
    assert signals.pair_entropy(np.array([[1, 0, 0]] * 10 + [[0.5, 0.5, 0]] * 5), S) == pytest.approx(0, abs=1e-6)
    assert signals.pair_entropy(np.full((15, 3), 1 / 3), S[:, [0, 2, 2]]) == 0


def test_a_louder_belief_against_the_teacher_finds_more_noise():
    R, P = np.full((90, 2), [0, -1]), np.full((90, 2), [0.3, 0.7])
    assert signals.noise_rate(R, P, 0.25) > signals.noise_rate(R, P, 2.0)
    assert signals.noise_rate(R, P[:, ::-1], 1.0) <= 0.05


def test_guessed_second_labels_leave_first_ones_and_texts_without_an_answer_alone():
    corpus = corpus_of([0, 1, 2, 3] * 50)
    R = corpus.R.copy()
    R[0] = -1
    guess = planted.guessed(replace(corpus, R=R), 1.0, seed=0)
    assert (guess[0] == -1).all()
    assert ((guess[1:] >= 0).sum(axis=1) == 2).all()
    assert np.array_equal(guess[1:] == 0, R[1:] == 0)
    assert (planted.guessed(corpus, 0.0, seed=0) == corpus.R).all()
