"""What is under way at a provider's batch endpoint: submitted once, found again after a crash, followed to its end.

Works on request keys alone. The order of things is: upload, record, batch, record with the batch's id. A death before
the record leaves nothing that costs; one after it leaves a record whose batch is looked for under the record's name.
Invariant: no key is submitted while a batch that holds it is under way, or may be; only processes that begin with the
same requests at the same moment do not see each other's records.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Set
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar
from uuid import uuid4

from candist_core.batch import BatchLedger, BatchPace, BatchRecord, Result, read_results
from candist_core.edges.batch_client import BatchClient, BatchState
from candist_core.errors import RateLimitedError, TerminalError, TransientError

logger = logging.getLogger(__name__)

T = TypeVar("T")

# OpenAI keeps a batch's files for 30 days; a record that is older leads nowhere.
_MAX_AGE_S = 35 * 86_400.0


@dataclass(eq=False, slots=True)
class Batch:
    """A batch that exists at the provider. `paid` are the keys that it answered, None while it is under way."""

    path: str
    record: BatchRecord
    batch_id: str
    is_adopted: bool
    paid: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a batch: results by key, and the keys that wait for this batch and have none."""

    state: BatchState
    results: Mapping[str, Result]
    missing: tuple[str, ...]


class BatchTracker:
    """The batches of one teacher.

    Args:
        client: the provider.
        endpoint: its URL as shown to people; records of other endpoints are left alone.
        ledger: the records.
        pace: waits.
    """

    def __init__(self, client: BatchClient, endpoint: str, ledger: BatchLedger, pace: BatchPace) -> None:
        self._client, self._endpoint, self._ledger, self._pace = client, endpoint, ledger, pace
        self._batches: dict[str, Batch] = {}
        self._owners: dict[str, Batch] = {}
        # Records by path of which nobody knows whether their batch was made.
        self._unsure: dict[str, BatchRecord] = {}
        self._restored: set[str] = set()
        self._uploaded = ("", "")

    def owner(self, key: str) -> Batch | None:
        """The batch under way that holds this request."""
        return self._owners.get(key)

    async def restore(self, head: str, keys: Collection[str]) -> None:
        """Take up what earlier runs left under way for these requests, whatever their shards were called.

        Args:
            head: the fingerprint that the requests' head has.
            keys: the requests' keys.
        """
        if head not in self._restored:
            records = await asyncio.to_thread(self._ledger.read_all, head)
            too_old = [path for path, record in records.items() if time.time() - record.created_at > _MAX_AGE_S]
            await asyncio.to_thread(self._ledger.delete, too_old)
            for path, record in records.items():
                if path not in too_old:
                    self._take_up(path, record)
            self._restored.add(head)
        await self._settle_all(keys)

    async def submit(self, head: str, lines: Mapping[str, bytes]) -> Batch:
        """Make a batch of these requests.

        Args:
            head: the fingerprint that all of their heads have.
            lines: of the input file, by request key.

        Raises:
            TransientError: the endpoint was silent, or refused for a while, for too long.
            TeacherError: it refuses for good.
        """
        data = b"".join(lines.values())
        digest = sha256(data).hexdigest()
        if self._uploaded[0] != digest:
            self._uploaded = (digest, await self._insist(lambda: self._client.upload(data)))
        batch = await self._insist(lambda: self._create(head, tuple(lines), *self._uploaded))
        await self._insist(lambda: asyncio.to_thread(self._ledger.write, batch.path, batch.record))
        logger.info("submitted batch %s of %d requests, %d bytes", batch.batch_id, len(lines), len(data))
        return batch

    async def validated(self, batch: Batch) -> BatchState:
        """Wait until the provider has looked through the input file."""
        return await self._poll(batch, lambda state: state.status != "validating")

    async def outcome(self, batch: Batch) -> Outcome:
        """Wait for a batch's end and take whatever it finished; its other requests may be submitted again."""
        state = await self._poll(batch, lambda state: state.is_over)
        results: dict[str, Result] = {}
        keys = frozenset(batch.record.keys)
        # An empty id stands for no file at some providers.
        for file_id in filter(None, (state.error_file_id, state.output_file_id)):
            data = await self._insist(lambda file_id=file_id: self._client.content(file_id))  # type: ignore[misc]
            if data is None:
                logger.warning("a result file of batch %s is gone", batch.batch_id)
            else:
                results |= await asyncio.to_thread(read_results, data, keys)
        missing = tuple(key for key in batch.record.keys if key not in results and self._owners.get(key) is batch)
        self._release(batch)
        batch.paid = frozenset(key for key, result in results.items() if result.is_paid)
        logger.info(
            "batch %s is %s: %d requests answered, %d refused, %d without a result",
            batch.batch_id, state.status, len(batch.paid), len(results) - len(batch.paid), len(keys) - len(results),
        )  # fmt: skip
        return Outcome(state, results, missing)

    async def drop(self, batch: Batch) -> None:
        """Forget a batch that never ran."""
        self._release(batch)
        self._batches.pop(batch.path, None)
        await asyncio.to_thread(self._ledger.delete, [batch.path])

    async def is_idle(self) -> bool:
        """Whether nothing at all is under way at the provider."""
        return await self._insist(self._client.is_idle)

    async def close(self, delivered: Set[str]) -> None:
        """Drop the records of batches whose every answer was delivered, and close the connections."""
        done = [batch.path for batch in self._batches.values() if batch.paid is not None and batch.paid <= delivered]
        try:
            await asyncio.to_thread(self._ledger.delete, done)
        finally:
            await self._client.close()

    async def _create(self, head: str, keys: tuple[str, ...], digest: str, file_id: str) -> Batch:
        """Ask for a batch once, after it is clear that an earlier attempt made none."""
        await self._settle_all(keys)
        if (made := self._owners.get(keys[0])) is not None:
            return made
        record = BatchRecord(
            intent=uuid4().hex,
            endpoint=self._endpoint,
            input_sha256=digest,
            created_at=time.time(),
            keys=keys,
        )
        path = self._ledger.path_of(head, record)
        await asyncio.to_thread(self._ledger.write, path, record)
        try:
            state = await self._client.create(file_id, record.intent)
        except (TerminalError, RateLimitedError):
            await asyncio.to_thread(self._ledger.delete, [path])
            raise
        except TransientError:
            # No answer does not mean no batch.
            self._unsure[path] = record
            raise
        return self._adopt(path, record.model_copy(update={"batch_id": state.id}), state.id, is_adopted=False)

    async def _settle_all(self, keys: Collection[str]) -> None:
        """Find out what became of every batch of unknown fate that would hold one of these requests."""
        wanted = frozenset(keys)
        for path, record in list(self._unsure.items()):
            if not wanted.isdisjoint(record.keys):
                await self._settle(path, record)

    async def _settle(self, path: str, record: BatchRecord) -> None:
        # A request to make it may be on its way yet; its process may live and learn the id.
        age_s = max(0.0, time.time() - record.created_at)
        await asyncio.sleep(max(0.0, self._pace.settle_s - age_s))
        latest = await asyncio.to_thread(self._ledger.read, path)
        if latest is not None and latest.batch_id is None:
            state = await self._insist(lambda: self._client.find(record.intent))
            if state is None:
                await asyncio.to_thread(self._ledger.delete, [path])
                latest = None
            else:
                latest = latest.model_copy(update={"batch_id": state.id})
                await asyncio.to_thread(self._ledger.write, path, latest)
        self._unsure.pop(path, None)
        if latest is not None:
            self._take_up(path, latest)

    def _take_up(self, path: str, record: BatchRecord) -> None:
        if record.endpoint != self._endpoint:
            return
        if record.batch_id is None:
            self._unsure[path] = record
        else:
            self._adopt(path, record, record.batch_id, is_adopted=True)

    def _adopt(self, path: str, record: BatchRecord, batch_id: str, *, is_adopted: bool) -> Batch:
        batch = self._batches[path] = Batch(path, record, batch_id, is_adopted)
        for key in record.keys:
            # A request stands in two records when the earlier batch had no result for it.
            owner = self._owners.get(key)
            if owner is None or owner.record.created_at <= record.created_at:
                self._owners[key] = batch
        return batch

    def _release(self, batch: Batch) -> None:
        for key in batch.record.keys:
            if self._owners.get(key) is batch:
                del self._owners[key]

    async def _poll(self, batch: Batch, is_reached: Callable[[BatchState], bool]) -> BatchState:
        n_looks = 0
        while True:
            state = await self._insist(lambda: self._client.retrieve(batch.batch_id))
            # A provider may need a moment until it knows of what it has just made.
            is_young = time.time() - batch.record.created_at < self._pace.settle_s
            if is_reached(state) and not (state.is_gone and is_young):
                return state
            n_looks += 1
            await asyncio.sleep(self._pace.wait_s(n_looks))

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """What the call returns, after as many attempts as it takes."""
        n_failed, failing_since = 0, time.monotonic()
        while True:
            try:
                return await call()
            except TransientError as error:
                n_failed += 1
                failing_since = time.monotonic() if n_failed == 1 else failing_since
                wait_s = max(self._pace.wait_s(n_failed), error.retry_after_s or 0.0)
                if time.monotonic() + wait_s - failing_since > self._pace.max_silence_s:
                    detail = f"no success for {self._pace.max_silence_s:g} s, last: {error.detail}"
                    raise TransientError(error.what, detail, error.retry_after_s) from error
            await asyncio.sleep(wait_s)
