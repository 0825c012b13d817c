import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from candist_core.candidates import candidate_mask, rank_table
from candist_core.config import StudentConfig
from candist_core.errors import StudentError
from candist_core.recipe import RECIPES, find_recipe
from candist_core.student.distill import EncoderLearner, distill
from candist_core.student.predict import Student

LABELS = ("red", "green", "blue")


def corpus(n):
    """Texts that name their label, and sets that hold it beside another in every second text."""
    rng = np.random.default_rng(0)
    texts, sets = [], []
    for i in range(n):
        label = LABELS[i % 3]
        filler = rng.choice(["one", "two", "three", "the", "a"], size=rng.integers(1, 6)).tolist()
        texts.append(" ".join([*filler, label]))
        sets.append([label] if i % 2 else [label, LABELS[rng.integers(3)]])
    return texts, sets


def settings(folder, **changes):
    given = {"epochs": 2, "warmup_epochs": 1, "batch_rows": 8, "learning_rate": 1e-3, "device": "cpu"}
    return StudentConfig(model=str(folder), **{"method": "dr", **given, **changes})


def run(folder, out, n=24, seed=0, labels=LABELS, on_progress=None, recipe=None, **changes):
    texts, sets = corpus(n)
    extra = {"on_progress": on_progress} if on_progress else {}
    return distill(
        texts,
        candidate_mask(sets, labels),
        rank_table(sets, labels),
        labels,
        settings(folder, **changes),
        seed,
        out,
        recipe=recipe,
        **extra,
    )


def weights_of(folder):
    return load_file(folder / "model.safetensors")


def test_equal_seeds_give_equal_weights_and_others_do_not(tiny_bert, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tiny_bert, tmp_path / name, seed=seed)
    first, same, other = (weights_of(tmp_path / name) for name in "abc")
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_student_learns_the_true_labels_from_sets(tiny_bert, tmp_path):
    run(tiny_bert, tmp_path / "s", n=240, epochs=12, warmup_epochs=3)
    texts = [f"a {label} two" for label in LABELS]
    P = Student.load(tmp_path / "s", "cpu").predict(texts)
    assert P.argmax(axis=1).tolist() == [0, 1, 2]


def test_every_weight_moves(tiny_bert, tmp_path):
    run(tiny_bert, tmp_path / "s")
    before, after = weights_of(tiny_bert), weights_of(tmp_path / "s")
    stuck = [name for name in before if torch.equal(before[name], after[f"bert.{name}"])]
    assert stuck == []


def test_the_folder_holds_safetensors_alone_and_loads_with_transformers(tiny_bert, tmp_path):
    run(tiny_bert, tmp_path / "s", max_tokens=16)
    assert not [path for path in (tmp_path / "s").iterdir() if path.suffix in {".bin", ".pt", ".pkl"}]
    network = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "s")
    assert network.config.id2label == {0: "red", 1: "green", 2: "blue"}
    assert network.config.label2id == {"red": 0, "green": 1, "blue": 2}
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "s").model_max_length == 16


def test_the_folder_does_not_tell_where_the_base_model_lay(tiny_bert, tmp_path):
    run(tiny_bert, tmp_path / "s")
    for path in (tmp_path / "s").glob("*.json"):
        assert str(tiny_bert) not in path.read_text()


def test_the_report_counts_epochs_and_texts(tiny_bert, tmp_path):
    result = run(tiny_bert, tmp_path / "s", epochs=3)
    assert result.n_train == 24
    assert [epoch.epoch for epoch in result.epochs] == [1, 2, 3]
    assert result.base_model == str(tiny_bert)
    assert result.device == "cpu"
    assert result.device_reason.startswith("cpu, asked for")
    assert result.epochs[0].kept_rate == 1.0
    assert result.epochs[0].reliable_rate == 0.0
    assert result.epochs[2].reliable_rate > 0
    for epoch in result.epochs:
        assert 0 <= epoch.approximate_accuracy <= epoch.in_set_rate <= 1
    json.dumps([epoch.model_dump() for epoch in result.epochs], allow_nan=False)


