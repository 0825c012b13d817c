import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

from candist_core.student.device import Device
from candist_core.student.encode import find_weights, threads, tokenise
from candist_core.student.model import load_classifier, predict_probs
from candist_core.student.predict import Student
from candist_core.student.quick import MIN_TEXTS, quick_probs, token_batches, why_not_quick
from tests.student.conftest import WORDS

LABELS = ("red", "green", "blue", "none")
EXACT, ROUNDED = (Device("cpu", dtype, "test") for dtype in (torch.float32, torch.bfloat16))


def classifier_on(device, folder, labels=LABELS):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        classifier = load_classifier(find_weights(str(folder)), device, labels)
    classifier.network.eval()
    # Weights as far apart as a trained student's, and no label that wins everywhere.
    for weights in classifier.network.parameters():
        weights.data.mul_(3)
    P = predict_probs(classifier, tokenise(classifier.tokenizer, some_texts(200)))
    classifier.network.classifier.bias.data.sub_(torch.from_numpy(np.log(P).mean(axis=0)))
    return classifier


def some_texts(n):
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 25))) for _ in range(n)]


@pytest.fixture
def rounded(tiny_bert):
    return classifier_on(ROUNDED, tiny_bert)


@pytest.fixture
def exact(rounded):
    return replace(rounded, device=EXACT)


def test_the_last_layer_of_one_token_gives_the_belief_of_the_whole_network(exact):
    tokens = tokenise(exact.tokenizer, some_texts(150))
    np.testing.assert_allclose(quick_probs(exact, tokens, id), predict_probs(exact, tokens), atol=1e-5)


def test_bfloat16_gives_the_labels_of_float32(rounded, exact):
    tokens = tokenise(exact.tokenizer, some_texts(1000))
    P, wanted = quick_probs(rounded, tokens, id), predict_probs(exact, tokens)
    assert (P.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.999
    np.testing.assert_allclose(P, wanted, atol=0.05)


def test_texts_in_doubt_are_read_again_in_float32(rounded, exact):
    tokens = tokenise(exact.tokenizer, some_texts(1000))
    P, wanted = quick_probs(rounded, tokens, id), predict_probs(exact, tokens)
    top = np.sort(wanted, axis=1)
    closest = np.argsort(top[:, -1] - top[:, -2])[:10]
    np.testing.assert_allclose(P[closest], wanted[closest], atol=1e-5)
    is_rounded = np.abs(P - wanted).max(axis=1) > 1e-5
    assert is_rounded.mean() > 0.25


def test_few_texts_are_read_in_float32_alone(rounded, exact):
    tokens = tokenise(exact.tokenizer, some_texts(MIN_TEXTS - 1))
    np.testing.assert_allclose(quick_probs(rounded, tokens, id), predict_probs(exact, tokens), atol=1e-5)


def test_one_label_is_certain(tiny_bert):
    classifier = classifier_on(ROUNDED, tiny_bert, ("only",))
    tokens = tokenise(classifier.tokenizer, some_texts(100))
    np.testing.assert_array_equal(quick_probs(classifier, tokens, id), np.ones((100, 1)))


def test_belief_does_not_depend_on_how_many_threads_there_are(rounded):
    student, texts, found = Student(rounded), some_texts(300), []
    for n in (1, 2, 3):
        with threads(n):
            found.append(student.predict(texts).tobytes())
            assert torch.get_num_threads() == n
    assert found[0] == found[1] == found[2]


def test_equal_texts_have_equal_rows_and_progress_counts_every_text_once(rounded):
    texts, seen = some_texts(200), []
    P = Student(rounded).predict([*texts, *texts], on_progress=seen.append)
    np.testing.assert_array_equal(P[:200], P[200:])
    done = [progress.done for progress in seen]
    assert done == sorted(set(done))
    assert done[-1] == seen[-1].total == len(set(texts))


def test_texts_longer_than_the_model_are_cut(rounded):
    P = Student(rounded).predict(["red " * 400, "red " * 500])
    np.testing.assert_array_equal(P[0], P[1])


@pytest.mark.parametrize(("change", "reason"), [("other", "is no BERT"), ("layer", "its own answers differ")])
def test_a_network_that_cannot_be_computed_quickly_answers_itself_and_says_why(
    tiny_bert, exact, caplog, tmp_path, change, reason
):
    if change == "other":
        config = transformers.DistilBertConfig(vocab_size=18, dim=32, n_layers=1, n_heads=2, hidden_dim=64)
        network = transformers.DistilBertForSequenceClassification(config).eval()
        classifier = replace(exact, network=network)
    else:
        classifier = exact
        classifier.network.bert.encoder.layer[0].register_forward_hook(lambda module, given, result: result * 0.5)
    texts = some_texts(100)
    with caplog.at_level(logging.INFO, "candist_core.student.predict"):
        P = Student(classifier).predict(texts)
    assert [reason in record.message for record in caplog.records] == [True]
    distinct = predict_probs(classifier, tokenise(classifier.tokenizer, texts))
    np.testing.assert_allclose(P, distinct, atol=1e-5)


def test_another_device_is_no_business_of_this_way(exact):
    classifier = replace(exact, device=Device("cuda:1", torch.float32, "test"))
    assert why_not_quick(classifier, [[2, 3]]) == "computes on cuda:1"


def test_batches_hold_every_row_once_and_no_more_tokens_than_asked():
    lengths = np.random.default_rng(0).integers(2, 90, size=300)
    rows = np.arange(7, 300)
    batches = token_batches(lengths, rows, batch_tokens=64)
    assert sorted(np.concatenate(batches).tolist()) == rows.tolist()
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= 64 for batch in batches)
    assert token_batches(lengths, rows[:0]) == []
