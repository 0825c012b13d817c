import json
from pathlib import Path

import numpy as np
import pytest
import torch

from candist_core.config import StudentConfig, StudentKind
from candist_core.errors import StudentError
from candist_core.recipe import find_recipe
from candist_core.student.frozen import FrozenStudent, distill_frozen

LABELS = ("red", "green", "blue")
TEXTS = [f"{word} {label}" for word in ("one", "two", "three", "the", "a", "is") for label in LABELS]


class CountsWords:
    """An embedder that counts a few words, and remembers how many texts it was asked for."""

    def __init__(self):
        self.n_texts = 0

    def __call__(self, texts):
        self.n_texts += len(texts)
        counts = [[text.split().count(word) + 0.1 for word in (*LABELS, "one", "two")] for text in texts]
        X = np.array(counts, dtype=np.float32).reshape(len(texts), 5)
        return X / np.linalg.norm(X, axis=1, keepdims=True)


def run(out, seed=0, embed=None, **changes):
    S = np.eye(3, dtype=bool)[np.arange(len(TEXTS)) % 3]
    config = StudentConfig(method="dr", device="cpu", **changes)
    return distill_frozen(TEXTS, S, np.where(S, 0, -1), LABELS, config, seed, out, embed=embed or CountsWords())


def test_a_saved_head_predicts_as_it_learned(tmp_path):
    result = run(tmp_path / "s")
    student = FrozenStudent.load(tmp_path / "s", "cpu", CountsWords())
    P = student.predict(["one blue", "red", "red", "a green"])
    assert P.argmax(axis=1).tolist() == [2, 0, 0, 1]
    np.testing.assert_array_equal(P[1], P[2])
    assert student.labels == LABELS
    assert result.n_train == 18
    assert len(result.epochs) == 20
    assert result.device == "cpu"


def test_the_folder_holds_weights_and_a_card_alone(tmp_path):
    run(tmp_path / "s")
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == ["head.json", "head.safetensors"]
    card = json.loads((tmp_path / "s" / "head.json").read_text())
    assert card == {"embedder": "minilm", "max_tokens": 128, "labels": list(LABELS), "d": 5, "hidden": 256}


def test_equal_seeds_give_equal_bytes(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path / name, seed)
    first, same, other = ((tmp_path / name / "head.safetensors").read_bytes() for name in "abc")
    assert first == same
    assert first != other


def test_equal_texts_are_embedded_once(tmp_path):
    run(tmp_path / "s")
    embed, seen = CountsWords(), []
    student = FrozenStudent.load(tmp_path / "s", "cpu", embed)
    P = student.predict(["red", "blue", "red"], on_progress=seen.append, part="shard-1")
    assert embed.n_texts == 2
    np.testing.assert_array_equal(P[0], P[2])
    assert [(progress.stage, progress.part, progress.done, progress.total) for progress in seen] == [
        ("predict", "shard-1", 2, 2)
    ]
    assert student.predict([]).shape == (0, 3)


def test_progress_counts_the_passes_that_the_settings_tell(tmp_path):
    notes = []
    config, S = StudentConfig(kind="frozen", device="cpu", method="dr", epochs=3), np.eye(3, dtype=bool)
    distill_frozen(TEXTS[:3], S, None, LABELS, config, 0, tmp_path / "s", notes.append, embed=CountsWords())
    assert config.passes == 20
    assert (notes[-1].done, notes[-1].total) == (20 * 3, 20 * 3)
    assert notes[-1].note.startswith("epoch 20/20")
    assert config.model_copy(update={"kind": StudentKind.ENCODER}).passes == 3


def test_a_recipe_may_be_given(tmp_path):
    S = np.eye(3, dtype=bool)[np.arange(len(TEXTS)) % 3]
    recipe = find_recipe("sa_ls", epochs=2, mixup=True)
    config = StudentConfig(method="dr", device="cpu")
    result = distill_frozen(
        TEXTS, S, np.where(S, 0, -1), LABELS, config, 0, tmp_path / "s", recipe=recipe, embed=CountsWords()
    )
    assert len(result.epochs) == 2


def test_the_encoder_of_the_settings_is_loaded_where_none_is_given(tiny_bert, tmp_path):
    S = np.eye(3, dtype=bool)[np.arange(len(TEXTS)) % 3]
    threads = torch.get_num_threads()
    distill_frozen(
        TEXTS, S, None, LABELS, StudentConfig(method="dr", model=str(tiny_bert), device="cpu"), 0, tmp_path / "s"
    )
    assert torch.get_num_threads() == threads
    P = FrozenStudent.load(tmp_path / "s", "cpu").predict(["one red", "two blue"])
    np.testing.assert_allclose(P.sum(axis=1), 1, atol=1e-6)


def spoil(folder: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("head.json", None),
        ("head.json", b"{"),
        ("head.json", b'{"embedder": "minilm", "max_tokens": 128, "labels": [], "d": 5, "hidden": 256}'),
        ("head.json", b'{"embedder": "minilm", "max_tokens": 128, "labels": ["x"], "d": 5, "hidden": 256}'),
        ("head.json", b'{"embedder": "minilm", "max_tokens": 8, "labels": ["x"], "d": 99999999, "hidden": 1}'),
        ("head.safetensors", None),
        ("head.safetensors", b"no tensors"),
    ],
)
def test_a_folder_without_a_usable_head_is_one_sentence(tmp_path, name, content):
    run(tmp_path / "s")
    spoil(tmp_path / "s", name, content)
    with pytest.raises(StudentError, match="student: found nothing that loads") as caught:
        FrozenStudent.load(tmp_path / "s", "cpu", CountsWords())
    assert "\n" not in str(caught.value)


def test_no_answers_leave_no_folder(tmp_path):
    with pytest.raises(StudentError, match="found 0 of 2 with candidates"):
        distill_frozen(
            ["a", "b"], np.zeros((2, 3), bool), None, LABELS, StudentConfig(method="dr", device="cpu"), 0,
            tmp_path / "s", embed=CountsWords(),
        )  # fmt: skip
    assert not (tmp_path / "s").exists()
