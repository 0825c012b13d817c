"""Experiments on a planted corpus: they run, say what they measured, and refuse data that is not there."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from candist_core.bench.corpora import load_corpus
from candist_core.bench.planted import flipped
from candist_core.bench.plots import draw
from candist_core.bench.run import write_figures
from candist_core.bench.runs import Bench
from candist_core.bench.suites import SUITES
from candist_core.bench.tables import Figures, Plot, Shape, bootstrap_difference, rank_correlation, spread_of
from candist_core.errors import ConfigError
from flows.cli import app

LABELS = ("north", "south", "west")


def embed(texts):
    """A direction for each label's name in a text, and a little of the text's own."""
    rows = np.zeros((len(texts), 6), dtype=np.float32)
    for i, text in enumerate(texts):
        for j, label in enumerate(LABELS):
            rows[i, j] = label in text
        rows[i, 3 + len(text) % 3] += 0.3
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def data(tmp_path):
    for name in ("trec", "banking77"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "labels.txt").write_text("\n".join(LABELS))
        rng = np.random.default_rng(0)
        for split, n in (("train", 240), ("test", 60)):
            gold = [LABELS[i % 3] for i in range(n)]
            rows = [
                {"id": f"{split}-{i}", "text": f"{'x' * (i % 7)} {name} {name_}", "gold": name_}
                for i, name_ in enumerate(gold)
            ]
            (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            if split == "train":
                replies = [
                    {
                        "id": row["id"],
                        "reply": json.dumps(
                            {"candidates": [LABELS[rng.integers(3)] if rng.random() < 0.2 else row["gold"]]}
                        ),
                    }
                    for row in rows
                ]
                (folder / "replies_ca_add.jsonl").write_text("".join(json.dumps(row) + "\n" for row in replies))
    return tmp_path


def test_a_corpus_is_read_under_both_teachers(data):
    llm, zeroshot = (load_corpus(data, "trec", teacher, embed) for teacher in ("llm", "zeroshot"))
    assert (llm.X.shape, llm.y_test.shape, llm.R.shape) == ((240, 6), (60,), (240, 3))
    assert 0.8 < (llm.first == llm.y).mean() < 0.95
    assert (zeroshot.first == zeroshot.y).all()
    assert not np.array_equal(llm.R, zeroshot.R)


def test_final_labels_of_a_planted_corpus_beat_a_random_fifth_of_mistakes(data):
    said = []
    figures = list(SUITES["labels"](Bench(data, embed, [0], said.append)))
    accuracy = {row[0]: row for row in figures[0].rows}
    teacher, student, final = accuracy["llm, trec"][1:4]
    assert student > 0.95 > final >= teacher
    assert [table.title.split()[0] for table in figures] == ["Accuracy", "Which", "Calibration"]
    assert len(figures[1].rows) == 16
    assert said == ["llm, trec", "llm, banking77", "zeroshot, trec", "zeroshot, banking77"]


@pytest.mark.parametrize(
    ("kind", "rate", "n_wrong"), [("uniform", 0.0, 0), ("by class", 0.4, 96), ("by likeness", 0.25, 60)]
)
def test_planted_noise_has_the_rate_asked_for_and_half_of_it_the_truth_second(data, kind, rate, n_wrong):
    corpus = load_corpus(data, "banking77", "llm", embed)
    R = flipped(corpus, kind, rate)
    is_wrong = (R == 0).argmax(axis=1) != corpus.y
    assert is_wrong.sum() == pytest.approx(n_wrong, abs=25)
    covered = (R >= 0)[np.arange(len(corpus.y)), corpus.y]
    assert covered[~is_wrong].all()
    if n_wrong:
        assert 0.3 < covered[is_wrong].mean() < 0.7


def test_a_difference_of_two_runs_has_an_interval_around_it():
    rng = np.random.default_rng(0)
    right, other = rng.random((3, 500)) < 0.8, rng.random((3, 500)) < 0.7
    mean, low, high = bootstrap_difference(right, other)
    assert low < mean < high
    assert low > 0
    assert mean == pytest.approx(right.mean() - other.mean())


@pytest.mark.parametrize("shape", list(Shape))
def test_a_plot_is_drawn_of_numbers_alone(tmp_path, shape):
    cells = spread_of([0.9, 0.8]), 0.7, "x"
    plot = Plot(shape, "share", "accuracy")
    table = Figures("Noise", ("share", "a", "b", "said"), (("clean", *cells), ("0.2", *cells)), plot)
    assert draw([table], tmp_path / "noise.png")
    assert (tmp_path / "noise.png").read_bytes().startswith(b"\x89PNG")
    assert not draw([Figures("t", ("a", "b"), (("x", "y"),), plot)], tmp_path / "none.png")
    assert not draw([Figures("t", ("a", "b"), (("x", 1.0),))], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_tables_are_kept_with_the_range_of_their_seeds(tmp_path):
    write_figures([Figures("t", ("a", "b"), (("x", spread_of([0.25, 0.75])),))], tmp_path, "few")
    assert "| x | 0.500 (0.250 to 0.750) |" in (tmp_path / "few.md").read_text()
    (kept,) = json.loads((tmp_path / "few.json").read_text())
    assert kept == {"title": "t", "columns": ["a", "b"], "rows": [["x", {"mean": 0.5, "low": 0.25, "high": 0.75}]]}


def test_a_correlation_of_too_few_or_equal_values_is_none():
    assert rank_correlation(np.arange(9.0), np.arange(9.0)) is None
    assert rank_correlation(np.arange(10.0), np.ones(10)) is None
    rho, low, high = rank_correlation(np.arange(10.0), -np.arange(10.0))
    assert (round(rho, 9), round(low, 9), round(high, 9)) == (-1, -1, -1)


@pytest.mark.slow
def test_every_gain_is_shown_over_the_accuracy_of_its_teacher(data):
    tables = list(SUITES["strength"](Bench(data, embed, [0], lambda line: None)))
    assert [table.title.split(",")[0] for table in tables] == [
        "Teachers",
        "Gain of sets by strength of the teacher",
    ] * 2
    teachers = {row[0]: row for row in tables[0].rows}
    weak, mended = teachers["zeroshot, two fifths mixed up"], teachers["llm, half of the mistakes mended"]
    assert weak[1] < teachers["zeroshot"][1]
    assert mended[1] > teachers["llm"][1]
    assert [row[0] for row in tables[1].rows] == [row[1] for row in tables[0].rows]


@pytest.mark.slow
def test_planted_failures_move_the_signals_that_they_should(data):
    tables = {table.title: table for table in SUITES["failures"](Bench(data, embed, [0, 1], lambda line: None))}
    sets = {row[0]: row[1:] for row in tables["Signals of the sets, trec"].rows}
    student = {row[0]: row[1:] for row in tables["Signals of the student, trec"].rows}
    assert sets["identical sets, 90 %"][1].mean == pytest.approx(0.9, abs=0.05)
    assert sets["clean, llm"][1].mean == 0
    assert sets["always the same partner"][2].mean == pytest.approx(1.0)
    assert student["student of 4 numbers"][1].mean <= student["clean, llm"][1].mean
    assert student["answers mixed up, 30 %"][1].mean < student["clean, llm"][1].mean - 0.1


@pytest.mark.slow
def test_diversity_is_set_against_accuracy_by_setting_and_by_label(data):
    tables = list(SUITES["diversity"](Bench(data, embed, [0], lambda line: None)))
    assert [len(table.rows) for table in tables[:4]] == [4, 12, 2, 2]
    assert [row[0] for row in tables[2].rows] == ["1", "2"]


def test_data_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"trec: found no labels.txt, wanted labels, texts and replies"):
        load_corpus(tmp_path, "trec", "llm", embed)


def test_an_unknown_experiment_is_named_with_the_known_ones(tmp_path):
    result = CliRunner().invoke(app, ["bench", "lables", "--data", str(tmp_path)])
    assert isinstance(result.exception, ConfigError)
    assert "one of labels, students, encoders, steps, noise, sizes" in str(result.exception)


def test_coverage_by_the_students_stands_beside_that_by_gold(data):
    trec, banking = SUITES["quality"](Bench(data, embed, [0], lambda line: None))
    assert trec.title.endswith("trec")
    figures = {row[0]: [cell.mean for cell in row[1:]] for row in trec.rows}
    llm, mixed_up = figures["llm"], figures["answers mixed up, 30 %"]
    # Nine of ten recorded answers are right; a third of them dealt out anew leaves fewer.
    assert 0.8 < llm[0] < 0.95
    assert mixed_up[0] < llm[0] - 0.1
    assert figures["second labels by chance"][3] < 2
    assert len(banking.rows) == len(trec.rows) == 8
