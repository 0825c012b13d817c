"""Multipart uploads: one large object into a bucket from a stream, pieces side by side, a few in memory.

Invariant: the object appears whole, at the completion, or not at all. An upload whose writer was killed is no object;
`candist gc` aborts it.
"""

import logging
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import chain
from typing import Any

log = logging.getLogger(__name__)

PIECE_BYTES = 8 * 1024 * 1024
"""S3 takes at most 10,000 pieces, each of 5 MB or more but for the last: objects of up to 84 GB."""
_AT_ONCE = 3


def put_stream(fs: Any, path: str, chunks: Iterator[bytes]) -> None:
    """Write an object from chunks of any size; one that fits into a piece goes by a plain PUT.

    Args:
        fs: an s3fs file system.
        path: bucket and key.
        chunks: its bytes; an error that they raise ends the upload without a trace.
    """
    pieces = _pieces(chunks)
    first = next(pieces, b"")
    if len(first) < PIECE_BYTES:
        fs.pipe_file(path, first)
        return
    bucket, _, key = path.partition("/")
    target = {"Bucket": bucket, "Key": key}
    target["UploadId"] = fs.call_s3("create_multipart_upload", **target)["UploadId"]
    try:
        parts = _send(fs, target, chain([first], pieces))
        fs.call_s3("complete_multipart_upload", **target, MultipartUpload={"Parts": parts})
    except BaseException:
        _abort(fs, target)
        raise


def _send(fs: Any, target: dict[str, str], pieces: Iterator[bytes]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    waiting: set[Future[dict[str, Any]]] = set()

    def send(number: int, piece: bytes) -> dict[str, Any]:
        answer = fs.call_s3("upload_part", **target, PartNumber=number, Body=piece)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for number, piece in enumerate(pieces, 1):
            if len(waiting) >= _AT_ONCE:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                parts += [future.result() for future in done]
            waiting.add(pool.submit(send, number, piece))
        parts += [future.result() for future in waiting]
    return sorted(parts, key=lambda part: int(part["PartNumber"]))


def _abort(fs: Any, target: dict[str, str]) -> None:
    try:
        fs.call_s3("abort_multipart_upload", **target)
    except Exception as error:
        # What went wrong before it is what the caller is to know.
        log.warning("the upload to %s was not aborted: %s", target["Key"], type(error).__name__)


def _pieces(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of equal length, the last may be shorter; none where there are none."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= PIECE_BYTES:
            yield bytes(held[:PIECE_BYTES])
            del held[:PIECE_BYTES]
    if held:
        yield bytes(held)
