import sys

import numpy as np
import pytest
import torch
import transformers

from candist_core.config import StudentConfig
from candist_core.errors import StudentError
from candist_core.recipe import find_recipe
from candist_core.student.adapters import add_adapters, merge_adapters
from candist_core.student.device import choose_device
from candist_core.student.distill import EncoderLearner, distill
from candist_core.student.encode import find_weights
from candist_core.student.model import load_classifier
from candist_core.student.predict import Student

LABELS = ("red", "green", "blue")
TEXTS = [f"{filler} {label}" for filler in ("one", "the two", "it is a", "three") for label in LABELS]


@pytest.fixture
def classifier(tiny_bert):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield load_classifier(find_weights(str(tiny_bert)), choose_device("cpu"), LABELS, 32)


def train(folder, out, **changes):
    S = np.eye(3, dtype=bool)[np.arange(len(TEXTS)) % 3]
    config = StudentConfig(model=str(folder), batch_rows=4, learning_rate=1e-3, device="cpu", lora_rank=4)
    recipe = find_recipe("sa_ce", epochs=25)
    return distill(TEXTS, S, None, LABELS, config.model_copy(update=changes), 0, out, recipe=recipe)


@pytest.mark.slow
def test_adapters_learn_in_the_encoders_place(tiny_bert, tmp_path):
    train(tiny_bert, tmp_path / "s")
    P = Student.load(tmp_path / "s", "cpu").predict(["a red", "two green", "is blue"])
    assert P.argmax(axis=1).tolist() == [0, 1, 2]


def test_few_weights_learn_and_the_encoders_own_stand_still(classifier):
    network = classifier.network
    add_adapters(network, 2)
    learning = {name for name, weight in network.named_parameters() if weight.requires_grad}
    # Two layers of four 32 x 32, one 32 x 64 and one 64 x 32 matrix: 2 · 2 · (4 · 64 + 2 · 96) numbers in adapters.
    sizes = {name: weight.numel() for name, weight in network.named_parameters()}
    assert sum(sizes[name] for name in learning if "lora_" in name) == 1792
    assert {name.split(".")[0] for name in learning if "lora_" not in name} == {"bert", "classifier"}
    assert {name for name in learning if name.startswith("bert") and "lora_" not in name} == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
    }
    trained = [weight for group in EncoderLearner(classifier, [[2, 3]], 4).groups() for weight in group["params"]]
    assert sum(weight.numel() for weight in trained) == sum(sizes[name] for name in learning)


def test_a_merged_student_believes_what_it_believed_before(classifier):
    network = classifier.network
    names = set(network.state_dict())
    tuner = add_adapters(network, 2)
    for name, weight in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    network.eval()
    ids = torch.arange(5, 13)[None]
    with torch.no_grad():
        before = network(ids).logits
        merged = merge_adapters(tuner).eval()
        torch.testing.assert_close(merged(ids).logits, before)
    assert set(merged.state_dict()) == names


@pytest.mark.slow
def test_who_reads_the_student_needs_no_peft(tiny_bert, tmp_path, monkeypatch):
    train(tiny_bert, tmp_path / "s")
    assert not list((tmp_path / "s").glob("adapter*"))
    monkeypatch.setitem(sys.modules, "peft", None)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "s")
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    assert set(network.state_dict()) == set(plain.state_dict())
    assert Student.load(tmp_path / "s", "cpu").labels == LABELS


def test_without_peft_one_sentence_says_what_to_install(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(StudentError, match=r"student.lora_rank: found 4 without peft.*pip install \"candist\[lora\]\""):
        train(tiny_bert, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_an_encoder_without_linear_layers_is_one_sentence(classifier):
    classifier.network.base_model.encoder.layer = torch.nn.ModuleList()
    with pytest.raises(StudentError, match="found 2 for an encoder without linear layers"):
        add_adapters(classifier.network, 2)
