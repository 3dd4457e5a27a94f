"""Hints: from a console's event to the name of a key, and from there to a probe at once."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import urllib.error
import urllib.request

import boto3
import pytest
from kcm_core.root_keys.hints import aws_sqs, gcp_push
from kcm_core.root_keys.hints.supervisor import NAME_MAX, Listeners
from moto.server import ThreadedMotoServer

from tests.integration.living import eventually

ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
KEY = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
EVENT = {
    "source": "aws.kms",
    "detail-type": "AWS API Call via CloudTrail",
    "detail": {
        "eventSource": "kms.amazonaws.com",
        "eventName": "DisableKey",
        "resources": [{"ARN": ARN, "type": "AWS::KMS::Key"}],
        "requestParameters": {"keyId": ARN},
    },
}


def changed(**detail):
    return json.dumps(EVENT | {"detail": EVENT["detail"] | detail})


@pytest.mark.parametrize(
    ("body", "keys"),
    [
        (json.dumps(EVENT), [ARN]),
        (changed(resources=[]), [ARN]),
        (changed(resources=[{"ARN": ARN}, {"ARN": ARN + "x"}]), [ARN, ARN + "x"]),
        (changed(eventSource="s3.amazonaws.com"), []),
        (changed(resources=[{"ARN": "arn:aws:s3:::bucket"}]), []),
        (changed(resources=[], requestParameters={"keyId": "alias/x"}), []),
        (changed(resources=5), []),
        ("", []),
        ("[]", []),
        ('{"detail": 5}', []),
    ],
)
def test_which_keys_an_event_of_aws_names(body, keys):
    assert list(aws_sqs.keys_of(body)) == keys


def push(entry):
    data = base64.b64encode(json.dumps(entry).encode()).decode()
    return json.dumps({"message": {"data": data}}).encode()


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (push({"protoPayload": {"resourceName": KEY}}), KEY),
        (push({"protoPayload": {"resourceName": f"{KEY}/cryptoKeyVersions/3"}}), KEY),
        (push({"protoPayload": {"resourceName": "projects/p/locations/l/keyRings/r"}}), None),
        (push({"protoPayload": {"resourceName": f"{KEY}\nforged"}}), KEY),
        (push({"protoPayload": {"resourceName": KEY.replace("keyRings/", "keyRings/\n")}}), None),
        (push({"protoPayload": {}}), None),
        (push([]), None),
        (b"", None),
        (b'{"message": {"data": "***"}}', None),
        (b'{"message": {"data": 5}}', None),
    ],
)
def test_which_key_a_push_of_google_names(body, key):
    assert gcp_push.key_of(body) == key


@pytest.mark.parametrize(
    ("said", "size"),
    [("17", 17), (None, 0), ("", 0), ("-1", 0), ("x", 0), ("²", 0), ("9" * 5000, 0)],
)
def test_a_length_that_nobody_sends_is_none(said, size):
    assert gcp_push.size_of(said) == size


@pytest.fixture
def google(capsys):
    def claims(token, audience):
        assert audience == "aud"
        if token == "broken":
            raise ValueError
        return {"email": token, "email_verified": token != "unverified@x"}

    server = gcp_push.server(("127.0.0.1", 0), "aud", "push@x", claims)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def post(body, token=None):
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(url, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    yield post
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_push_is_heard_when_google_signed_for_it(google, capsys):
    body = push({"protoPayload": {"resourceName": KEY}})
    for token in (None, "broken", "stranger@x", "unverified@x"):
        assert google(body, token) == 403
    assert google(b"", "push@x") == 413
    assert capsys.readouterr().out == ""
    assert google(b"nonsense", "push@x") == 204
    assert google(body, "push@x") == 204
    assert capsys.readouterr().out == f"{KEY}\n"


@pytest.fixture
def aws():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


async def test_an_event_becomes_a_hint_through_a_queue(aws):
    settings = {
        "region_name": "eu-central-1", "endpoint_url": aws,
        "aws_access_key_id": "x", "aws_secret_access_key": "x",
    }  # fmt: skip
    sqs, events = boto3.client("sqs", **settings), boto3.client("events", **settings)
    queue = sqs.create_queue(QueueName="hints")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    events.put_rule(Name="hints", EventPattern=json.dumps({"source": ["aws.kms"]}))
    events.put_targets(Rule="hints", Targets=[{"Id": "1", "Arn": arn["QueueArn"]}])
    heard = []
    environment = {
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL": aws,
        "AWS_DEFAULT_REGION": "eu-central-1",
    }  # fmt: skip
    listeners = Listeners([["aws_sqs", queue]], environment, heard.append)
    listeners.start()
    try:
        sqs.send_message(QueueUrl=queue, MessageBody="not json")
        events.put_events(
            Entries=[
                {
                    "Source": "aws.kms",
                    "DetailType": EVENT["detail-type"],
                    "Detail": json.dumps(EVENT["detail"]),
                }
            ]
        )

        async def came():
            return heard == [ARN]

        await eventually(came, within_s=60)
    finally:
        await listeners.close()
        for client in (sqs, events):
            client.close()


async def test_a_listener_that_is_none_of_ours_is_not_run():
    heard = []
    listeners = Listeners([["../evil"], ["os.path"]], {}, heard.append)
    listeners.start()
    await asyncio.sleep(0)
    await listeners.close()
    assert heard == []


def test_a_line_that_is_too_long_is_no_name():
    assert NAME_MAX < 1024
