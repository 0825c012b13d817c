import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from candist_core.answers import read_answers
from candist_core.candidates import candidate_mask, rank_table
from candist_core.config import StudentConfig
from candist_core.memory import begin
from candist_core.recipe import find_recipe
from candist_core.student.checkpoint import FILE, Checkpoint, Past
from candist_core.student.distill import distill

LABELS = ("red", "green", "blue")


class KilledError(Exception):
    """Stands for the end of the process."""


def corpus():
    rng = np.random.default_rng(0)
    texts = [f"{' '.join(rng.choice(['one', 'two', 'the'], size=1 + i % 4))} {LABELS[i % 3]}" for i in range(24)]
    return texts, [[LABELS[i % 3], LABELS[rng.integers(3)]][: 1 + i % 2] for i in range(24)]


def train(folder, out, scratch=None, recipe=None, die_in=None, seed=0, on_note=None, **changes):
    """The notes of a training; with `die_in` it ends in that epoch."""
    texts, sets = corpus()
    sets = [list(dict.fromkeys(labels)) for labels in sets]
    notes = []

    def watch(progress):
        notes.append(progress.note)
        if on_note:
            on_note(progress.note)
        if progress.note.startswith(f"epoch {die_in}/"):
            raise KilledError

    config = StudentConfig(model=str(folder), **{"batch_rows": 8, "learning_rate": 1e-3, "device": "cpu", **changes})
    recipe = recipe or find_recipe("ca_proden", epochs=3)
    S, R = candidate_mask(sets, LABELS), rank_table(sets, LABELS)
    try:
        distill(texts, S, R, LABELS, config, seed, out, watch, recipe=recipe, scratch=scratch)
    except KilledError:
        assert not out.exists()
    return [note.split()[1] for note in notes]


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


RECIPES = [
    find_recipe("ca_dr_c", epochs=5, warmup_epochs=1, consistency=True, mixup=True),
    find_recipe("ca_ml_em", epochs=5),
    find_recipe("ca_alim", epochs=5),
    replace(find_recipe("ca_dr", epochs=5, warmup_epochs=1), guard=True, rescue_agreed=True),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.rule for recipe in RECIPES])
def test_a_training_that_goes_on_ends_in_the_bytes_of_an_undisturbed_one(tiny_bert, tmp_path, recipe):
    whole = train(tiny_bert, tmp_path / "whole", recipe=recipe)
    train(tiny_bert, tmp_path / "s", tmp_path / "kept", recipe, die_in=3)
    rest = train(tiny_bert, tmp_path / "s", tmp_path / "kept", recipe, die_in=5)
    last = train(tiny_bert, tmp_path / "s", tmp_path / "kept", recipe)
    assert (whole[0], rest[0], last[0]) == ("1/5", "3/5", "5/5")
    assert weights(tmp_path / "s") == weights(tmp_path / "whole")


def test_adapters_go_on_too(tiny_bert, tmp_path):
    train(tiny_bert, tmp_path / "whole", lora_rank=2)
    train(tiny_bert, tmp_path / "s", tmp_path / "kept", die_in=2, lora_rank=2)
    assert train(tiny_bert, tmp_path / "s", tmp_path / "kept", lora_rank=2) == ["2/3", "3/3"]
    assert weights(tmp_path / "s") == weights(tmp_path / "whole")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_training_on_cuda_goes_on_where_it_was_killed(tiny_bert, tmp_path):
    train(tiny_bert, tmp_path / "s", tmp_path / "kept", die_in=2, device="cuda")
    assert train(tiny_bert, tmp_path / "s", tmp_path / "kept", device="cuda") == ["2/3", "3/3"]


def test_a_training_whose_student_was_not_saved_trains_no_more(tiny_bert, tmp_path):
    train(tiny_bert, tmp_path / "a", tmp_path / "kept")
    assert train(tiny_bert, tmp_path / "b", tmp_path / "kept") == []
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


@pytest.mark.parametrize("changes", [{"seed": 1}, {"learning_rate": 1e-4}, {"batch_rows": 4}, {"lora_rank": 2}])
def test_what_was_kept_of_another_training_is_passed_over(tiny_bert, tmp_path, changes):
    train(tiny_bert, tmp_path / "a", tmp_path / "kept", die_in=3)
    assert train(tiny_bert, tmp_path / "b", tmp_path / "kept", **changes)[0] == "1/3"


def test_buffers_that_share_memory_are_kept_and_read(tmp_path):
    answers = read_answers(np.eye(3, dtype=bool), None, find_recipe("ca_uniform"), seed=0)
    begun = begin(answers, find_recipe("ca_uniform"))
    network, numbers = torch.nn.Linear(2, 2), torch.arange(4.0)
    network.register_buffer("whole", numbers)
    network.register_buffer("same", numbers.view(2, 2))
    optimizer = torch.optim.AdamW(network.parameters())
    checkpoint = Checkpoint(tmp_path, "key")
    checkpoint.save(network, optimizer, Past(begun))
    torch.nn.init.zeros_(network.weight)
    numbers.zero_()
    past = checkpoint.load(network, optimizer, begun)
    assert network.weight.abs().min() > 0
    assert network.same.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert (past.reports, past.memory.epoch) == ((), 0)


def cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def note(path):
    save_file(load_file(path), path, metadata={"note": "{}"})


def nothing(path):
    save_file(load_file(path), path)


@pytest.mark.parametrize("spoil", [cut, note, nothing])
def test_a_spoilt_checkpoint_begins_the_training_anew_and_is_told(tiny_bert, tmp_path, caplog, spoil):
    train(tiny_bert, tmp_path / "s", tmp_path / "kept", die_in=3)
    spoil(tmp_path / "kept" / FILE)
    assert train(tiny_bert, tmp_path / "s", tmp_path / "kept")[0] == "1/3"
    assert "a training is begun anew" in caplog.text


def test_without_room_for_checkpoints_training_ends_well_and_it_is_told(tiny_bert, tmp_path, caplog):
    (tmp_path / "kept").write_text("no folder")
    train(tiny_bert, tmp_path / "s", tmp_path / "kept")
    assert (tmp_path / "s" / "model.safetensors").exists()
    assert "epoch 3 is not kept for a restart: FileExistsError" in caplog.text


def test_a_checkpoint_is_one_file_without_pickles(tiny_bert, tmp_path):
    train(tiny_bert, tmp_path / "s", tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [FILE]
    assert load_file(tmp_path / "kept" / FILE)["optimizer/0/exp_avg"].dtype is torch.float32


@pytest.mark.slow
def test_a_process_killed_in_its_second_epoch_costs_that_epoch_alone(tiny_bert, tmp_path):
    script = f"""
        import time
        from pathlib import Path
        import torch
        from tests.student.test_checkpoint import train

        def stop(note):
            print(note, flush=True)
            if note.startswith("epoch 2/"):
                time.sleep(600)

        torch.set_num_threads(1)
        train(*map(Path, {[str(tiny_bert), str(tmp_path / "s"), str(tmp_path / "kept")]!r}), on_note=stop)
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout.readline().startswith("epoch 1/3")
        assert child.stdout.readline().startswith("epoch 2/3")
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    train(tiny_bert, tmp_path / "whole")
    assert train(tiny_bert, tmp_path / "s", tmp_path / "kept") == ["2/3", "3/3"]
    assert weights(tmp_path / "s") == weights(tmp_path / "whole")
