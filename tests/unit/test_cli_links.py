"""`kcm l1 link`: a root key linked, tested and, on a terminal, tested again."""

import io
import json

import pytest
from kcm.exit_codes import Exit
from kcm_schemas.admin.links import LinkView
from kcm_schemas.admin.requests import AdminRequest, PutStatement
from kcm_schemas.codec import Message, decode
from kcm_schemas.codes import Code, KcmError

from tests.fakes.client import REGIONS
from tests.unit.operator_rig import Desk, keep


def test_a_link_with_another_uri_is_told_with_the_way_to_another_key(desk: Desk) -> None:
    def taken(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.CONFLICT, "the link root exists already, with another URI")

    desk.system.everywhere("link", "put", taken)
    code, _, err = desk.run("l1", "link", "root", "softkey:/other", "-o", "json")
    said = json.loads(err)
    assert (code, said["error"]) == (Exit.REFUSED, "conflict")
    assert "under another name" in said["hint"]
    assert "kcm tenant relink TENANT --link NAME" in said["hint"]


def test_a_link_is_signed_with_its_uri(desk: Desk) -> None:
    got: list[bytes] = []
    take = keep(got)

    def tried(request: AdminRequest, operator: str) -> Message:
        take(request, operator)
        return LinkView(
            link="root", region=request.region, mechanism="aes-gcm", key_version="v", principal="p",
            ms=7,
        )  # fmt: skip

    desk.system.everywhere("link", "put", tried)
    code, out, _ = desk.run("l1", "link", "root", "softkey:/keys/acme", "--model", "hyok")
    assert code == Exit.OK
    assert {(row["region"], row["mechanism"], row["ms"]) for row in json.loads(out)} == {
        (region, "aes-gcm", 7) for region in REGIONS
    }
    link = desk.system.verifier.link(got[0])
    assert (link.uri, link.model, link.revision) == ("softkey:/keys/acme", "hyok", 1)


def test_a_region_that_the_context_lacks_has_no_link(desk: Desk) -> None:
    def tried(request: AdminRequest, operator: str) -> Message:
        return LinkView(
            link="root", region=request.region, mechanism="m", key_version="v", principal="p", ms=7
        )

    desk.system.everywhere("link", "put", tried)
    desk.system.forget("us")
    code, out, err = desk.run("l1", "link", "root", "softkey:/keys/acme", "-o", "json")
    assert code == Exit.PARTIAL
    assert [(row["region"], row["result"]) for row in json.loads(out)] == [
        ("eu", "ok"), ("us", "not_in_context"),
    ]  # fmt: skip
    assert json.loads(err)["detail"] == "us: on the roster, not in this context"
    here = ("l1", "link", "root", "softkey:/keys/acme", "--region", "eu")
    assert desk.run(*here)[0] == Exit.OK


def test_a_key_that_is_refused_in_one_region_is_linked_in_the_other(desk: Desk) -> None:
    def refuses(request: AdminRequest, operator: str) -> Message:
        if request.region == "us":
            raise KcmError(Code.FORBIDDEN, "the root key: disabled. Next: enable it")
        return LinkView(
            link="root", region="eu", mechanism="m", key_version="v", principal="p", ms=1
        )

    desk.system.everywhere("link", "put", refuses)
    code, out, err = desk.run("l1", "link", "root", "softkey:/keys/acme")
    assert code == Exit.REFUSED
    assert {row["region"]: row["result"] for row in json.loads(out)} == {
        "eu": "ok", "us": "forbidden",
    }  # fmt: skip
    assert "Next: enable it" in err
    assert "kcm l1 check" in json.loads(err)["hint"]


def test_on_a_terminal_a_key_is_tried_again_when_what_is_missing_was_granted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kcm.cli import l1

    asked: list[str] = []

    def granted(text: str, **_: object) -> bool:
        asked.append(text)
        return True

    def refuses_once(request: AdminRequest, operator: str) -> Message:
        if request.region == "us" and not asked:
            raise KcmError(Code.FORBIDDEN, "the root key: forbidden. Next: grant it")
        return LinkView(
            link="root", region=request.region, mechanism="m", key_version="v", principal="p", ms=1
        )

    monkeypatch.setattr(l1, "at_a_terminal", lambda: True)
    monkeypatch.setattr(l1.click, "confirm", granted)
    desk.system.everywhere("link", "put", refuses_once)
    code, out, err = desk.run("l1", "link", "root", "softkey:/keys/acme", "-o", "table")
    assert code == Exit.OK, err
    assert len(asked) == 1
    assert "Grant this to the key" in err
    assert "chmod" in err
    assert out.count("ok") == 2


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Sit at a terminal and type."""
    from kcm.cli import l1

    monkeypatch.setattr(l1, "at_a_terminal", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_on_a_terminal_whoever_gives_nothing_is_walked_through_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[bytes] = []

    def links(request: AdminRequest, operator: str) -> Message:
        got.append(decode(PutStatement, request.payload).statement)
        return LinkView(
            link="root", region=request.region, mechanism="m", key_version="v", principal="p", ms=1
        )

    desk.system.everywhere("link", "put", links)
    typed(
        monkeypatch,
        "No name",
        "root",
        "nowhere:/x",
        "pkcs11:token=t;object=k?module-path=/m.so",
        "",
        "y",
    )
    code, out, err = desk.run("l1", "link", "-o", "table")
    assert code == Exit.OK, err
    assert out.count("ok") == 2
    link = desk.system.verifier.link(got[0])
    assert (link.link, link.uri, link.model) == (
        "root", "pkcs11:token=t;object=k?module-path=/m.so", "hyok",
    )  # fmt: skip
    asked = [
        err.index(text)
        for text in ("1 to 63", "awskms:arn", "none of", "model", "CKA_DECRYPT", "Granted")
    ]
    assert asked == sorted(asked), "where, what is wrong, which model, what to grant, and then"


@pytest.mark.parametrize(
    ("lines", "ended", "told"),
    [
        (("root", "softkey:/x", "", "n"), Exit.OK, "nothing was linked"),
        (("root",), Exit.INTERRUPTED, "interrupted"),
    ],
)
def test_nothing_is_linked_when_nothing_is_granted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, lines: tuple[str, ...], ended: Exit, told: str
) -> None:
    got: list[bytes] = []
    desk.system.everywhere("link", "put", keep(got))
    typed(monkeypatch, *lines)
    code, _, err = desk.run("l1", "link", "-o", "table")
    assert code == ended, err
    assert told in err
    assert got == []


def test_a_script_is_not_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = desk.run("l1", "link", "root")
    assert code == Exit.USAGE
    assert "NAME URI" in err


def test_a_uri_that_is_none_has_the_exit_code_of_a_check(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kcm l1 check` refuses it here, a Core refuses it there."""

    def refuses(request: AdminRequest, operator: str) -> Message:
        raise KcmError(Code.MALFORMED, "the root key's URI: no provider has this scheme")

    desk.system.everywhere("link", "put", refuses)
    code, out, err = desk.run("l1", "link", "root", "http://foo", "-o", "json")
    assert (code, json.loads(err)["error"]) == (Exit.USAGE, "malformed")
    assert {row["result"] for row in json.loads(out)} == {"malformed"}
    assert "docs/l1 has a page for each provider" in json.loads(err)["hint"]
    typed(monkeypatch)  # and nobody is asked to grant it something
    assert desk.run("l1", "link", "root", "http://foo", "-o", "table")[0] == Exit.USAGE
