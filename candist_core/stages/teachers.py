"""Opens what asking needs: a role's teacher, its reply log, the limits it shares."""

from collections.abc import Mapping, Sequence

from candist_core.budget import load_prices
from candist_core.edges.batch_teacher import open_batch_teacher
from candist_core.edges.openai_teacher import open_openai_teacher
from candist_core.edges.replay_teacher import ReplayTeacher, read_replies
from candist_core.edges.reply_log import StoreReplyLog
from candist_core.edges.store import Store, read_uri
from candist_core.errors import ConfigError, TeacherError
from candist_core.ports import Teacher
from candist_core.stages.plan import Plan, Role, replies_of
from candist_core.stages.spool import spool_dir
from candist_core.teacher_config import TeacherConfig, TeacherKind, TeacherMode

ApiKeys = Mapping[str, str]
"""API keys by the name of the Secret block that holds them."""


def open_teacher(
    plan: Plan, role: Role, store: Store, part: str, doc_ids: Sequence[str], api_keys: ApiKeys | None = None
) -> Teacher:
    """The teacher of one role, for one shard.

    Args:
        plan: the run's.
        role: one of its roles.
        store: where batches are remembered.
        part: the shard's name.
        doc_ids: its texts, each of which a recording has to answer.
        api_keys: keys from Secret blocks.

    Raises:
        TeacherError: no key, no valid URL, a recording with gaps.
    """
    config, teacher = plan.config, role.teacher
    if teacher.kind is TeacherKind.REPLAY:
        return _open_replay(plan, role, doc_ids)
    if teacher.kind is TeacherKind.OPENAI:
        api_key = api_key_of(teacher, api_keys)
        if teacher.mode is TeacherMode.BATCH:
            return open_batch_teacher(teacher, role.price, store, part, api_key)
        return open_openai_teacher(teacher, load_prices(config.budget.prices), api_key)
    from candist_core.edges.zeroshot_teacher import ZeroShotTeacher
    from candist_core.student.device import choose_device
    from candist_core.student.encode import SentenceEmbedder

    embed = SentenceEmbedder(teacher.model_name, choose_device(config.student.device))
    return ZeroShotTeacher(config.task, embed, teacher.model_name)


def api_key_of(teacher: TeacherConfig, api_keys: ApiKeys | None) -> str | None:
    """The key that the teacher's Secret block holds; None where the environment has it.

    Raises:
        ConfigError: a block is named where nobody reads blocks.
    """
    block = teacher.api_key_block
    if block is None:
        return None
    if api_keys is None or block not in api_keys:
        wanted, step = "a run under Prefect, which reads it", "run it with `candist run`, or set teacher.api_key_env"
        raise ConfigError(f"teacher.api_key_block {block!r}", "a block that was not read", wanted, step)
    return api_keys[block]


def open_reply_log(plan: Plan, role: Role, store: Store, part: str) -> StoreReplyLog:
    """The log of everything that a role's prompt was ever answered."""
    return StoreReplyLog(store, role.prompt.head.fingerprint, part, spool_dir(store, plan.config.store))


def _open_replay(plan: Plan, role: Role, doc_ids: Sequence[str]) -> Teacher:
    place = replies_of(plan.config, role.teacher)
    teacher = ReplayTeacher(read_replies(read_uri(place, TeacherError), place.uri), role.prompt.head.model)
    if missing := teacher.missing_replies(doc_ids):
        raise TeacherError(
            f"recorded replies {place.uri}",
            f"none for {len(missing):,} of {len(doc_ids):,} texts of a shard, the first is {missing[0]!r}",
            "one for every text",
            "record the missing ones, or label with another teacher.kind",
        )
    return teacher
