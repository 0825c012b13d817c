"""Several answers to one text made into one candidate set: draws of one teacher, or one answer each of several.

A vote is cast for every label that an answer names. Only a set or an abstention is an answer; refusals, unparsed
replies and failures say nothing of the labels and lower no label's votes. What becomes of the status:

| among the sets                                      | together    |
|-----------------------------------------------------|-------------|
| ok, at least as many as abstained                   | ok          |
| abstained, more than ok                             | abstained   |
| no ok, no abstained; refused, as many as unparsed   | refused     |
| no ok, no abstained; unparsed, more than refused    | unparsed    |
| failed alone                                        | failed      |

`union` takes one ok for enough, since it is there to lose no label; a cascade takes the last answer.

Source:
    Wang et al., Self-Consistency Improves Chain of Thought Reasoning, ICLR 2023: draw several answers, take the one
    that most of them give; plain counts do as well as counts weighted by probability, and the share that agrees goes
    with accuracy.
    Chen, Zaharia, Zou, FrugalGPT, arXiv 2305.05176: ask a cheap teacher first and a stronger one where it may be wrong.
"""

from collections import Counter
from collections.abc import Sequence

from candist_core.candidates import CandidateSet, Status
from candist_core.teacher_config import Combine


def combine_samples(
    sets: Sequence[CandidateSet], labels: Sequence[str], max_candidates: int | None = None
) -> CandidateSet:
    """Votes over several draws of one text; they become the scores. The order of the draws does not matter.

    No label is dropped for having few votes: a student can leave a wrong candidate aside, but not find a label that
    is not in the set.

    Args:
        sets: at least one; a single one is returned as it is.
        labels: the task's, in its order.
        max_candidates: of more labels than this those with the fewest votes are left out; none when None.

    Returns:
        Labels by votes, then by mean rank in the sets that name them, then by the task's order. A score is the share
        of the answers that name the label, in (0, 1].

    Source:
        Wang et al. 2023, section 2.

    Example:
        >>> draws = [CandidateSet(("b", "a")), CandidateSet(("a",)), CandidateSet(("a", "c")), CandidateSet(("a",))]
        >>> combine_samples(draws, ["a", "b", "c"])
        CandidateSet(labels=('a', 'b', 'c'), scores=(1.0, 0.25, 0.25), status=<Status.OK: 'ok'>)
    """
    if len(sets) == 1:
        return sets[0]
    n_of = Counter(found.status for found in sets)
    if not n_of[Status.OK] or n_of[Status.OK] < n_of[Status.ABSTAINED]:
        return CandidateSet(status=_status_without_labels(n_of))
    ranks: dict[str, list[int]] = {}
    for found in sets:
        for rank, label in enumerate(found.labels):
            ranks.setdefault(label, []).append(rank)
    place = {label: j for j, label in enumerate(labels)}

    def order(label: str) -> tuple[int, float, int]:
        votes = len(ranks[label])
        return -votes, sum(ranks[label]) / votes, place.get(label, len(place))

    chosen = tuple(sorted(ranks, key=order)[:max_candidates])
    n_answers = n_of[Status.OK] + n_of[Status.ABSTAINED]
    return CandidateSet(chosen, tuple(len(ranks[label]) / n_answers for label in chosen))


def combine_teachers(
    sets: Sequence[CandidateSet], labels: Sequence[str], how: Combine, max_candidates: int | None = None
) -> CandidateSet:
    """One set from the answers of several teachers to one text.

    Args:
        sets: one for each teacher that was asked, in the order of the teachers; at least one.
        labels: the task's, in its order.
        how: `union`: the first teacher's labels, then what each next one adds; no scores, since those of two teachers
            do not compare. `vote`: one vote a teacher, as in `combine_samples`. `cascade`: the last one that answered.
        max_candidates: labels beyond this are left out; none when None. A cascade's answer stays as it is.

    Example:
        >>> sets = [CandidateSet(("a", "b")), CandidateSet(("b", "c"))]
        >>> combine_teachers(sets, ["a", "b", "c"], Combine.UNION).labels
        ('a', 'b', 'c')
        >>> combine_teachers(sets, ["a", "b", "c"], Combine.VOTE).labels
        ('b', 'a', 'c')
        >>> combine_teachers(sets, ["a", "b", "c"], Combine.CASCADE).labels
        ('b', 'c')
    """
    if how is Combine.VOTE:
        return combine_samples(sets, labels, max_candidates)
    return _cascade(sets) if how is Combine.CASCADE else _union(sets, max_candidates)


def is_unsure(found: CandidateSet) -> bool:
    """Whether a cascade asks its next teacher too: anything but a set of one label.

    Example:
        >>> is_unsure(CandidateSet(("a",))), is_unsure(CandidateSet(("a", "b"))), is_unsure(CandidateSet())
        (False, True, True)
    """
    return found.status is not Status.OK or len(found.labels) != 1


def _union(sets: Sequence[CandidateSet], max_candidates: int | None) -> CandidateSet:
    named = [found for found in sets if found.status is Status.OK]
    if not named:
        return CandidateSet(status=_status_without_labels(Counter(found.status for found in sets)))
    if len(named) == 1:
        return named[0]
    return CandidateSet(tuple(dict.fromkeys(label for found in named for label in found.labels))[:max_candidates])


def _cascade(sets: Sequence[CandidateSet]) -> CandidateSet:
    """The last answer; a stronger teacher that gives none leaves the earlier one's standing."""
    for found in reversed(sets):
        if found.status in (Status.OK, Status.ABSTAINED):
            return found
    return CandidateSet(status=_status_without_labels(Counter(found.status for found in sets)))


def _status_without_labels(n_of: Counter[Status]) -> Status:
    if n_of[Status.ABSTAINED]:
        return Status.ABSTAINED
    if n_of[Status.REFUSED] or n_of[Status.UNPARSED]:
        return Status.REFUSED if n_of[Status.REFUSED] >= n_of[Status.UNPARSED] else Status.UNPARSED
    return Status.FAILED
