"""The plan of a run's annotation: its teachers, their compiled prompts, the examples they are shown."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from candist_core.budget import Price, load_prices, price_of
from candist_core.config import Location, RunConfig
from candist_core.edges.labelled_source import read_audit, read_labelled
from candist_core.edges.replay_teacher import replay_model
from candist_core.edges.store import Store, open_store, read_uri
from candist_core.errors import ConfigError, TeacherError
from candist_core.parquet import decode_table
from candist_core.ports import Request
from candist_core.prompt import Prompt, Turn, compile_prompt, render_turns
from candist_core.questions import Questions
from candist_core.shorten import shorten
from candist_core.shots import NearestShots, Shot, shared_shots, shots_fingerprint
from candist_core.spec import fingerprint
from candist_core.stages.reask import doubtful_ids
from candist_core.tables import DROPPED, REJECTS, TableRef
from candist_core.teacher_config import BudgetConfig, Combine, ShotChoice, TeacherConfig, TeacherKind, TeacherMode
from candist_core.version import __version__


@dataclass(frozen=True, slots=True)
class Role:
    """One teacher of a plan with the prompt that it is given."""

    teacher: TeacherConfig
    prompt: Prompt
    price: Price | None

    @property
    def name(self) -> str:
        """The teacher's name, as it stands in the annotations."""
        kind = self.teacher.kind
        return f"openai:{self.teacher.model_name}" if kind is TeacherKind.OPENAI else self.prompt.head.model

    @property
    def questions(self) -> Questions:
        """How texts become requests to this teacher."""
        return Questions(self.prompt, self.teacher)


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run's shards are annotated.

    `pool` holds the labelled texts from which each text gets its nearest. `dropped` are rows that a person left out of
    runs of this name: doc_id, and the check and value for which.
    """

    config: RunConfig
    roles: tuple[Role, ...]
    pool: tuple[Shot, ...] = ()
    again: "Again | None" = None
    dropped: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def key(self, texts: TableRef) -> str:
        """The key of one shard's annotations: its content, all that is asked about it, the checks, this code."""
        asked = [
            [role.prompt.head.fingerprint, role.teacher.samples, role.teacher.max_text_tokens, role.teacher.truncate]
            for role in self.roles
        ]
        shots = shots_fingerprint(self.pool, self.config.shots) if self.pool else None
        checks = self.config.checks.of_shards()
        spec = self.config.task.fingerprint
        again = [] if self.again is None else [self.again.key(texts)]
        parts = [texts.sha256, asked, self.config.combine, shots, spec, checks, __version__, *again]
        left_out = self.left_out(open_store(self.config.store), texts)
        return fingerprint([*parts, left_out["doc_id"].to_list()] if left_out.height else parts)

    def texts(self, store: Store, texts: TableRef) -> pl.DataFrame:
        """The texts of a shard that are asked about, under texts/1: all but those left out."""
        frame = store.read_table(texts)
        return frame.filter(~pl.col("doc_id").is_in(list(self.dropped))) if self.dropped else frame

    def left_out(self, store: Store, texts: TableRef) -> pl.DataFrame:
        """The rows of a shard that are left out, as rejects."""
        rows = []
        # Reading a shard for its ids is only worth it where some are left out.
        for doc_id in store.read_table(texts, columns=["doc_id"])["doc_id"] if self.dropped else ():
            if doc_id in self.dropped:
                check, value = self.dropped[doc_id]
                rows.append((doc_id, "check", check, f"dropped by hand: {value}"))
        return pl.DataFrame(rows, schema=REJECTS.columns, orient="row")

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """What may stand in the column `teacher`: a cascade may end with any of its teachers."""
        names = [role.name for role in self.roles]
        if len(names) == 1:
            return tuple(names)
        combine = self.config.combine
        ends = range(1, len(names) + 1) if combine is Combine.CASCADE else [len(names)]
        return tuple(dict.fromkeys(combined_name(combine, names[:end]) for end in ends))

    def turns(self, role: Role, texts: pl.DataFrame) -> Mapping[str, tuple[Turn, ...]]:
        """The examples of each text's own, by doc_id; of a whole shard at once, or they may change a little."""
        if not self.pool:
            return {}
        from candist_core.student.device import choose_device
        from candist_core.student.encode import SentenceEmbedder

        embed = SentenceEmbedder(self.config.shots.encoder, choose_device(self.config.student.device))
        own = render_turns(self.config.task, self.pool, role.teacher.reasoning)
        rows = NearestShots(self.pool, embed, self.config.shots.n).rows(texts["text"].to_list())
        return {doc_id: tuple(own[i] for i in row) for doc_id, row in zip(texts["doc_id"], rows, strict=True)}

    def requests(self, role: Role, texts: pl.DataFrame) -> Iterator[tuple[str, Sequence[Request]]]:
        """All that one teacher is asked about a shard, by doc_id."""
        return role.questions.of(texts, self.turns(role, texts))


