"""What the balance of labels is compared with, and which of several references counts."""

import pytest

from candist_core.config import Location, parse_config
from candist_core.edges.store import open_store
from candist_core.errors import ConfigError
from candist_core.stages.check import expected_balance
from tests.core.test_publish import Run

LABELS = [{"name": "spam"}, {"name": "ham"}]


@pytest.fixture
def configured(tmp_path):
    """A configuration that publishes where a version of spam 3, ham 2 may stand."""

    def make(labels=LABELS, audit=None, **checks):
        data = {
            "name": "x", "task": {"labels": labels}, "source": {"uri": str(tmp_path / "x.csv")},
            "publish": {"uri": str(tmp_path / "published"), "dataset": dataset}, "checks": checks,
            "audit": {"uri": audit},
        }  # fmt: skip
        return parse_config(data)

    work, target = (open_store(Location(uri=str(tmp_path / name))) for name in ("work", "published"))
    run = Run(work)
    dataset = run.config.dataset
    make.publish = lambda: run.publish(target)
    make.audit = str(tmp_path / "audit.csv")
    (tmp_path / "audit.csv").write_text(
        "text,label\n" + "".join(f"text {i},{'ham' if i else 'spam'}\n" for i in range(4))
    )
    return make


def test_without_any_reference_there_is_nothing_to_compare_with(configured):
    assert expected_balance(configured(), of_teacher=False) is None
    assert expected_balance(configured(balance="previous"), of_teacher=False) is None


def test_a_stated_prior_comes_before_the_previous_version_and_an_audit_is_asked_for_by_name(configured):
    configured.publish()
    prior = [{"label": "spam", "share": 0.1}]
    stated = expected_balance(configured(prior=prior, audit=configured.audit), of_teacher=False)
    assert (stated.source, stated.n, stated.shares) == ("the stated prior", None, {"spam": 0.1, "ham": 0.9})
    audited = expected_balance(configured(audit=configured.audit, balance="audit"), of_teacher=False)
    assert (audited.source, audited.n, audited.shares) == ("the audit of 4 texts", 4, {"spam": 0.25, "ham": 0.75})
    previous = expected_balance(configured(audit=configured.audit), of_teacher=False)
    assert (previous.source, previous.n, previous.shares) == ("version 1", 5, {"spam": 0.6, "ham": 0.4})
    chosen = expected_balance(configured(prior=prior, audit=configured.audit, balance="previous"), of_teacher=False)
    assert chosen == previous
    assert expected_balance(configured(prior=prior, balance="none"), of_teacher=False) is None


def test_a_version_with_other_labels_or_without_the_teacher_s_is_no_reference(configured):
    configured.publish()
    assert expected_balance(configured(labels=[*LABELS, {"name": "eggs"}]), of_teacher=False) is None
    assert expected_balance(configured(), of_teacher=True) is None, "published before teachers were counted"


def test_an_audit_asked_for_by_name_has_to_be_there(configured):
    with pytest.raises(ConfigError, match=r"name them under audit\.uri"):
        expected_balance(configured(balance="audit"), of_teacher=False)
