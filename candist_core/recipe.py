"""What training is made of: the labels that the student is shown, the rule for its targets, the extras.

A recipe is plain data and holds no gold. `RECIPES` names those that a comparison of candidate sets and robust
trainers needs: on the teacher's first label alone (sa), on its sets (ca), and the two controls that tell what sets
add to a robust trainer: the same trainer on first labels, and on sets whose second label is drawn by chance (rnd2).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from candist_core.config import Method, StudentConfig
from candist_core.errors import StudentError


class Sets(StrEnum):
    """Which labels of the teacher's answer the student is shown."""

    TEACHER = "teacher"
    FIRST = "first"
    FIRST_AND_RANDOM = "first_and_random"


class Rule(StrEnum):
    """How labels become targets and a loss (see `candist_core.refine`)."""

    UNIFORM = "uniform"
    CC = "cc"
    PRODEN = "proden"
    LWS = "lws"
    ALIM = "alim"
    ML = "ml"
    GCE = "gce"
    SMALL_LOSS = "small_loss"
    DR = "dr"
    POSTERIOR = "posterior"


class Table(StrEnum):
    """How likely the truth is at each place of an answer (ml): alike in the set, by its order, or learned."""

    FLAT = "flat"
    ORDER = "order"
    EM = "em"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything about targets, losses and extras; shares are in [0, 1].

    Attributes:
        rule: how labels become targets.
        sets: which labels of the teacher's answer are used.
        epochs: passes over the training texts.
        by_order: candidates start with weights by the teacher's order; else all alike, as in the papers.
        smoothing: share of each target that is spread over all labels.
        table: how likely the truth is at each place of an answer (ml).
        gce_power: power of the belief in the generalised cross-entropy (gce).
        outside_weight: weight of the labels outside the set (lws).
        noise_rate: share of labels or sets taken to be wrong (small_loss, alim); None measures it without gold, by
            the share of texts whose most probable label is no candidate when the warm-up ends.
        warmup_epochs: epochs before rows may be dropped or trusted; None ends it when held-out agreement stands
            still, at the latest after two fifths of all epochs (dr).
        lag: 0 refines targets with the belief of the same step, 1 with that of the epoch before (dr).
        sharpen: temperature of the targets of reliable rows (dr, gamma).
        reliable_share: smallest-loss share of each class taken as reliable (dr, delta).
        rescue_above: belief above which a dropped or open row returns one-hot (dr, tau).
        rescue_agreed: rescue also asks for the same label on a perturbed view and in the epoch before (dr).
        max_dropped: largest share of a class that may be dropped (dr, zeta).
        twice_outside: rows are dropped only when outside their set in two epochs running (dr).
        opens_large: sets so large that they say little are open: no target until rescued.
        held_out_share: share of the texts never trained on, to see without gold how training goes.
        guard: go back to the best epoch if held-out and training agreement both fell.
        consistency: a second, perturbed view learns the first one's target; rows without a target learn its belief.
        mixup: mixed embeddings learn mixed targets.
        ramp_epochs: epochs over which the weight of both extras grows from 0 to 1.
    """

    rule: Rule
    sets: Sets = Sets.TEACHER
    epochs: int = 20
    by_order: bool = False
    smoothing: float = 0.0
    table: Table = Table.ORDER
    gce_power: float = 0.7
    outside_weight: float = 1.0
    noise_rate: float | None = None
    warmup_epochs: int | None = 5
    lag: int = 0
    sharpen: float = 0.85
    reliable_share: float = 0.5
    rescue_above: float = 0.95
    rescue_agreed: bool = False
    max_dropped: float = 1.0
    twice_outside: bool = False
    opens_large: bool = False
    held_out_share: float = 0.0
    guard: bool = False
    consistency: bool = False
    mixup: bool = False
    ramp_epochs: int = 10

    @property
    def needs_view(self) -> bool:
        """Whether each epoch's belief is wanted on a perturbed view as well."""
        return self.rule is Rule.DR and self.rescue_agreed

    @property
    def needs_belief(self) -> bool:
        """Whether what is learned next hangs on what is believed of every text now."""
        return self.guard or self.rule not in (Rule.UNIFORM, Rule.CC, Rule.GCE, Rule.POSTERIOR)

    @property
    def uses_open(self) -> bool:
        """Whether texts without a usable set are learned from, by consistency or once they are rescued."""
        return self.consistency or (self.rule is Rule.DR and self.opens_large)


