import pytest

from candist_core.spec import LabelSpec, TaskSpec
from candist_core.tally import Tally
from candist_core.verdict import judge
from tests.published_rows import NAMES, check, frame, manifest_of, quality, row, share, with_gold

GOOD = with_gold(share(0.95, 0.9, 0.99, n=8))


def tally_of(*rows):
    tally = Tally(TaskSpec(labels=[LabelSpec(name=name) for name in NAMES]))
    tally.add(frame(*rows))
    return tally


TALLY = tally_of(*(row(str(i), confidence=0.9 if i < 8 else 0.6) for i in range(10)))


def test_measured_labels_without_a_finding_may_be_used_and_the_figures_are_told():
    verdict = judge(manifest_of(metrics=GOOD), TALLY)
    assert (verdict.level, verdict.answer) == ("yes", "You may use it.")
    assert verdict.because == (
        "8 of 10 texts need nobody: compared with a person's labels, 95.0 % of them are right "
        "(95 % interval 90.0 to 99.0). The other 2 want review.",
    )
    assert [action.what for action in verdict.actions] == ["Review 2 texts"]
    assert verdict.actions[0].why == "Why: low confidence (2). outage holds 2 of them."
    command = "candist review export published/mails@0123456789abcdef --budget 2 --out review.csv"
    assert verdict.actions[0].command == command


def test_labels_that_nobody_measured_may_be_used_with_care_and_an_audit_is_proposed():
    verdict = judge(manifest_of(), TALLY)
    assert verdict.level == "care"
    assert "by candist's own estimate 90.0 % of them are right" in verdict.because[0]
    assert "nothing here is measured" in verdict.because[1]
    assert [action.command.split()[1] for action in verdict.actions] == ["review", "audit"]


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"quality": quality(("class_collapse", "stop"))}, "no"),
        ({"quality": quality(("identical_sets", "warn"))}, "care"),
        ({"quality": quality(("capacity", "note"))}, "yes"),
        ({"checks": [check("rates", False)]}, "no"),
        ({"checks": [check("rates", False, "warn")]}, "care"),
        ({"checks": [check("rates", False, "quarantine")]}, "care"),
        ({"metrics": with_gold(share(0.7, 0.6, 0.89, n=8))}, "care"),
        ({"metrics": with_gold(share(0.7, 0.6, 0.91, n=8))}, "yes"),
    ],
)
def test_findings_failed_checks_and_broken_promises_decide(changes, level):
    assert judge(manifest_of(**({"metrics": GOOD} | changes)), TALLY).level == level


def test_what_is_not_published_is_not_to_be_used():
    verdict = judge(manifest_of(metrics=GOOD), TALLY, is_published=False)
    assert (verdict.level, verdict.answer) == ("no", "Do not use it yet.")
    assert verdict.because[0].startswith("It is not published")


def test_the_reason_stands_before_the_praise():
    verdict = judge(manifest_of(metrics=GOOD, quality=quality(("class_collapse", "stop"))), TALLY)
    assert verdict.because[0] == "Evidence of class_collapse."
    assert verdict.actions[0].anchor == "findings"


def test_a_version_in_which_every_text_wants_review_says_so():
    verdict = judge(manifest_of(), tally_of(row("1", confidence=0.5)))
    assert verdict.because[0] == "Every text wants review, 1 of 1."


def test_commands_are_quoted_for_a_shell():
    manifest = manifest_of(config={"publish": {"uri": "my sets; rm -rf x"}})
    assert "'my sets; rm -rf x/mails@0123456789abcdef'" in judge(manifest, TALLY).actions[0].command


def test_a_failed_check_that_repeats_a_finding_is_told_once():
    changes = {"quality": quality(("class-collapse", "stop")), "checks": [check("quality.class-collapse", False)]}
    verdict = judge(manifest_of(metrics=GOOD, **changes), TALLY)
    assert not any("failed" in sentence for sentence in verdict.because)
    assert [action.anchor for action in verdict.actions] == ["findings", "doubtful"]


def zeroshot(**student):
    base = manifest_of()
    config = {"publish": {"uri": "published"}, "teacher": {"kind": "zeroshot", "model": "minilm"}}
    return {"config": config, "student": base.student.model_dump(mode="json") | student}


def test_a_zero_shot_teacher_s_labels_that_nobody_measured_are_a_first_look_without_a_figure():
    verdict = judge(manifest_of(**zeroshot()), TALLY)
    assert (verdict.level, verdict.answer, verdict.is_guess) == ("care", "Use it for a first look only.", True)
    assert "nobody knows how many of them are right" in verdict.because[0]
    assert "90.0 %" not in " ".join(verdict.because)


def test_an_audit_or_gold_makes_the_same_labels_more_than_a_guess():
    model = {"places": [], "temperature": 1, "trusts_order": True, "n_audited": 100}
    calibrated = judge(manifest_of(**zeroshot(label_model=model)), TALLY)
    assert (calibrated.answer, calibrated.is_guess) == ("You may use it, with care.", False)
    assert judge(manifest_of(metrics=GOOD, **zeroshot()), TALLY).answer == "You may use it."


def test_labels_measured_to_be_wrong_every_third_time_are_a_first_look_whoever_made_them():
    verdict = judge(manifest_of(metrics=with_gold(share(0.61, 0.5, 0.7, n=8))), TALLY)
    assert verdict.answer == "Use it for a first look only."
    assert "61.0 % of them are right" in verdict.because[0]
