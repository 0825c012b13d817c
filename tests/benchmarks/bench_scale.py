"""A sampled run over many short texts, stage by stage: time, CPU, peak memory of any process, disk.

`python -m tests.benchmarks.bench_scale --rows 1000000 --folder F` makes the corpus (`scale_corpus`), reads it into
shards, draws the texts that the teacher reads, takes its answers from a recording (nine of ten right), distils a static
student, labels every row on two processes, measures, checks and publishes. Each stage is a process of its own and finds
what the stages before left in the store. A stage that ended is not run again: `--stages` names those to run, so that a
long one can be run by itself. The table goes to standard output, and its figures to `F/stages.json`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from candist_core.config import RunConfig, parse_config
from candist_core.edges.store import open_store
from candist_core.reports import IngestReport, PredictReport, RunReports
from candist_core.stages.annotate import annotate_shard
from candist_core.stages.check import check_annotations, check_labels
from candist_core.stages.distill import distill_student, find_student
from candist_core.stages.evaluate import assess_quality, evaluate_labels
from candist_core.stages.ingest import find_ingested, ingest_corpus
from candist_core.stages.plan import plan_annotation
from candist_core.stages.predict import find_labels, predict_shard
from candist_core.stages.publish import publish_version
from candist_core.stages.sample import Asked, draw_round, find_asked, find_round
from tests.benchmarks.scale_corpus import label_words, write

RIGHT = 0.9
WORKERS = 2
_MIB = 2**20


def config_of(folder: Path, kind: str, teacher_rows: int, shard_rows: int) -> RunConfig:
    """The run, everything inside the folder."""
    return parse_config(
        {
            "name": "scale",
            "task": {"labels": [{"name": label} for label in label_words()[0]]},
            "source": {"uri": str(folder / "corpus.jsonl"), "id": "id", "gold": "gold", "shard_rows": shard_rows},
            "store": {"uri": str(folder / "work")},
            "teacher": {"kind": "replay", "replies_uri": str(folder / "replies.jsonl")},
            "student": {"kind": kind, "device": "cpu"},
            "sampling": {"teacher_rows": teacher_rows},
            "checks": {"max_review_rate": 1.0},
            "publish": {"uri": str(folder / "published")},
        }
    )


def ingest(config: RunConfig) -> None:
    """Read the corpus into shards."""
    ingest_corpus(config)


def sample(config: RunConfig) -> None:
    """Draw the texts that the teacher reads, and record its answers to them."""
    drawn, rng = draw_round(config, ingested_of(config)), np.random.default_rng(0)
    labels, words = label_words()
    known = [set(own) for own in words]
    store = open_store(config.store)
    with Path(str(config.teacher.replies_uri)).open("w", encoding="utf-8") as file:
        for table in drawn.texts:
            for doc_id, text in store.read_table(table).iter_rows():
                # The label whose words a text is made of.
                likeness = [sum(word in own for word in text.split()) for own in known]
                label = labels[int(np.argmax(likeness))] if rng.random() < RIGHT else labels[rng.integers(len(labels))]
                file.write(json.dumps({"id": doc_id, "reply": json.dumps({"candidates": [label]})}) + "\n")


def annotate(config: RunConfig) -> None:
    """Have the recorded teacher answer, and end the sampling."""
    ingested, plan = ingested_of(config), plan_annotation(config)
    first = find_round(config, ingested, (), ())
    assert first is not None, "run the stage sample first"
    annotated = [annotate_shard(plan, table) for table in first.texts]
    draw_round(config, ingested, [first], annotated)


def distill(config: RunConfig) -> None:
    """Train the student."""
    asked = asked_of(config)
    distill_student(config, asked.texts, asked.annotated)


def predict(config: RunConfig) -> None:
    """Label every shard, two at a time, as two workers would."""
    ingested, asked = ingested_of(config), asked_of(config)
    student = find_student(config, asked.texts, asked.annotated)
    assert student is not None, "run the stage distill first"
    # Each worker one thread, as Dask has it.
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        shards = zip(ingested.texts, asked.by_shard, strict=True)
        for future in [pool.submit(predict_shard, config, *shard, student) for shard in shards]:
            future.result()


def evaluate(config: RunConfig) -> None:
    """Measure labels and sets."""
    keep_reports(config)


def check(config: RunConfig) -> None:
    """Check annotations and labels."""
    asked = asked_of(config)
    checks = [*check_annotations(config, asked.annotated)]
    checks += check_labels(config, asked.annotated, predicted_of(config, asked), asked.n_unread)
    failed = [check.name for check in checks if not check.passed]
    assert not failed, failed


def publish(config: RunConfig) -> None:
    """Publish what `evaluate` kept."""
    reports = RunReports.model_validate_json((Path(config.store.uri).parent / "reports.json").read_bytes())
    publish_version(config, reports, "scale")


STAGES: dict[str, Callable[[RunConfig], None]] = {
    "ingest": ingest,
    "sample": sample,
    "annotate": annotate,
    "distill": distill,
    "predict": predict,
    "evaluate": evaluate,
    "check": check,
    "publish": publish,
}


def ingested_of(config: RunConfig) -> IngestReport:
    """The shards of an earlier stage."""
    found = find_ingested(config)
    assert found is not None, "run the stage ingest first"
    return found


def asked_of(config: RunConfig) -> Asked:
    """The answers of an earlier stage."""
    ingested = ingested_of(config)
    asked = find_asked(config, ingested, plan_annotation(config)).whole(config, ingested)
    assert asked is not None, "run the stage annotate first"
    return asked


def predicted_of(config: RunConfig, asked: Asked) -> list[PredictReport]:
    """The labels of an earlier stage."""
    student = find_student(config, asked.texts, asked.annotated)
    assert student is not None
    shards = zip(ingested_of(config).texts, asked.by_shard, strict=True)
    return [found for shard in shards if (found := find_labels(config, *shard, student))]


def keep_reports(config: RunConfig) -> None:
    """Measure, and keep everything that is published."""
    ingested, asked = ingested_of(config), asked_of(config)
    student, predicted = find_student(config, asked.texts, asked.annotated), predicted_of(config, asked)
    assert student is not None
    reports = RunReports(
        ingested=ingested,
        annotated=asked.annotated,
        student=student,
        predicted=tuple(predicted),
        metrics=evaluate_labels(config, ingested, asked.by_shard, predicted, student),
        checks=(),
        quality=assess_quality(config, asked.texts, asked.annotated, student, predicted),
        sampling=asked.report,
    )
    Path(config.store.uri).parent.joinpath("reports.json").write_text(reports.model_dump_json())


def measured(command: list[str], folder: Path) -> dict[str, float]:
    """Run a process to its end: seconds, CPU seconds and peak MiB of it and its children, MiB written."""
    before, started = disk_bytes(folder), time.perf_counter()
    # As the workers of a run have it; else threads that wait count as work where the machine is busy.
    process = subprocess.Popen(command, env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return {
        "wall_s": time.perf_counter() - started,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
        "disk_mib": (disk_bytes(folder) - before) / _MIB,
    }


def disk_bytes(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def table(found: dict[str, dict[str, float]], n_rows: int, input_mib: float) -> str:
    """The stages as Markdown."""
    lines = ["| stage | s | CPU s | CPU s / 1 M rows | peak RSS (MiB) | disk (MiB) |", "|---|---|---|---|---|---|"]
    for stage, row in found.items():
        per_million = row["cpu_s"] / n_rows * 1e6
        lines.append(
            f"| {stage} | {row['wall_s']:.1f} | {row['cpu_s']:.1f} | {per_million:.1f} | {row['peak_mib']:.0f} "
            f"| {row['disk_mib']:.0f} |"
        )
    total = {name: sum(row[name] for row in found.values()) for name in ("wall_s", "cpu_s", "disk_mib")}
    peak, per_million = max(row["peak_mib"] for row in found.values()), total["cpu_s"] / n_rows * 1e6
    times = f"{total['disk_mib']:.0f}, {total['disk_mib'] / input_mib:.2f} times the input's {input_mib:.0f}"
    lines.append(f"| all | {total['wall_s']:.1f} | {total['cpu_s']:.1f} | {per_million:.1f} | {peak:.0f} | {times} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the arguments; run one stage, or all of them each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--teacher-rows", type=int, default=20_000)
    parser.add_argument("--shard-rows", type=int, default=50_000)
    parser.add_argument("--kind", default="static")
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--one", choices=list(STAGES), help="run this stage in this process")
    options = parser.parse_args()
    folder: Path = options.folder
    config = config_of(folder, options.kind, options.teacher_rows, options.shard_rows)
    if options.one:
        STAGES[options.one](config)
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "corpus.jsonl").exists():
        write(options.rows, folder / "corpus.jsonl")
        (folder / "replies.jsonl").touch()
    kept = folder / "stages.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    shared = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in ("rows", "teacher_rows", "shard_rows")]
    for stage in [stage for stage in options.stages if stage not in found]:
        command = [sys.executable, "-m", "tests.benchmarks.bench_scale", f"--folder={folder}", f"--kind={options.kind}"]
        found[stage] = measured([*command, *shared, "--one", stage], folder)
        kept.write_text(json.dumps(found, indent=1))
        print(f"{stage}: {found[stage]}", file=sys.stderr, flush=True)
    print(table(found, options.rows, (folder / "corpus.jsonl").stat().st_size / _MIB))


if __name__ == "__main__":
    main()
