"""Uploading a version beside raw clients that put the same files into the same bucket of the same server.

`python -m tests.benchmarks.bench_publish --rows 400000 --student-mb 100`. A moto server in a process of its own; every
client in a fresh process, runs in turn, medians. "candist publish" is the whole of it: rows joined, hashed and encoded
twice, report and checks apart. "candist upload" is the part that a raw client does: files that are ready, into the
bucket, by the same code.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from candist_core.assemble import Part
from candist_core.config import Location, RunConfig
from candist_core.edges.store import open_store
from candist_core.manifest import VersionFile
from candist_core.reports import RunReports
from candist_core.upload import AT_ONCE, Uploads
from tests.core.test_publish import Run
from tests.published_student import weights_in

BUCKET = "bench"
CLIENTS = ("s3fs put", "aws s3 cp", "candist upload", "candist publish")


def run_of(folder: Path, n_rows: int, student_mb: int) -> Run:
    """A run whose labels are ready, with weights of a student."""
    work = open_store(Location(uri=str(folder / "work")))
    rows = [
        {"id": f"row-{i}", "text": f"text number {i} " + uuid4().hex * 4, "gold": None, "split": None}
        for i in range(n_rows)
    ]
    student = weights_in(work, student_mb * 2**20)
    return Run(work, rows, source={"shard_rows": 50_000}, student=[student], publish={"include_student": True})


def put_with_s3fs(source: Path, endpoint: str) -> None:
    """The recursive put of s3fs, which sends files side by side."""
    import s3fs

    s3fs.S3FileSystem(endpoint_url=endpoint).put(f"{source}/", f"{BUCKET}/{uuid4().hex}/", recursive=True)


def put_with_aws(source: Path, endpoint: str, command: str) -> None:
    """`aws s3 cp --recursive` as it comes."""
    target = f"s3://{BUCKET}/{uuid4().hex}/"
    words = [command, "--endpoint-url", endpoint, "s3", "cp", "--recursive", "--quiet", str(source), target]
    subprocess.run(words, check=True)


def upload(source: Path, endpoint: str) -> None:
    """Files of a version, by the code that publishes them."""
    work = open_store(Location(uri=str(source)))
    target = open_store(Location(uri=f"s3://{BUCKET}/{uuid4().hex}", endpoint_url=endpoint))
    manifest = json.loads((source / "manifest.json").read_text())
    with Uploads(target, "versions/x", work, AT_ONCE, on_wait=lambda: None) as uploads:
        for one in manifest["files"]:
            file = VersionFile.model_validate(one)
            is_table = file.path.endswith(".parquet")
            data = work.read_bytes(file.path) if is_table else b""
            uploads.put(Part(file, data, source=None if is_table else file.path))
        uploads.finish()


def work_as(client: str, folder: Path, endpoint: str, args: argparse.Namespace) -> None:
    """One measured run in this process; prints seconds and MiB of peak memory above that before."""
    source = folder / "copy"
    run = run_of_saved(folder) if client == "candist publish" else None
    before = peak_mib()
    started = time.monotonic()
    if client == "s3fs put":
        put_with_s3fs(source, endpoint)
    elif client == "aws s3 cp":
        put_with_aws(source, endpoint, args.aws)
    elif client == "candist upload":
        upload(source, endpoint)
    else:
        assert run is not None
        run.publish(open_store(Location(uri=f"s3://{BUCKET}/{uuid4().hex}", endpoint_url=endpoint)))
    seconds = time.monotonic() - started
    print(json.dumps([seconds, peak_mib() - before]))


def peak_mib() -> float:
    """Peak memory of this process; what `getrusage` says is that of its parent where it was more."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def run_of_saved(folder: Path) -> Run:
    """The run that was measured before, without making its tables again."""
    run = Run.__new__(Run)
    state = json.loads((folder / "run.json").read_text())
    run.work = open_store(Location(uri=str(folder / "work")))
    run.config, run.reports = RunConfig.model_validate(state["config"]), RunReports.model_validate(state["reports"])
    return run


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--student-mb", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--aws", default="", help="path of the command aws; without it that row is left out")
    parser.add_argument("--as-client", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.as_client:
        work_as(args.as_client, args.folder, args.endpoint, args)
        return
    with TemporaryDirectory() as scratch:
        measure(Path(scratch), args)


def measure(folder: Path, args: argparse.Namespace) -> None:
    """Make the files, start the server, run every client in turn."""
    from candist_core.stages.pull import pull_version
    from candist_core.stages.versions import find_version

    run = run_of(folder, args.rows, args.student_mb)
    run.publish(open_store(Location(uri=str(folder / "ready"))))
    state = {"config": run.config.model_dump(mode="json"), "reports": run.reports.model_dump(mode="json")}
    (folder / "run.json").write_text(json.dumps(state))
    pull_version(find_version(Location(uri=str(folder / "ready/mails"))), folder / "copy")
    size = sum(path.stat().st_size for path in (folder / "copy").rglob("*") if path.is_file())
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    taken: dict[str, list[tuple[float, float]]] = {}
    for _ in range(args.runs):
        for client in CLIENTS:
            if client == "aws s3 cp" and not args.aws:
                continue
            taken.setdefault(client, []).append(once(client, folder, args.aws))
    print("| client | s | MB/s | of s3fs put | memory it took (MiB) |\n|---|---|---|---|---|")
    base = statistics.median(seconds for seconds, _ in taken["s3fs put"])
    for client, runs in taken.items():
        seconds, memory = (statistics.median(values) for values in zip(*runs, strict=True))
        print(f"| {client} | {seconds:.2f} | {size / seconds / 1e6:.0f} | {base / seconds:.2f} | {memory:.0f} |")
    print(f"\n{size / 1e6:.0f} MB in {sum(path.is_file() for path in (folder / 'copy').rglob('*'))} files")


def once(client: str, folder: Path, aws: str) -> tuple[float, float]:
    """One run of one client against a server that holds nothing yet."""
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout is not None
        endpoint = server.stdout.readline().strip()
        words = ["--as-client", client, "--folder", str(folder), "--endpoint", endpoint, "--aws", aws]
        command = [sys.executable, "-m", "tests.benchmarks.bench_publish", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, memory = json.loads(done.stdout.splitlines()[-1])
        return seconds, memory
    finally:
        server.kill()
        server.wait()


_SERVER = f"""
import time, urllib.request
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
endpoint = "http://%s:%d" % server.get_host_and_port()
urllib.request.urlopen(urllib.request.Request(f"{{endpoint}}/{BUCKET}", method="PUT")).close()
print(endpoint, flush=True)
time.sleep(3600)
"""


if __name__ == "__main__":
    main()
