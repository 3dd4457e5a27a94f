"""Subjects and names: nothing that is not a token builds one, and no region is the reserved one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kcm_schemas import data_subjects, subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import RESERVED_REGION, TOKEN, is_name, is_region

BAD = [
    "",
    ".",
    "*",
    ">",
    "a.b",
    "a b",
    "a*",
    "A",
    "a_b",
    "ä",
    "a\n",
    "\na",
    "a\r",
    "a\x00",
    "٣",
    "a" * 64,
    "$JS",
]

BUILDERS: list[Callable[..., str]] = [
    data_subjects.gateway,
    data_subjects.gateway_all,
    data_subjects.core,
    data_subjects.core_all,
    data_subjects.core_session,
    data_subjects.core_sessions,
    subjects.admin,
    subjects.admin_all,
    subjects.admin_at,
    subjects.admin_all_at,
    subjects.registry_question,
    subjects.control_all,
    subjects.control_hold,
    subjects.control_lease,
    subjects.control_peer_lease,
    subjects.broadcast_hold,
    subjects.receipt,
    subjects.pull,
    subjects.audit,
    subjects.audit_all,
]
IN_A_REGION = [b for b in BUILDERS if next(iter(inspect.signature(b).parameters)) == "region"]


def arguments(builder: Callable[..., str], **changed: Any) -> dict[str, Any]:
    """A good argument for each parameter: ids are bytes, everything else a name."""
    parameters = inspect.signature(builder, eval_str=True).parameters
    good = {n: b"i" * 16 if p.annotation is bytes else f"{n}-1" for n, p in parameters.items()}
    good = {
        name: value.replace("_", "-") if isinstance(value, str) else value
        for name, value in good.items()
    }
    return good | changed


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(KcmError) as caught:
        call()
    assert caught.value.code is Code.MALFORMED


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.__name__)
def test_every_argument_stands_in_the_subject_once(builder: Callable[..., str]) -> None:
    given_ = arguments(builder)
    tokens = builder(**given_).split(".")
    assert tokens[:2] == ["kcm", "v1"]
    for value in given_.values():
        assert tokens.count(value.hex() if isinstance(value, bytes) else value) == 1
    assert all(is_name(token) or token in {"*", ">"} for token in tokens)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.__name__)
def test_nothing_but_a_token_builds_a_subject(builder: Callable[..., str], bad: str) -> None:
    for name, value in arguments(builder).items():
        if isinstance(value, bytes):
            refused(partial(builder, **arguments(builder, **{name: b""})))
            refused(partial(builder, **arguments(builder, **{name: bytes(32)})))
        else:
            refused(partial(builder, **arguments(builder, **{name: bad})))


@given(text=st.text(max_size=70))
def test_a_name_is_what_the_grammar_says(text: str) -> None:
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert is_name(text) is (1 <= len(text) <= 63 and set(text) <= allowed)
    if not is_name(text):
        refused(lambda: data_subjects.gateway("eu", "encrypt", text, "payroll"))


@pytest.mark.parametrize(
    "builder",
    [b for b in IN_A_REGION if b not in {subjects.receipt, subjects.pull}],
    ids=lambda builder: builder.__name__,
)
def test_no_subject_of_a_region_lies_below_what_crosses_regions(
    builder: Callable[..., str],
) -> None:
    refused(lambda: builder(**arguments(builder, region=RESERVED_REGION)))
    assert not builder(**arguments(builder)).startswith(subjects.CTL + ".")
    assert not is_region(RESERVED_REGION)
    assert is_region("eu")
    assert not is_region("EU")


def test_what_crosses_regions_lies_below_ctl() -> None:
    crossing = [
        subjects.broadcast_hold("eu", "tenant", b"i" * 16),
        subjects.receipt("eu", b"i" * 16),
        subjects.pull("eu", "us"),
        subjects.broadcast_holds(),
        subjects.receipts(),
    ]
    assert all(subject.startswith(subjects.CTL + ".") for subject in crossing)


def test_a_data_subject_reads_back() -> None:
    subject = data_subjects.gateway("eu", "encrypt", "acme", "payroll")
    assert data_subjects.read_data(subject) == data_subjects.DataSubject(
        "encrypt", "acme", "payroll"
    )


def test_the_subjects_of_a_core_read_back() -> None:
    subject = data_subjects.core("eu", "core-1", "unwrap", "acme", "payroll")
    assert data_subjects.read_core(subject) == data_subjects.DataSubject(
        "unwrap", "acme", "payroll"
    )
    assert data_subjects.read_session(data_subjects.core_session("eu", "core-1", "open")) == "open"
    refused(lambda: data_subjects.read_session(subject))
    refused(lambda: data_subjects.read_core(subject.replace(".core.", ".gateway.")))
    refused(lambda: data_subjects.read_core(subject.replace("core-1", "*")))


def test_an_admin_subject_reads_back() -> None:
    assert subjects.read_admin(subjects.admin("eu", "tenant", "put")) == ("tenant", "put")
    here = subjects.admin_at("eu", "tenant", "put", "core-eu")
    assert subjects.read_admin_at(here, "core-eu") == ("tenant", "put")
    for other in ("core-eu-2", "put"):
        with pytest.raises(KcmError):
            subjects.read_admin_at(here, other)


DATA = "kcm.v1.eu.gateway.encrypt.acme.payroll"
ADMIN = "kcm.v1.eu.admin.tenant.put"


@pytest.mark.parametrize(
    "subject",
    [
        "",
        DATA + ".more",
        DATA.rsplit(".", 1)[0],
        DATA.replace("kcm", "KCM"),
        DATA.replace("kcm", "other"),
        DATA.replace("v1", "v2"),
        DATA.replace("gateway", "admin"),
        DATA.replace("gateway", "control"),
        DATA.replace("eu", "ctl"),
        DATA.replace("eu", "*"),
        *(DATA.replace(token, bad) for token in ("encrypt", "acme", "payroll") for bad in BAD),
    ],
)
def test_nothing_else_is_a_data_subject(subject: str) -> None:
    refused(lambda: data_subjects.read_data(subject))


@pytest.mark.parametrize(
    "subject",
    [
        "",
        DATA,
        ADMIN + ".more",
        ADMIN.replace("admin", "gateway"),
        ADMIN.replace("v1", "v2"),
        ADMIN.replace("eu", "ctl"),
        ADMIN.replace("tenant", "*"),
        ADMIN.replace("put", ">"),
    ],
)
def test_nothing_else_is_an_admin_subject(subject: str) -> None:
    refused(lambda: subjects.read_admin(subject))


def test_bucket_keys() -> None:
    assert subjects.bucket_subject("b", "tenant", "acme") == "$KV.b.tenant.acme"
    assert subjects.bucket_key("$KV.b.tenant.acme") == "tenant.acme"
    for bad in BAD:
        refused(partial(subjects.bucket_subject, "b", bad))


def test_the_grammar_of_a_field_is_the_grammar_of_a_token() -> None:
    from kcm_schemas.registry import Service
    from pydantic import ValidationError

    assert TOKEN.pattern == "[a-z0-9-]{1,63}"
    assert Service(tenant="acme", service="a" * 63, revision=0).service == "a" * 63
    for bad in BAD:
        with pytest.raises(ValidationError):
            Service(tenant="acme", service=bad, revision=0)