@dataclass(frozen=True, slots=True)
class Again:
    """The second question: `plan` shows each doubtful text the reviewed ones most like it.

    Texts of `settled` are not asked again: people reviewed them for being doubtful, so their labels are known. Those
    that people drew at random are: calibration has to see their answers come about as all others do.
    """

    plan: Plan
    settled: frozenset[str]

    def key(self, texts: TableRef) -> str:
        """The key of one shard's second answers."""
        return fingerprint([self.plan.key(texts), self.plan.config.reask.versions, sorted(self.settled)])

    def of(self, texts: pl.DataFrame) -> pl.DataFrame:
        """The texts of a shard to ask about again."""
        rows = texts.filter(pl.col("doc_id").is_in(doubtful_ids(self.plan.config).implode()))
        return rows.filter([text.strip() not in self.settled for text in rows["text"]])


def plan_annotation(config: RunConfig) -> Plan:
    """Compile the prompts once for a run.

    Raises:
        TeacherError: recorded replies that cannot be read.
        ConfigError: a cap on spending for a model without a known price, labelled examples that cannot be used, texts
            to ask about again without a teacher or examples for it.
    """
    shots = read_labelled(config.shots, config.source, config.task.label_names)
    shared = shared_shots(shots, config.shots, config.seed)
    pool = shots if config.shots.choice is ShotChoice.NEAREST else ()
    roles = tuple(_role(config, teacher, shared, pool) for teacher in config.teachers)
    return Plan(config, roles, _cut(pool, config.teacher), _plan_again(config, shots), _dropped(config))


def _plan_again(config: RunConfig, shots: Sequence[Shot]) -> Again | None:
    if not config.reask.versions:
        return None
    for teacher in config.teachers:
        if teacher.kind is not TeacherKind.OPENAI:
            found, wanted = f"teacher.kind {teacher.kind}", "openai, which reads examples"
            raise ConfigError("reask.versions", found, wanted, "ask with it, or remove reask.versions")
    verdicts = read_audit(config.audit, config.source, config.task.label_names)
    if not verdicts:
        raise ConfigError("reask.versions", "no reviewed texts", "some as examples", "set audit.uri to their file")
    doubtful_ids(config)
    reviewed = [Shot(text, verdict.label) for text, verdict in sorted(verdicts.items())]
    pool = tuple(dict.fromkeys([*reviewed, *shots]))
    nearest = config.shots.model_copy(update={"choice": ShotChoice.NEAREST})
    second = config.model_copy(update={"shots": nearest})
    roles = tuple(_role(second, teacher, (), pool) for teacher in config.teachers)
    settled = frozenset(text for text, verdict in verdicts.items() if not verdict.is_random)
    return Again(Plan(second, roles, _cut(pool, config.teacher), dropped=_dropped(config)), settled)


def dropped_folder(config: RunConfig) -> str:
    """Where the rows that a person left out of runs of this name stand."""
    return f"dropped/{config.name}"


def _dropped(config: RunConfig) -> dict[str, tuple[str, str]]:
    store, found = open_store(config.store), {}
    for path in store.list_paths(dropped_folder(config)):
        for doc_id, check, value in decode_table(store.read_bytes(path), DROPPED.name).iter_rows():
            found[doc_id] = (check, value)
    return found


def combined_name(combine: Combine, teachers: Iterable[str]) -> str:
    """The name under which several teachers' answers stand as one.

    Example:
        >>> combined_name(Combine.UNION, ["openai:a", "openai:b", "openai:a"])
        'union:openai:a+openai:b'
    """
    return f"{combine}:{'+'.join(dict.fromkeys(teachers))}"


def replies_of(config: RunConfig, teacher: TeacherConfig) -> Location:
    """Where a replay teacher's recorded replies lie, reached as the corpus is."""
    return config.source.model_copy(update={"uri": teacher.replies_uri})


def price_of_teacher(teacher: TeacherConfig, budget: BudgetConfig) -> Price | None:
    """What a teacher's tokens cost, less the discount of batches; None when no price is known or none is asked."""
    if teacher.kind is not TeacherKind.OPENAI:
        return None
    price = price_of(teacher.model_name, load_prices(budget.prices))
    if price is None or teacher.mode is TeacherMode.LIVE:
        return price
    part = 1 - budget.batch_discount
    return Price(price.input_usd * part, price.cached_usd * part, price.output_usd * part)


def _role(config: RunConfig, teacher: TeacherConfig, shared: Sequence[Shot], pool: Sequence[Shot]) -> Role:
    price = price_of_teacher(teacher, config.budget)
    if teacher.kind is TeacherKind.OPENAI and config.budget.max_usd is not None and price is None:
        found, step = f"no price for model {teacher.model_name!r}", "add it under budget.prices"
        raise ConfigError("budget.max_usd", found, "one to hold the cap by", step)
    model = None
    if teacher.kind is TeacherKind.REPLAY:
        model = replay_model(read_uri(replies_of(config, teacher), TeacherError))
    elif teacher.kind is TeacherKind.ZEROSHOT:
        model = f"zeroshot:{teacher.model_name}"
    return Role(
        teacher,
        compile_prompt(config.task, teacher, model, _cut(shared, teacher), has_own_turns=bool(pool)),
        price,
    )


def _cut(shots: Sequence[Shot], teacher: TeacherConfig) -> tuple[Shot, ...]:
    """Examples no longer than the texts may be."""
    limit = teacher.max_text_tokens
    return tuple(
        shot if limit is None else Shot(shorten(shot.text, limit, teacher.truncate), shot.label) for shot in shots
    )
