"""``aws_sqs QUEUE-URL``: EventBridge events about keys, from an SQS queue.

Prints the ARN of each key that an event of AWS KMS names. Every message is deleted after it was
read. A lost event delays the next probe by one interval and has no other effect.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

WAIT_S: Final = 20
"""Seconds for which one request waits for messages: the longest that SQS allows."""

AGAIN_S: Final = 5.0
"""Seconds until a failed request to the queue is tried again."""

SOURCE: Final = "kms.amazonaws.com"


def keys_of(body: str) -> Iterator[str]:
    """The ARNs of the keys that an event is about; empty for any other message."""
    try:
        event = json.loads(body)
        detail = event["detail"]
        if detail["eventSource"] != SOURCE:
            return
        resources = detail.get("resources") or []
        for resource in resources:
            arn = resource.get("ARN", "")
            if isinstance(arn, str) and ":key/" in arn:
                yield arn
        if not resources:
            named = (detail.get("requestParameters") or {}).get("keyId", "")
            if isinstance(named, str) and named.startswith("arn:") and ":key/" in named:
                yield named
    except (AttributeError, KeyError, TypeError, ValueError):
        return


def listen(queue: str) -> None:
    """Read the queue in an endless loop."""
    region = queue.split(".")[1] if queue.startswith("https://sqs.") else None
    config = Config(connect_timeout=5, read_timeout=WAIT_S + 10, retries={"total_max_attempts": 1})
    client: Any = boto3.Session(region_name=region).client("sqs", config=config)
    while True:
        try:
            answer = client.receive_message(
                QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=WAIT_S
            )
            for message in answer.get("Messages", ()):
                for key in keys_of(message["Body"]):
                    sys.stdout.write(f"{key}\n")
                sys.stdout.flush()
                client.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        except (BotoCoreError, ClientError) as error:
            sys.stderr.write(f"hints: the queue cannot be asked: {type(error).__name__}\n")
            time.sleep(AGAIN_S)


def main() -> None:
    """Listen to the queue that the argument names."""
    parser = argparse.ArgumentParser(prog="aws_sqs")
    parser.add_argument("queue", metavar="QUEUE-URL")
    listen(parser.parse_args().queue)


if __name__ == "__main__":
    main()
