import numpy as np
import pytest
import torch
import transformers

from candist_core.config import StudentConfig
from candist_core.errors import StudentError
from candist_core.student.device import Device
from candist_core.student.distill import distill
from candist_core.student.encode import find_weights
from candist_core.student.model import load_classifier
from candist_core.student.predict import Student

LABELS = ("red", "green", "blue")
TEXTS = ["one red two three", "blue", "", "the green is it a a a one", "one red two three"]


@pytest.fixture(scope="module")
def folder(tiny_bert, tmp_path_factory):
    out = tmp_path_factory.mktemp("student") / "s"
    config = StudentConfig(method="dr", model=str(tiny_bert), epochs=2, learning_rate=1e-2, device="cpu")
    distill(["red", "green", "blue"], np.eye(3, dtype=bool), None, LABELS, config, 0, out)
    return out


@pytest.fixture(scope="module")
def exact(folder):
    device = Device("cpu", torch.float32, "test")
    return Student(load_classifier(find_weights(str(folder)), device))


def test_belief_is_the_softmax_of_each_text_by_itself(folder, exact):
    P = exact.predict(TEXTS)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for text, row in zip(TEXTS, P, strict=True):
        with torch.inference_mode():
            logits = network(**exact.classifier.tokenizer(text, return_tensors="pt")).logits[0].numpy()
        powers = np.exp(logits - logits.max())
        np.testing.assert_allclose(row, powers / powers.sum(), atol=1e-5)


def test_rows_are_float32_in_label_order_and_sum_to_one(folder):
    student = Student.load(folder, "cpu")
    P = student.predict(TEXTS)
    assert student.labels == LABELS
    assert P.dtype == np.float32
    assert P.shape == (5, 3)
    np.testing.assert_allclose(P.sum(axis=1), 1, atol=1e-6)


def test_the_devices_type_changes_no_belief_by_more_than_two_percent(folder, exact):
    np.testing.assert_allclose(Student.load(folder, "cpu").predict(TEXTS), exact.predict(TEXTS), atol=0.02)


def test_more_texts_than_a_batch_keep_their_order(exact):
    texts = [f"{'one ' * (i % 20)} {LABELS[i % 3]}" for i in range(150)]
    P = exact.predict(texts)
    for i in (0, 63, 64, 149):
        np.testing.assert_allclose(P[i], exact.predict([texts[i]])[0], atol=1e-5)


def test_equal_texts_are_computed_once_and_have_equal_rows(exact):
    seen = []
    P = exact.predict(TEXTS, on_progress=seen.append, part="shard-1")
    np.testing.assert_array_equal(P[0], P[4])
    assert [(progress.stage, progress.part, progress.done, progress.total) for progress in seen] == [
        ("predict", "shard-1", 4, 4)
    ]


def test_no_texts_give_no_rows(exact):
    assert exact.predict([]).shape == (0, 3)


def test_predicting_twice_gives_the_same_bytes(folder):
    first, second = (Student.load(folder, "cpu").predict(TEXTS).tobytes() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_folder_without_a_student_is_one_sentence(tmp_path, name):
    with pytest.raises(StudentError) as caught:
        Student.load(tmp_path / name)
    assert "\n" not in str(caught.value)
