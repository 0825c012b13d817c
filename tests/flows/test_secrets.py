"""Nothing that a run leaves behind or says holds the API key, in any of the ways that keys come to be written."""

import asyncio
import base64
import gzip
import html
import json
import logging
import pickle
import sqlite3
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import polars as pl
import pytest
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

import candist_core
import flows
import tasks
from candist_core.edges.openai_teacher import open_openai_teacher
from candist_core.errors import ConfigError, RowError, TeacherError
from candist_core.prompt import compile_prompt
from candist_core.spec import TaskSpec
from candist_core.teacher_config import TeacherConfig
from flows.cli import main
from flows.label_corpus import label_corpus
from tests.fakes import ChatServer, raw, status, user_text
from tests.flows.corpora import demo_config, demo_replies, demo_rows, write_config
from tests.student.conftest import tiny_bert as tiny_bert

pytestmark = pytest.mark.flow

# It looks different in JSON, in a URL and in HTML.
KEY = "sk-candist/NOT+to=be&seen~4f1d9c0a"
TASK = TaskSpec(labels=[{"name": "spam"}, {"name": "ham"}])
N_ROWS = 24


def _base64_cores(data: bytes) -> Iterator[bytes]:
    """What of the data's base64 does not depend on what stands before and after it."""
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + data)
        yield encoded[4 if shift else 0 : len(data) * 4 // 3 - 4]


SPELLINGS: dict[str, bytes] = {
    "clear": KEY.encode(),
    "reversed": KEY[::-1].encode(),
    "URL": quote(KEY, safe="").encode(),
    "URL, slashes kept": quote(KEY).encode(),
    "JSON with \\/": KEY.replace("/", "\\/").encode(),
    "JSON, escaped": KEY.replace("&", "\\u0026").encode(),
    "HTML": html.escape(KEY).encode(),
    "hex": KEY.encode().hex().encode(),
    "HEX": KEY.encode().hex().upper().encode(),
    "UTF-16": KEY.encode("utf-16-le"),
    **{f"base64, {i}": core for i, core in enumerate(_base64_cores(KEY.encode()))},
    **{
        f"base64url, {i}": core.translate(bytes.maketrans(b"+/", b"-_"))
        for i, core in enumerate(_base64_cores(KEY.encode()))
    },
    # A key is no longer secret once most of it is known.
    "first half": KEY[: len(KEY) // 2].encode(),
    "second half": KEY[len(KEY) // 2 :].encode(),
}


def spellings_in(data: bytes) -> list[str]:
    return [name for name, spelt in SPELLINGS.items() if spelt in data]


def contents(path: Path) -> Iterator[bytes]:
    """A file's bytes, and what they stand for where they are packed."""
    data = path.read_bytes()
    yield data
    if data[:4] == b"PAR1":
        frame = pl.read_parquet(BytesIO(data))
        yield repr(pl.read_parquet_metadata(BytesIO(data))).encode()
        yield frame.write_json().encode("utf-8", "surrogatepass")
    elif data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    elif data[:15] == b"SQLite format 3":
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            yield "\n".join(database.iterdump()).encode("utf-8", "surrogatepass")


def leaks(folders: list[Path]) -> list[str]:
    """Files that hold the key, each with how it is spelt there."""
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    assert files, "nothing was left behind, so nothing was looked at"
    return [f"{path}: {found}" for path in files for data in contents(path) if (found := spellings_in(data))]


@dataclass
class Heard:
    """Every log record of the process as text, from DEBUG on."""

    lines: list[str] = field(default_factory=list)

    def handler(self) -> logging.Handler:
        handler = logging.Handler(logging.DEBUG)
        form = logging.Formatter("%(name)s %(message)s %(args)r")
        handler.emit = lambda record: self.lines.append(form.format(record))  # type: ignore[method-assign]
        return handler


@contextmanager
def listening() -> Iterator[Heard]:
    """Hear all loggers, those of the HTTP client at their most talkative."""
    heard, root = Heard(), logging.getLogger()
    handler, level = heard.handler(), root.level
    talkers = [logging.getLogger(name) for name in ("openai", "httpx", "httpx2", "httpcore", "aiohttp", "candist_core")]
    levels = [talker.level for talker in talkers]
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    for talker in talkers:
        talker.setLevel(logging.DEBUG)
    try:
        yield heard
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        for talker, before in zip(talkers, levels, strict=True):
            talker.setLevel(before)


def words_of(error: BaseException) -> bytes:
    """Everything that an error could tell: its text, traceback, arguments down its chain, and pickle."""
    parts = [repr(error), *traceback.format_exception(error)]
    seen: BaseException | None = error
    while seen is not None:
        parts += [repr(seen.args), repr(vars(seen))]
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "".join(parts).encode("utf-8", "surrogatepass") + pickle.dumps(error)


def locals_of(error: BaseException) -> bytes:
    """The local variables of candist's frames, which some trackers of errors send home."""
    ours = [str(Path(package.__file__).parent) for package in (candist_core, flows, tasks) if package.__file__]
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [frame for frame in frames if frame.f_code.co_filename.startswith(tuple(ours))]
    assert own
    return repr([frame.f_locals for frame in own]).encode("utf-8", "surrogatepass")


@pytest.fixture
def prefect_home(prefect_server, tmp_path_factory) -> Path:
    """The folder of the session's Prefect server: database, log, stored results."""
    (home,) = [path.parent for path in tmp_path_factory.getbasetemp().glob("prefect*[0-9]/prefect.db")]
    return home


@pytest.fixture(params=["environment", "block"])
def secret_settings(request, monkeypatch, prefect_server) -> dict[str, str]:
    """The settings of a teacher whose key lies in one of the places that a key may lie in."""
    if request.param == "block":
        monkeypatch.delenv("CANDIST_TEST_KEY", raising=False)
        Secret(value=KEY).save("candist-test-key", overwrite=True)
        return {"api_key_block": "candist-test-key"}
    monkeypatch.setenv("CANDIST_TEST_KEY", KEY)
    return {"api_key_env": "CANDIST_TEST_KEY"}


def secret_config(folder, base_url, settings, student="minilm", **teacher):
    """A small run whose teacher needs the key."""
    known = {"kind": "openai", "model": "m", "base_url": base_url, "replies_uri": None}
    return demo_config(
        folder,
        n=N_ROWS,
        epochs=1,
        teacher=known | settings | teacher,
        student={"model": str(student)},
        checks={"on_fail": "warn", "max_review_rate": 1.0},
    )


def answers() -> dict[str, str]:
    said = {row["id"]: row["reply"] for row in demo_replies(N_ROWS)}
    return {row["text"]: said[row["id"]] for row in demo_rows(N_ROWS)}


def wait_for_logs(run_id: str, word: str) -> None:
    """Until the server has the log line of a run that holds the word."""
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[UUID(run_id)]))
    deadline = time.monotonic() + 20
    with get_client(sync_client=True) as client:
        while not any(word in log.message for log in client.read_logs(log_filter=wanted)):
            assert time.monotonic() < deadline, f"no log line with {word!r}"
            time.sleep(0.2)


def test_the_search_finds_the_key_in_everything_that_it_looks_into(tmp_path):
    for name, spelt in SPELLINGS.items():
        assert name in spellings_in(b"x" + spelt + b"x")
    for text in (f"Bearer {KEY}", f"xBearer {KEY} x", f"xx{KEY}"):
        assert any("base64" in name for name in spellings_in(base64.b64encode(text.encode())))
    pl.DataFrame({"detail": [f"HTTP 400: {KEY}"] * 99}).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.gz").write_bytes(gzip.compress(KEY.encode()))
    with closing(sqlite3.connect(tmp_path / "c.db")) as database:
        database.execute("create table t (x blob)")
        database.execute("insert into t values (?)", [b"\0" * 5_000 + KEY.encode()])
        database.commit()
    (tmp_path / "d.txt").write_text("nothing")
    assert {Path(leak.split(": [")[0]).name for leak in leaks([tmp_path])} == {"a.parquet", "b.gz", "c.db"}


def echo(number: int, **fields: str):
    """An error of the endpoint that repeats the key, as gateways do that log what they got."""
    error = {"message": f"Incorrect API key provided: {KEY}. Header: Bearer {KEY}", "type": "x", **fields}
    return raw(json.dumps({"error": error}).replace("/", "\\/"), number)


def test_a_whole_run_leaves_no_key_in_store_version_server_logs_or_output(
    tmp_path, secret_settings, prefect_home, tiny_bert, monkeypatch, capfd
):
    said = answers()
    with listening() as heard, ChatServer(answer=lambda body: said[user_text(body)]) as server:
        odd = [status(400, message=f"you sent {KEY}"), status(400, message=f"Bearer {KEY}", code="content_filter")]
        odd += [status(500, message=KEY), status(429, message=KEY, retry_after="0"), raw(json.dumps({"key": KEY}))]
        server.script(odd)
        config = secret_config(tmp_path, server.base_url, secret_settings, tiny_bert)
        published = label_corpus(config)
        assert {header["authorization"] for header in server.headers} == {f"Bearer {KEY}"}
        assert len(server.requests) == N_ROWS + 3
    for command in (
        ["status", write_config(tmp_path, config)],
        ["estimate", tmp_path / "candist.yaml"],
        ["show", published.uri],
        ["labels", published.uri],
    ):
        monkeypatch.setattr(sys, "argv", ["candist", *map(str, command)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
    wait_for_logs(published.manifest.run_id, "Finished in state")
    rejects = pl.read_parquet(Path(published.uri) / "versions" / published.version / "rejects.parquet")
    assert rejects.height == 2, "both answers 400 are kept, without the key"
    assert all("[key]" in detail for detail in rejects["detail"])
    assert any(server.base_url.encode() in data for data in contents(prefect_home / "prefect.db"))
    assert leaks([tmp_path, prefect_home]) == []
    output = capfd.readouterr()
    assert "24 texts" in output.out
    assert spellings_in((output.out + output.err).encode()) == []
    assert len(heard.lines) > 20
    assert spellings_in("\n".join(heard.lines).encode()) == []
    assert spellings_in(pickle.dumps(published) + published.model_dump_json().encode()) == []


@pytest.mark.parametrize(
    "step",
    [
        echo(401),
        echo(403, code=KEY),
        echo(404, param=KEY),
        echo(400, code="unsupported_value", param=KEY),
    ],
    ids=["401", "403", "404", "400"],
)
def test_a_run_that_the_endpoint_refuses_says_so_without_the_key(tmp_path, secret_settings, prefect_home, capfd, step):
    with listening() as heard, ChatServer(answer=lambda body: step) as server:
        config = secret_config(tmp_path, server.base_url, secret_settings)
        with pytest.raises(TeacherError) as caught:
            label_corpus(config)
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert spellings_in(words_of(caught.value) + locals_of(caught.value)) == []
    assert leaks([tmp_path, prefect_home]) == []
    output = capfd.readouterr()
    assert spellings_in((output.out + output.err + "\n".join(heard.lines)).encode()) == []


ECHOES = {
    "clear": KEY,
    "twice": KEY + KEY,
    "at the end of what is kept": "x" * 1_980 + KEY,
    "JSON": KEY.replace("/", "\\/"),
    "URL": quote(KEY, safe=""),
    "HTML": html.escape(KEY),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 of the header": base64.b64encode(f"Bearer {KEY}".encode()).decode(),
    "at the end of what is read": "\u20ac" * 1_320 + KEY,
}
"""How an endpoint may write the key that it got."""


@pytest.mark.parametrize("name", ECHOES)
def test_the_detail_of_a_rejected_row_has_no_key_however_the_endpoint_writes_it(name):
    async def rejection(config: TeacherConfig) -> RowError:
        teacher = open_openai_teacher(config, {}, KEY)
        with pytest.raises(RowError) as caught:
            await teacher.ask(compile_prompt(TASK, config).request("a", "hello"))
        await teacher.close()
        return caught.value

    with ChatServer(answer=lambda body: raw(f"you sent {ECHOES[name]}", 400)) as server:
        error = asyncio.run(rejection(TeacherConfig(model="m", base_url=server.base_url)))
    assert error.detail.startswith("HTTP 400: you sent")
    assert spellings_in(words_of(error)) == []


@pytest.mark.parametrize(
    ("base_url", "said"),
    [
        ("http://127.0.0.1:9/v1", "teacher.base_url"),
        (f"http://127.0.0.1:9/v1?api-key={KEY}", "teacher.base_url"),
        (f"http://user:{quote(KEY, safe='')}@127.0.0.1:9/v1", "base_url"),
        (f"http://{quote(KEY, safe='')}@127.0.0.1:9/v1", "base_url"),
        (f"ftp://user:{quote(KEY, safe='')}@127.0.0.1/v1", "base_url"),
    ],
    ids=["nobody answers", "query", "password", "user", "scheme"],
)
def test_the_command_with_a_wrong_address_says_so_without_the_key(
    tmp_path, secret_settings, monkeypatch, capfd, base_url, said
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    path = write_config(tmp_path, secret_config(tmp_path, None, secret_settings, max_attempts=1))
    monkeypatch.setattr(sys, "argv", ["candist", "run", str(path), "--set", f"teacher.base_url='{base_url}'"])
    with pytest.raises(SystemExit) as ended:
        main()
    # Where nobody answers, somebody may later.
    assert ended.value.code == (5 if said == "teacher.base_url" else 2)
    output = capfd.readouterr()
    assert said in output.err
    assert spellings_in((output.out + output.err).encode()) == []
    assert leaks([tmp_path]) == []


@pytest.mark.parametrize("key", [f"{KEY}\nX-Injected: 1", f"{KEY} x", f"{KEY}é"], ids=["line end", "blank", "accent"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(tmp_path, monkeypatch, capfd, key):
    monkeypatch.setenv("CANDIST_TEST_KEY", key)
    with ChatServer() as server:
        config = secret_config(tmp_path, server.base_url, {"api_key_env": "CANDIST_TEST_KEY"})
        monkeypatch.setattr(sys, "argv", ["candist", "run", str(write_config(tmp_path, config))])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not server.requests
    assert ended.value.code == 2
    output = capfd.readouterr()
    assert "CANDIST_TEST_KEY" in output.err
    assert spellings_in((output.out + output.err).encode()) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("api_key", KEY),
        ("api_key_env", KEY),
        ("api_key_block", KEY),
        ("base_url", f"http://user:{quote(KEY, safe='')}@host/v1"),
    ],
    ids=["api_key", "api_key_env", "api_key_block", "base_url"],
)
def test_a_key_written_into_the_configuration_by_mistake_is_refused_without_being_shown(tmp_path, setting, value):
    with pytest.raises(ConfigError) as caught:
        secret_config(tmp_path, None, {setting: value})
    assert setting in str(caught.value)
    assert spellings_in(words_of(caught.value)) == []