def test_a_student_of_full_sets_has_the_approximate_accuracy_of_its_belief(tiny_bert, tmp_path):
    texts = ["red one", "blue", "green two three"]
    result = distill(texts, np.ones((3, 3), bool), None, LABELS, settings(tiny_bert, epochs=1), 0, tmp_path / "s")
    P = Student.load(tmp_path / "s", "cpu").predict(texts)
    assert result.epochs[0].in_set_rate == 1.0
    # Few texts are read in float32, while training reads them in the type of the device.
    assert result.epochs[0].approximate_accuracy == pytest.approx(P.max(axis=1).mean(), abs=1e-3)


@pytest.mark.slow
def test_progress_grows_to_the_number_of_texts_of_all_epochs(tiny_bert, tmp_path):
    seen = []
    run(tiny_bert, tmp_path / "s", n=90, batch_rows=2, method="proden", on_progress=seen.append)
    done = [progress.done for progress in seen]
    assert done == sorted(done)
    assert done == [40, 80, 90, 130, 170, 180]
    assert {(progress.stage, progress.total, progress.unit) for progress in seen} == {("distill", 180, "texts")}
    assert seen[-1].note.startswith("epoch 2/2 loss ")


def test_chance_and_threads_of_the_process_are_left_alone(tiny_bert, tmp_path):
    texts, sets = corpus(8)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    S = candidate_mask(sets, LABELS)
    distill(texts, S, None, LABELS, settings(tiny_bert, epochs=1), 0, tmp_path / "s", n_threads=2)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_texts_without_candidates_are_passed_over(tiny_bert, tmp_path):
    S = np.array([[True, False, False], [False, False, False], [False, True, True]])
    result = distill(["red", "two", "blue"], S, None, LABELS, settings(tiny_bert), 0, tmp_path / "s")
    assert result.n_train == 2


def test_the_teachers_order_changes_what_is_learned(tiny_bert, tmp_path):
    S, config = np.ones((2, 2), dtype=bool), settings(tiny_bert, epochs=1)
    for name, ranks in (("a", [[0, 1], [0, 1]]), ("b", [[1, 0], [1, 0]])):
        distill(["one", "two"], S, np.array(ranks), ("x", "y"), config, 0, tmp_path / name)
    first, second = (weights_of(tmp_path / name)["classifier.bias"] for name in "ab")
    assert first[0] > first[1]
    assert second[0] < second[1]


@pytest.mark.parametrize("texts", [[], ["red", "blue"]])
def test_nothing_to_learn_from_is_said_in_one_sentence(tiny_bert, tmp_path, texts):
    S = np.zeros((len(texts), 3), dtype=bool)
    with pytest.raises(StudentError, match=f"found 0 of {len(texts)} with candidates"):
        distill(texts, S, None, LABELS, settings(tiny_bert), 0, tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("method", ["uniform", "proden", "dr"])
def test_one_class_among_many_labels_and_fewer_texts_than_a_batch_train(tiny_bert, tmp_path, method):
    labels = tuple(f"label {j}" for j in range(40))
    S = np.zeros((3, 40), dtype=bool)
    S[:, 7] = True
    config = settings(tiny_bert, method=method, batch_rows=64)
    result = distill(["red", "blue", ""], S, None, labels, config, 0, tmp_path / "s")
    assert np.isfinite(result.epochs[-1].loss)


def test_a_loss_that_is_no_number_ends_training_with_advice(tiny_bert, tmp_path):
    broken = shutil.copytree(tiny_bert, tmp_path / "broken")
    state = weights_of(broken)
    state["embeddings.word_embeddings.weight"][:] = float("nan")
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StudentError, match=r"a loss of nan in epoch 1.*lower student.learning_rate"):
        run(broken, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_trained_student_can_be_the_base_of_one_with_other_labels(tiny_bert, tmp_path):
    run(tiny_bert, tmp_path / "first", epochs=1)
    result = distill(
        ["one", "two"], np.eye(2, dtype=bool), None, ("odd", "even"), settings(tmp_path / "first"), 0,
        tmp_path / "second",
    )  # fmt: skip
    assert Student.load(tmp_path / "second", "cpu").labels == ("odd", "even")
    assert result.n_train == 2


def test_training_writes_nothing_to_the_screen(tiny_bert, tmp_path, capfd):
    run(tiny_bert, tmp_path / "s")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_an_encoder_with_all_extras(tiny_bert, tmp_path, name):
    recipe = find_recipe(name, epochs=2, consistency=True, mixup=True, warmup_epochs=1)
    result = run(tiny_bert, tmp_path / "s", n=8, recipe=recipe)
    assert len(result.epochs) == 2
    assert np.isfinite(result.epochs[-1].loss)
    assert Student.load(tmp_path / "s", "cpu").labels == LABELS


def test_extras_follow_the_seed_too(tiny_bert, tmp_path):
    recipe = find_recipe("ca_dr_c", epochs=2, consistency=True, mixup=True)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tiny_bert, tmp_path / name, seed=seed, recipe=recipe)
    first, same, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert first == same
    assert first != other


