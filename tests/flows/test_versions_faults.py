"""What a person sees of a bucket that cannot be read: one sentence, and whether another try is worth it."""

import pytest
from s3fs import S3FileSystem

from tests.faulty_s3 import CUT, Answer, FaultyS3
from tests.flows.test_cli import candist as candist
from tests.flows.test_cli import one_sentence
from tests.published import publish_mails

pytestmark = [pytest.mark.slow, pytest.mark.s3]

REGION = {"x-amz-bucket-region": "eu-west-1"}
FAULTS = {
    "denied": (Answer(403, "AccessDenied"), 2, "access denied"),
    "region": (Answer(301, "PermanentRedirect", REGION), 2, "wanted its own region 'eu-west-1'; set the region"),
    "signed for another region": (Answer(400, "AuthorizationHeaderMalformed", REGION), 2, "own region 'eu-west-1'"),
    "no bucket": (Answer(404, "NoSuchBucket"), 2, "no bucket of that name"),
    "expired": (Answer(400, "ExpiredToken"), 2, "credentials that have expired (ExpiredToken)"),
    "busy": (Answer(503, "SlowDown"), 5, "SlowDown"),
    "cut": (CUT, 5, "no answer"),
}


@pytest.fixture
def proxy(s3_endpoint, aws_environment):
    aws_environment.setattr(S3FileSystem, "retries", 2)
    with FaultyS3(s3_endpoint) as faulty:
        yield faulty
    S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("command", ["ls", "labels"])
@pytest.mark.parametrize("name", FAULTS)
def test_a_bucket_that_cannot_be_read_is_told_in_one_sentence(candist, bucket, proxy, command, name):
    publish_mails(bucket.at("sets"))
    fault, wanted_code, words = FAULTS[name]
    proxy.plan(lambda *_: fault)
    place = f"s3://{bucket.name}/sets" + ("/mails" if command == "labels" else "")
    code, _, err = candist(command, place, "--endpoint-url", proxy.endpoint_url)
    assert code == wanted_code, err
    assert words in one_sentence(err)


def test_nobody_listening_is_worth_another_try(candist, aws_environment):
    code, _, err = candist("labels", "s3://bucket/sets/mails", "--endpoint-url", "http://127.0.0.1:9")
    assert code == 5
    assert "no answer (EndpointConnectionError)" in one_sentence(err)


@pytest.mark.parametrize("fault", [CUT, Answer(503, "SlowDown")], ids=str)
def test_a_bucket_that_fails_while_rows_are_read_is_worth_another_try(candist, bucket, proxy, fault):
    publish_mails(bucket.at("sets"))
    words = ("labels", f"s3://{bucket.name}/sets/mails", "--endpoint-url", proxy.endpoint_url)
    assert candist(*words)[0] == 0
    # The last request for data is one of polars; those of s3fs, for hashes and a footer, come before.
    last = max(i for i, (_, path) in enumerate(proxy.requests) if "/data/" in path)
    proxy.plan(lambda number, *_: fault if number >= last else None)
    code, _, err = candist(*words)
    assert code == 5, err
    assert "found a reading that broke off, wanted its rows" in one_sentence(err)
