import numpy as np
import pytest
import torch
import transformers

from candist_core.config import StudentConfig
from candist_core.student.device import Device
from candist_core.student.distill import EncoderLearner
from candist_core.student.encode import find_weights, load_tokenizer, tokenise
from candist_core.student.model import Classifier, load_classifier
from candist_core.student.views import Mix, draw_mix, drop_words, mixing

CPU = Device("cpu", torch.float32, "test")


def test_words_are_left_out_at_their_rate_and_special_tokens_never():
    text = [101, *range(1000, 1100), 102]
    views = drop_words([text] * 100, {101, 102}, np.random.default_rng(0))
    kept = np.mean([len(view) - 2 for view in views])
    assert kept == pytest.approx(90, abs=1)
    assert all(view[0] == 101 and view[-1] == 102 for view in views)
    assert all(view == [*sorted(view[:-1]), 102] for view in views)


def test_equal_seeds_leave_out_equal_words():
    texts = [[1, *range(10, 60), 2]] * 3
    one, same, other = (drop_words(texts, {1, 2}, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one == same
    assert one != other
    assert one[0] != one[1]


@pytest.mark.parametrize("text", [[1, 2], [], [7], [1, 7, 2]])
def test_no_text_loses_all_its_words(text):
    assert drop_words([text], {1, 2}, np.random.default_rng(0), share=1.0) == [text]


def test_pairs_stay_among_the_first_rows_and_no_share_passes_a_half():
    rng = np.random.default_rng(0)
    for _ in range(50):
        mix = draw_mix(5, 8, rng)
        assert sorted(mix.partners[:5]) == [0, 1, 2, 3, 4]
        assert mix.partners[5:].tolist() == [5, 6, 7]
        assert 0 < mix.share <= 0.5


def test_blending_takes_the_share_from_the_partner():
    mix = Mix(np.array([1, 0]), 0.25)
    blended = mix.blend(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert blended.tolist() == [[0.75, 0.25], [0.25, 0.75]]


def tiny(kind, folder):
    """A classifier of another architecture, on the same tiny vocabulary."""
    sizes = {"vocab_size": 18, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "num_labels": 3, "pad_token_id": 0}
    if kind == "roberta":
        config = transformers.RobertaConfig(**sizes, max_position_embeddings=40)
    elif kind == "distilbert":
        config = transformers.DistilBertConfig(
            vocab_size=18, dim=32, n_layers=1, n_heads=2, hidden_dim=64, max_position_embeddings=32, num_labels=3
        )
    else:
        config = transformers.BertConfig(**sizes, max_position_embeddings=32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = transformers.AutoModelForSequenceClassification.from_config(config)
    return Classifier(network.eval(), load_tokenizer(find_weights(str(folder)), 16), CPU)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_an_encoder_runs_once_for_plain_and_mixed_rows(kind, tiny_bert):
    classifier = tiny(kind, tiny_bert)
    learner = EncoderLearner(classifier, tokenise(classifier.tokenizer, ["red one", "blue", "green a"]), 3)
    rows, mix = np.arange(3), Mix(np.array([1, 0, 2]), 0.3)
    runs = []
    handle = classifier.network.base_model.register_forward_hook(lambda *_: runs.append(1))
    with torch.inference_mode():
        plain, both = learner.logits(rows), learner.logits(rows, mix=mix)
        again = learner.logits(rows)
    handle.remove()
    assert len(runs) == 3
    assert both.shape == (6, 3)
    torch.testing.assert_close(both[:3], plain)
    # Row 2 is its own partner; rows 0 and 1 lie between each other.
    torch.testing.assert_close(both[5], plain[2])
    assert not torch.allclose(both[3], plain[0])
    torch.testing.assert_close(again, plain)


def test_mixing_of_a_linear_head_mixes_its_logits(tiny_bert):
    classifier = tiny("bert", tiny_bert)
    learner = EncoderLearner(classifier, tokenise(classifier.tokenizer, ["red one", "blue"]), 2)
    with torch.inference_mode():
        plain = learner.logits(np.arange(2))
        both = learner.logits(np.arange(2), mix=Mix(np.array([1, 0]), 0.4))
    torch.testing.assert_close(both[2], 0.6 * plain[0] + 0.4 * plain[1])


def test_a_network_is_as_before_once_mixing_is_left(tiny_bert):
    network = tiny("bert", tiny_bert).network
    with pytest.raises(ZeroDivisionError), mixing(network, Mix(np.array([0]), 0.1)):
        raise ZeroDivisionError
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_perturbed_view_differs_and_follows_its_seed(tiny_bert):
    config = StudentConfig(method="dr", model=str(tiny_bert))
    classifier = load_classifier(find_weights(config.model), CPU, ("a", "b", "c"), 32)
    tokens = tokenise(classifier.tokenizer, ["one two three four five the a is it red"] * 4)
    learner = EncoderLearner(classifier, tokens, 4)
    every = np.arange(len(learner.tokens))
    plain = learner.believe(every)
    one, same, other = (learner.believe(every, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert (one != plain).any()