_DR_C = Recipe(
    Rule.DR,
    warmup_epochs=None,
    rescue_agreed=True,
    max_dropped=0.4,
    opens_large=True,
    held_out_share=0.1,
    guard=True,
)

RECIPES: Mapping[str, Recipe] = {
    "sa_ce": Recipe(Rule.UNIFORM, Sets.FIRST),
    "sa_ls": Recipe(Rule.UNIFORM, Sets.FIRST, smoothing=0.1),
    "sa_gce": Recipe(Rule.GCE, Sets.FIRST),
    "sa_small_loss": Recipe(Rule.SMALL_LOSS, Sets.FIRST),
    "sa_ml": Recipe(Rule.ML, Sets.FIRST, table=Table.FLAT),
    "ca_uniform": Recipe(Rule.UNIFORM),
    "ca_uniform_order": Recipe(Rule.UNIFORM, by_order=True),
    "ca_cc": Recipe(Rule.CC),
    "ca_cc_order": Recipe(Rule.CC, by_order=True),
    "ca_gce": Recipe(Rule.GCE),
    "ca_proden": Recipe(Rule.PRODEN),
    "ca_proden_order": Recipe(Rule.PRODEN, by_order=True),
    "ca_lws": Recipe(Rule.LWS),
    "ca_alim": Recipe(Rule.ALIM),
    "ca_ml_flat": Recipe(Rule.ML, table=Table.FLAT),
    "ca_ml_order": Recipe(Rule.ML),
    "ca_ml_em": Recipe(Rule.ML, table=Table.EM, warmup_epochs=3),
    "ca_dr": Recipe(Rule.DR),
    "ca_dr_order": Recipe(Rule.DR, by_order=True),
    "ca_dr_c": _DR_C,
    "ca_dr_c_order": replace(_DR_C, by_order=True),
    "sa_dr_c": replace(_DR_C, sets=Sets.FIRST),
    "rnd2_dr_c": replace(_DR_C, sets=Sets.FIRST_AND_RANDOM),
}
"""The recipes to compare, by name; the extras are off in all of them."""


def find_recipe(name: str, **changes: Any) -> Recipe:
    """A recipe by its name, some of its fields changed.

    Raises:
        StudentError: no recipe has that name.

    Example:
        >>> find_recipe("sa_ls", epochs=5).smoothing
        0.1
    """
    if name not in RECIPES:
        raise StudentError("student recipe", repr(name), "one of " + ", ".join(RECIPES), "choose one of these")
    return replace(RECIPES[name], **changes)


def recipe_of(config: StudentConfig) -> Recipe:
    """The recipe that a run's settings ask for; proden and dr start by the teacher's order.

    Example:
        >>> recipe_of(StudentConfig(method="dr", max_dropped=0.2)).max_dropped
        0.2
    """
    if config.method is Method.POSTERIOR:
        return Recipe(Rule.POSTERIOR, epochs=config.epochs)
    if config.method is Method.UNIFORM:
        return Recipe(Rule.UNIFORM, epochs=config.epochs)
    if config.method is Method.PRODEN:
        return Recipe(Rule.PRODEN, epochs=config.epochs, by_order=True)
    return Recipe(
        Rule.DR,
        epochs=config.epochs,
        by_order=True,
        warmup_epochs=config.warmup_epochs,
        lag=1,
        sharpen=config.sharpen,
        reliable_share=config.reliable_share,
        rescue_above=config.rescue_above,
        max_dropped=config.max_dropped,
    )
