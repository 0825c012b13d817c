"""`candist forget` and `candist remove`: what is told before anything goes, and after."""

import pytest

from tests.flows.corpora import demo_rows, write_config
from tests.flows.test_cli import candist as candist
from tests.flows.test_cli import one_sentence
from tests.stages.test_incremental import grown, label

pytestmark = pytest.mark.slow

N = 40


def test_rows_are_told_of_first_then_go_and_old_versions_are_named_with_the_command_that_removes_them(
    tmp_path, candist
):
    config = grown(tmp_path, N)
    label(config)
    path, gone = write_config(tmp_path, config), demo_rows(N)[3]["id"]
    place = f"{config.publish.uri}/slice"
    (tmp_path / "ids").write_text(f"{gone}\nnobody\n")
    code, looked, err = candist("forget", path, "--ids", tmp_path / "ids")
    assert code == 0, err
    assert "replies: 1 rows in 1 prompts: go row by row" in looked
    assert "students that learned from them: 1 rows in 1 students: go, the next run distils" in looked
    assert "1 of 2 stand nowhere; would be left out from now on all the same" in looked
    assert f"the latest: first candist run {path}, then candist remove {place}@1 --delete" in looked
    assert "nothing was changed; add --delete" in looked
    code, done, err = candist("forget", path, "--id", gone, "--delete", "--keep-students")
    assert code == 0, err
    assert "students that learned from them: 1 rows in 1 students: stay, their notes about these rows go" in done
    assert f"next: candist run {path}" in done
    label(config)
    _, again, _ = candist("forget", path)
    assert "the store holds nothing about them" in again
    assert f"holds 1 of their rows; candist remove {place}@1 --delete" in again
    assert "would remove slice@1 (" in candist("remove", f"{place}@1")[1]
    assert candist("remove", f"{place}@1", "--delete")[1].startswith("removed slice@1 (")
    assert "the latest" in one_sentence(candist("remove", f"{place}@2", "--delete")[2])
    assert "candist remove" not in candist("forget", path)[1]


def test_no_row_and_no_such_file_are_one_sentence(tmp_path, candist):
    path = write_config(tmp_path, grown(tmp_path, N))
    code, _, err = candist("forget", path)
    assert code == 2
    assert "name them with --ids, --id or --texts" in one_sentence(err)
    assert "ids, one a line" in one_sentence(candist("forget", path, "--ids", tmp_path / "none")[2])
