"""A request that the broker does not let an application send: the refusal names what it was."""

import pytest
from kcm._internal.rpc import Environment, ask_once
from kcm.errors import Forbidden
from kcm_runtime.nats.ports import NotAllowed
from kcm_schemas import data_subjects


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        (
            data_subjects.gateway_at("eu", "gateway-eu-1", "decrypt", "acne", "mail"),
            "decrypt for tenant acne, service mail",
        ),
        ("kcm.v1.eu.admin.hold.put", "send the request"),
    ],
)
async def test_the_text_names_what_was_asked_for(subject, words):
    async def send(*_):
        raise NotAllowed

    with pytest.raises(Forbidden, match=words) as caught:
        await ask_once(Environment(), send, subject, lambda _: b"", lambda raw: (raw, 1.0), 1.0)
    assert not caught.value.retryable
