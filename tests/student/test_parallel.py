"""Several processes on one machine, here on its CPU; with GPUs only the device and the transport differ."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from candist_core.candidates import candidate_mask, rank_table
from candist_core.config import StudentConfig
from candist_core.errors import StudentError
from candist_core.recipe import find_recipe
from candist_core.student.distill import distill
from candist_core.student.group import Group
from candist_core.student.parallel import distill_in_parallel

LABELS = ("red", "green", "blue")
TEXTS = [f"{'one ' * (i % 4)}{LABELS[i % 3]}" for i in range(23)]
SETS = [[LABELS[i % 3], LABELS[(i + 1) % 3]][: 1 + i % 2] for i in range(23)]

pytestmark = pytest.mark.slow


def run(folder, out, processes, recipe="ca_proden", epochs=3, scratch=None, tell=lambda progress: None, **changes):
    settings = {"batch_rows": 8, "learning_rate": 1e-3, "device": "cpu", "processes": processes, **changes}
    config = StudentConfig(model=str(folder), **settings)
    S, R, plan = candidate_mask(SETS, LABELS), rank_table(SETS, LABELS), find_recipe(recipe, epochs=epochs)
    train = distill if processes == 1 else distill_in_parallel
    return train(TEXTS, S, R, LABELS, config, 0, out, tell, n_threads=processes, recipe=plan, scratch=scratch)


@pytest.fixture
def no_dropout(tiny_bert, tmp_path):
    """Without chance in the network, shares add up to the batch but for rounding."""
    import transformers

    folder = tmp_path / "still"
    network = transformers.BertModel.from_pretrained(tiny_bert)
    network.config.hidden_dropout_prob = network.config.attention_probs_dropout_prob = 0.0
    network.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return folder


def test_shares_of_rows_are_disjoint_and_whole():
    shares = [Group(rank, 3).share(np.arange(7)) for rank in range(3)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(7))


def test_several_processes_learn_what_one_does(no_dropout, tmp_path):
    # 23 texts in batches of 8: shares differ in size.
    alone = run(no_dropout, tmp_path / "alone", 1)
    notes = []
    found = run(no_dropout, tmp_path / "many", 3, tell=lambda progress: notes.append(progress.note))
    one, many = (load_file(tmp_path / name / "model.safetensors") for name in ("alone", "many"))
    begun = load_file(Path(no_dropout) / "model.safetensors")
    shared = [name for name in one if name.removeprefix("bert.") in begun]
    moved = sum((one[name] - begun[name.removeprefix("bert.")]).abs().sum() for name in shared)
    apart = sum((one[name] - many[name]).abs().sum() for name in shared)
    # Adam takes whole steps also where the gradient is rounding alone, so single weights may differ.
    assert apart < 0.05 * moved
    losses = [epoch.loss for epoch in found.epochs]
    assert losses == [pytest.approx(epoch.loss, abs=5e-3) for epoch in alone.epochs]
    assert found.n_train == 23
    assert found.device_reason.endswith("; 3 processes")
    assert notes[-1].startswith("epoch 3/3 loss ")


def test_the_same_processes_give_equal_weights_and_go_on_after_a_kill(tiny_bert, tmp_path):
    run(tiny_bert, tmp_path / "whole", 2, recipe="ca_dr", epochs=60)
    script = f"""
        from tests.student.test_parallel import run
        from pathlib import Path
        run({str(tiny_bert)!r}, Path({str(tmp_path / "s")!r}), 2, "ca_dr", 60, Path({str(tmp_path / "kept")!r}),
            lambda progress: print(progress.note, flush=True))
    """
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        if line.startswith("epoch 2/60"):
            break
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not orphans(), "processes outlive the one that waits for them"
    notes = []
    run(tiny_bert, tmp_path / "s", 2, "ca_dr", 60, tmp_path / "kept", lambda progress: notes.append(progress.note))
    assert not notes[0].startswith("epoch 1/60 ")
    assert notes[-1].startswith("epoch 60/60 ")
    assert (tmp_path / "s/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def orphans():
    """Processes of a training that still run long after."""
    import psutil

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if "candist_core.student.parallel" in (process.info["cmdline"] or []) and process.ppid() == 1
        ]
        if not found:
            return []
        time.sleep(0.1)
    return found


def test_what_a_process_refuses_is_the_sentence_of_the_run(tiny_bert, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bert, broken)
    state = load_file(broken / "model.safetensors")
    state["embeddings.word_embeddings.weight"][:] = float("nan")
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StudentError, match=r"student training: found a loss of nan in epoch 1, wanted a finite one"):
        run(broken, tmp_path / "s", 2)
    assert not (tmp_path / "s").exists()


def test_a_process_that_dies_ends_the_others_with_one_sentence(tiny_bert, tmp_path):
    def kill_one(progress):
        import psutil

        children = psutil.Process(os.getpid()).children()
        children[-1].kill()

    with pytest.raises(StudentError, match="a process that died with exit status -9, wanted one that ends"):
        run(tiny_bert, tmp_path / "s", 2, epochs=50, tell=kill_one)
    assert not (tmp_path / "s").exists()


def test_more_processes_than_gpus_and_a_numbered_gpu_are_refused(tiny_bert, tmp_path):
    n = torch.cuda.device_count()
    with pytest.raises(StudentError, match=rf"student.processes: found 64 for {n} GPUs, wanted one GPU for each"):
        run(tiny_bert, tmp_path / "s", 64, device="cuda")
    with pytest.raises(StudentError, match=r"student.processes 2: found student.device 'cuda:1'"):
        run(tiny_bert, tmp_path / "s", 2, device="cuda:1")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_two_gpus_train_one_student(tiny_bert, tmp_path):
    found = run(tiny_bert, tmp_path / "s", 2, device="cuda")
    assert np.isfinite(found.epochs[-1].loss)