def test_texts_without_candidates_are_read_where_consistency_uses_them(tiny_bert, tmp_path):
    S = np.array([[True, False, False], [False, False, False], [False, True, False]])
    for name, word in (("a", "two"), ("b", "three")):
        recipe = find_recipe("ca_cc", epochs=1, consistency=True)
        result = distill(["red", word, "blue"], S, None, LABELS, settings(tiny_bert), 0, tmp_path / name, recipe=recipe)
        assert result.n_train == 2
        assert result.epochs[0].kept_rate == pytest.approx(2 / 3)
    first, second = (weights_of(tmp_path / name)["classifier.weight"] for name in "ab")
    assert not torch.equal(first, second)


def test_a_step_that_runs_out_of_memory_is_taken_in_halves(tiny_bert, tmp_path, monkeypatch):
    tried, whole = [], EncoderLearner.logits

    def narrow(self, rows, rng=None, mix=None):
        tried.append(len(rows))
        if len(rows) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, rows, rng, mix)

    monkeypatch.setattr(EncoderLearner, "logits", narrow)
    result = run(tiny_bert, tmp_path / "s", epochs=1)
    # 24 texts in batches of 8: the first one finds the limit, the others keep it.
    assert tried == [8, 4, 4, 4, 4, 4, 4]
    assert np.isfinite(result.epochs[-1].loss)


def test_a_step_on_a_cpu_passes_no_more_tokens_at_once_than_the_budget(tiny_bert, tmp_path, monkeypatch):
    passed, whole = [], EncoderLearner.logits

    def watched(self, rows, rng=None, mix=None):
        passed.append((len(rows), max(self.lengths[row] for row in rows)))
        return whole(self, rows, rng, mix)

    monkeypatch.setattr(EncoderLearner, "logits", watched)
    monkeypatch.setattr("candist_core.student.distill.CPU_TOKENS", 20)
    run(tiny_bert, tmp_path / "s", epochs=1)
    assert sum(n for n, _ in passed) == 24
    assert all(n * longest <= 20 for n, longest in passed)
    assert max(n for n, _ in passed) > 1


def test_a_text_too_large_for_the_device_is_one_sentence(tiny_bert, tmp_path, monkeypatch):
    def full(self, rows, rng=None, mix=None):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(EncoderLearner, "logits", full)
    with pytest.raises(StudentError, match="too little memory for one text, wanted room for it; lower"):
        run(tiny_bert, tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("name", ["sa_ce", "ca_ml_em", "ca_dr_c"])
def test_five_hundred_labels_of_which_few_have_texts_train(tiny_bert, tmp_path, name):
    labels = tuple(f"label {j}" for j in range(500))
    S = np.zeros((20, 500), dtype=bool)
    S[np.arange(20), np.arange(20) * 7] = True
    texts = [f"{'one ' * (i % 5)}red" for i in range(20)]
    recipe = find_recipe(name, epochs=2)
    result = distill(texts, S, np.where(S, 0, -1), labels, settings(tiny_bert), 0, tmp_path / "s", recipe=recipe)
    assert np.isfinite(result.epochs[-1].loss)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_student_trains_on_cuda(tiny_bert, tmp_path):
    result = run(tiny_bert, tmp_path / "s", device="cuda")
    assert result.device == "cuda"
    assert np.isfinite(result.epochs[-1].loss)
