"""Bad input gets one clear sentence and an exit code before anything is started, and helpers work offline."""

import re
import sys
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from candist_core.config import Location, load_config
from candist_core.edges.store import open_store
from candist_core.errors import BudgetError, ConfigError, GateError, SilentError, TransientError
from candist_core.reports import Finding
from flows.cli import exit_code, main
from tests.core.test_publish import Run
from tests.flows.corpora import demo_config, demo_rows, write_config

LABELS = ("--label", "outage: the service is down", "--label", "roaming")


@pytest.fixture
def candist(monkeypatch, capsys, tmp_path):
    """Run the command in this process: exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["candist", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def one_sentence(err):
    sentences = [line for line in err.splitlines() if line.startswith("candist: ")]
    assert len(sentences) == 1, err
    assert "Traceback" not in err
    assert sentences[0].count("found") == 1
    assert "wanted" in sentences[0]
    return sentences[0]


def refused(candist, tmp_path, changes, *sets, n=20, prepare=None):
    """Run a configuration that must be refused; its sentence. Nothing may be published."""
    config = demo_config(tmp_path, n=n, **changes)
    if prepare:
        prepare()
    code, _, err = candist("run", write_config(tmp_path, config), *sets)
    assert code == 2, err
    assert not (tmp_path / "published").exists()
    return one_sentence(err)


def test_a_missing_corpus_is_named(candist, tmp_path):
    assert "nowhere.jsonl" in refused(candist, tmp_path, {"source": {"uri": str(tmp_path / "nowhere.jsonl")}})


def test_a_missing_column_names_those_there_are(candist, tmp_path):
    sentence = refused(candist, tmp_path, {"source": {"text": "txt"}})
    assert "txt" in sentence
    assert "text" in sentence.replace("txt", "")


def test_an_empty_corpus_is_told(candist, tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    assert "empty.jsonl" in refused(candist, tmp_path, {"source": {"uri": str(tmp_path / "empty.jsonl")}})


def test_a_file_that_is_no_parquet_is_told(candist, tmp_path):
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 but not really")
    assert "bad.parquet" in refused(candist, tmp_path, {"source": {"uri": str(tmp_path / "bad.parquet")}})


def test_missing_recorded_replies_are_told(candist, tmp_path):
    assert "none.jsonl" in refused(candist, tmp_path, {"teacher": {"replies_uri": str(tmp_path / "none.jsonl")}})


def test_a_missing_key_names_its_variable_and_not_its_value(candist, tmp_path, monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    changes = {"teacher": {"kind": "openai", "replies_uri": None, "api_key_env": "SOME_KEY"}}
    assert "SOME_KEY" in refused(candist, tmp_path, changes)


def test_a_cap_without_a_price_is_refused(candist, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "k")
    changes = {
        "teacher": {"kind": "openai", "model": "own", "replies_uri": None, "api_key_env": "SOME_KEY"},
        "budget": {"max_usd": 1.0},
    }
    assert "budget.prices" in refused(candist, tmp_path, changes)


def test_a_place_to_publish_that_is_a_file_is_told(candist, tmp_path):
    (tmp_path / "taken").write_text("")
    config = demo_config(tmp_path, n=20, publish={"uri": str(tmp_path / "taken")})
    code, _, err = candist("run", write_config(tmp_path, config))
    assert code == 2
    assert "taken" in one_sentence(err)


def test_an_unknown_setting_names_the_nearest(candist, tmp_path):
    path = write_config(tmp_path, demo_config(tmp_path, n=5))
    code, _, err = candist("run", path, "--set", "student.epoch=3")
    assert code == 2
    assert "did you mean 'epochs'" in one_sentence(err)


def test_an_expensive_run_without_a_person_to_ask_stops_before_anything_is_sent(candist, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "k")
    price = {"model": "dear", "input_usd": 9_000.0, "output_usd": 9_000.0}
    changes = {
        "teacher": {"kind": "openai", "model": "dear", "replies_uri": None, "api_key_env": "SOME_KEY"},
        "budget": {"prices": [price]},
    }
    assert "--yes" in refused(candist, tmp_path, changes)


def test_init_writes_a_configuration_that_estimate_and_status_understand(candist, tmp_path):
    rows = pl.DataFrame(demo_rows(30)).select("id", body="text")
    rows.write_csv(tmp_path / "mine.csv")
    code, out, _ = candist(
        "init", "mine.csv", "--label", "outage: the service is down", "--label", "roaming", "--id", "id"
    )
    assert code == 0
    assert "text from 'body'" in out
    config = load_config(tmp_path / "candist.yaml")
    assert config.task.labels[0].description == "the service is down"
    assert (config.name, config.source.id, config.source.text) == ("mine", "id", "body")
    code, out, _ = candist("estimate", "candist.yaml")
    assert code == 0
    assert re.search(r"30 to make", out)
    assert "is free" in out
    code, out, _ = candist("status", "candist.yaml")
    assert code == 0
    assert "30 of 30 rows" in out
    code, _, err = candist("init", "mine.csv", "--label", "a", "--label", "b")
    assert code == 2
    assert "--out" in one_sentence(err)


@pytest.mark.parametrize("labels", [(), ("one",), ("one", "ONE")])
def test_init_refuses_labels_that_no_run_could_use(candist, tmp_path, labels):
    pl.DataFrame({"text": ["a"]}).write_csv(tmp_path / "mine.csv")
    code, _, err = candist("init", "mine.csv", *[word for label in labels for word in ("--label", label)])
    assert code == 2
    one_sentence(err)
    assert not (tmp_path / "candist.yaml").exists()


def test_an_unknown_version_names_what_there_is(candist, tmp_path):
    code, _, err = candist("show", "published/none")
    assert code == 2
    assert "none" in one_sentence(err)


def test_a_report_of_what_is_not_there_is_refused_in_a_sentence(candist, tmp_path):
    config = write_config(tmp_path, demo_config(tmp_path, n=20))
    for arguments, word in (
        (["published/none@latest"], "no version"),
        ([config], "no ingested corpus"),
        (["published/none", "--set", "seed=1"], "--set"),
    ):
        code, _, err = candist("report", *arguments)
        assert code == 2
        assert word in one_sentence(err)
    assert list(tmp_path.glob("*.html")) == []


def test_every_command_explains_itself_with_an_example(candist):
    for command in ("init", "run", "estimate", "status", "show", "labels", "report", "compare"):
        code, out, _ = candist(command, "--help")
        assert code == 0
        assert f"candist {command}" in out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GateError("annotate", ("a",)), 3),
        (BudgetError(1.0, 1.0, 1), 4),
        (TransientError("x"), 5),
        (SilentError("a", "b", "c", "d"), 5),
        (ConfigError("a", "b", "c", "d"), 2),
        (KeyboardInterrupt(), 130),
        (ValueError(), 1),
    ],
)
def test_exit_codes_tell_kinds_of_trouble_apart(error, code):
    assert exit_code(error) == code


def test_the_shipped_configurations_are_valid(candist):
    folder = Path(__file__).parents[2] / "deployments" / "configs"
    assert [load_config(path).name for path in sorted(folder.glob("*.yaml"))]


def test_findings_that_warn_are_printed_in_full_and_notes_are_not(capsys):
    from flows.summary import print_findings

    sentences = {"evidence": "8 of 10 \x1b[2J[red]", "consequence": "labels are wrong", "remedy": "ask another"}
    findings = [Finding(name=f"a-{severity}", severity=severity, **sentences) for severity in ("stop", "warn", "note")]
    print_findings(Console(width=40), findings)
    out = capsys.readouterr().out
    assert out.splitlines() == [
        f"{severity}: a-{severity}: 8 of 10 \N{REPLACEMENT CHARACTER}[2J[red]. labels are wrong. ask another."
        for severity in ("stop", "warn")
    ]


def test_rows_of_a_terminal_table_cannot_steer_the_terminal(capsys):
    from rich.console import Console

    from flows.summary import print_labels

    frame = pl.DataFrame(
        {
            "doc_id": ["a"],
            "text": ["\x1b[31mred[bold]"],
            "label": ["x"],
            "confidence": [0.5],
            "candidates": [["x"]],
            "reason": [None],
        }
    )
    print_labels(Console(width=200), frame, 5)
    out = capsys.readouterr().out
    assert "\x1b[31m" not in out
    assert "[bold]" in out


def test_init_names_a_column_that_is_not_there(candist, tmp_path):
    pl.DataFrame({"text": ["a"], "kind": ["outage"]}).write_csv(tmp_path / "mine.csv")
    for option in ("--text", "--id", "--gold"):
        code, _, err = candist("init", "mine.csv", *LABELS, option, "nope")
        assert code == 2
        assert "'nope'" in one_sentence(err)
    assert not (tmp_path / "candist.yaml").exists()


def test_a_folder_of_data_sets_is_not_taken_for_one(candist, tmp_path):
    (tmp_path / "published" / "mine" / "manifests").mkdir(parents=True)
    (tmp_path / "published" / "mine" / "manifests" / "v00000001.json").write_text("{}")
    code, _, err = candist("show", "published")
    assert code == 2
    assert "published/mine" in one_sentence(err)


def test_labels_stay_readable_on_a_narrow_terminal(capsys):
    from rich.console import Console

    from flows.summary import print_labels

    row = {"doc_id": "0123456789abcdef" * 2, "text": "long " * 30, "label": "billing_dispute", "confidence": 0.5}
    frame = pl.DataFrame([row | {"candidates": ["billing_dispute", "outage"], "reason": "low confidence"}])
    print_labels(Console(width=80), frame, 5)
    out = capsys.readouterr().out
    assert "billing_dispute" in out
    assert "0.50" in out


@pytest.mark.parametrize(("sign", "word"), [(";", "';'"), ("\t", "tabs"), ("|", "'|'")])
def test_columns_parted_by_another_sign_are_told_as_such(candist, tmp_path, sign, word):
    (tmp_path / "mine.csv").write_text(f"id{sign}text\n1{sign}hello\n2{sign}there\n")
    wanted = f"found columns that look separated by {word}, wanted by commas"
    code, _, err = candist("init", "mine.csv", *LABELS)
    assert code == 2
    assert wanted in one_sentence(err)
    assert wanted in refused(candist, tmp_path, {"source": {"uri": str(tmp_path / "mine.csv"), "id": "id"}})


def test_a_relative_path_to_the_corpus_says_where_it_was_looked_for(candist, tmp_path):
    said = refused(candist, tmp_path, {"source": {"uri": "sub/none.csv"}})
    assert f"found no file at {tmp_path}/sub/none.csv" in said
    assert "start it in the folder that source.uri counts from" in said


def test_the_version_of_the_code_is_told(candist):
    code, out, _ = candist("--version")
    assert code == 0
    assert re.fullmatch(r"candist \d\S*\n", out)


@pytest.mark.slow
def test_a_redis_server_that_does_not_answer_is_a_failure_from_outside(candist, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "k")
    monkeypatch.setenv("SOME_REDIS", "redis://127.0.0.1:9")
    limits = {"limits_redis_env": "SOME_REDIS", "max_requests_per_min": 10}
    teacher = {"kind": "openai", "model": "m", "replies_uri": None, "api_key_env": "SOME_KEY", **limits}
    code, _, err = candist("run", write_config(tmp_path, demo_config(tmp_path, n=20, teacher=teacher)))
    assert code == 5
    assert "no answer at 127.0.0.1:9" in one_sentence(err)


def test_labels_replace_a_file_only_when_told_to_and_never_leave_half_of_one(candist, tmp_path, disk_version):
    for arguments, wanted in (((), 0), ((), 2), (("--force",), 0)):
        code, _, err = candist("labels", disk_version, "--out", "l.csv", *arguments)
        assert code == wanted, err
    (tmp_path / "l.parquet").mkdir()
    code, _, err = candist("labels", disk_version, "--out", "l.parquet", "--force")
    assert code == 2
    assert [path.name for path in tmp_path.glob(".l.*")] == []


def test_two_versions_of_one_data_set_are_named_by_a_number_alone(candist, disk_version):
    for after in ("1", "@1", "latest", "@latest", f"{disk_version}@1"):
        code, _, err = candist("compare", f"{disk_version}@1", after)
        assert code == 0, err
    code, _, err = candist("compare", f"{disk_version}@1", "7")
    assert code == 2
    assert "7" in one_sentence(err)
    assert candist("compare", disk_version, "1")[0] == 0


@pytest.fixture
def disk_version(tmp_path):
    """A data set with one version."""
    work, target = (open_store(Location(uri=str(tmp_path / name))) for name in ("work", "published"))
    run = Run(work)
    run.publish(target)
    return f"{tmp_path}/published/{run.config.dataset}"
