"""Somebody who retired: their holds count, what the root listed lasts, and nothing else does."""

from collections.abc import Iterable

import pytest
from kcm_schemas.codec import encode
from kcm_schemas.roster import OperatorRole, Retirement, Role, Roster
from kcm_schemas.signed import Kind, read_signed
from kcm_sealing.session import TicketInfo, to_sign
from kcm_trust.endorsements import Endorsements
from kcm_trust.envelopes import statement_digest
from kcm_trust.roster import follows
from kcm_trust.verify import Untrusted, Verifier

from tests.unit.trust_rig import ID, hold, lift, roster
from tests.unit.trust_table import ROWS, Row
from tests.vectors.families.messages import identity

LASTS_IF_LISTED = {
    Kind.TENANT, Kind.LINK, Kind.SERVICE, Kind.APP, Kind.ACCEPTED, Kind.ROOT_KEYS,
    Kind.SERVICE_KEYS, Kind.LIFT, Kind.LIFTS,
}  # fmt: skip
LASTS = {Kind.HOLD, Kind.AUDIT, Kind.AUDIT_HEAD, Kind.TRIM}
BELIEVED = [row for row in ROWS if row.believed and row.name != "auditor's reply"]


def retired(
    names: Iterable[str] | None = None, endorsements: Endorsements | None = None
) -> Verifier:
    """Everybody of these names has left; ``endorsements`` is everybody's list."""
    kept = endorsements or Endorsements()
    left = without(roster(), names, kept.retirement())
    everybody = [e.instance for e in left.instances] + [e.operator for e in left.operators]
    return Verifier(left, dict.fromkeys(everybody, kept))


def without(known: Roster, names: Iterable[str] | None, entry: Retirement) -> Roster:
    chosen = None if names is None else set(names)

    def gone(name: str) -> Retirement | None:
        return entry if chosen is None or name in chosen else None

    return known.model_copy(
        update={
            "version": known.version + 1,
            "instances": [
                e.model_copy(update={"retired": gone(e.instance)}) for e in known.instances
            ],
            "operators": [
                e.model_copy(update={"retired": gone(e.operator)}) for e in known.operators
            ],
        }
    )


ACTIVE, RETIRED = retired(()), retired()


def _verify(verifier: Verifier, row: Row, raw: bytes) -> object:
    name = {Kind.ADMIN: "admin", Kind.ADMIN_REPLY: "admin_reply"}.get(
        row.kind, row.kind.value.replace("-", "_")
    )
    return getattr(verifier, name)(raw)


@pytest.mark.parametrize("row", BELIEVED, ids=lambda row: row.name)
def test_what_lasts_and_what_does_not(row: Row) -> None:
    raw = encode(identity(row.believed[0]).sign(row.kind, row.body))
    listed = retired(endorsements=Endorsements([statement_digest(read_signed(raw))]))
    assert _verify(ACTIVE, row, raw)
    if row.kind in LASTS:
        assert _verify(RETIRED, row, raw)
        return
    with pytest.raises(Untrusted):
        _verify(RETIRED, row, raw)
    if row.kind in LASTS_IF_LISTED:
        assert _verify(listed, row, raw)
    else:
        with pytest.raises(Untrusted):
            _verify(listed, row, raw)


def test_every_kind_was_tried() -> None:
    assert {row.kind for row in BELIEVED} == set(Kind) - {Kind.ROSTER}


def test_a_new_lift_of_somebody_retired_ends_nothing() -> None:
    """Made after the retirement, by whoever has the key; it is as well signed as the old one."""
    old = encode(identity("security").sign(Kind.LIFT, lift(hold(), "security")))
    new = encode(
        identity("security").sign(Kind.LIFT, lift(hold(), "security").model_copy(
            update={"issued_ms": 9}
        ))
    )  # fmt: skip
    after = retired(["security"], Endorsements([statement_digest(read_signed(old))]))
    assert after.lift(old)
    with pytest.raises(Untrusted, match="did not endorse"):
        after.lift(new)


def test_belief_does_not_depend_on_the_list_being_complete() -> None:
    """Whoever does not have the list (yet) is dark where others are not, and never the reverse."""
    raw = encode(identity("security").sign(Kind.LIFT, lift(hold(), "security")))
    listed = Endorsements([statement_digest(read_signed(raw))])
    here = without(roster(), ["security"], listed.retirement())
    assert Verifier(here, {"security": listed}).lift(raw)
    with pytest.raises(Untrusted):
        Verifier(here).lift(raw)


def test_somebody_acting_signs_again_what_shall_last() -> None:
    row = next(row for row in ROWS if row.kind is Kind.ROOT_KEYS)
    first = identity("core-eu").sign(row.kind, row.body)
    after = retired(["core-eu"])
    with pytest.raises(Untrusted):
        after.root_keys(encode(first))
    assert after.root_keys(encode(identity("core-eu-2").countersign(first))) == row.body


def test_a_signature_of_somebody_else_is_not_carried_along() -> None:
    """Else anybody could make endless forms of one statement, and each would have to be stored."""
    good = identity("security").sign(Kind.HOLD, hold())
    assert ACTIVE.hold(encode(good)).raw == encode(good)
    for other in ("admin", "stranger", "gw-eu", "core-us"):
        more = identity(other).countersign(good)
        assert ACTIVE.hold(encode(more)).raw == encode(good)
        alone = good.model_copy(
            update={"signatures": [s for s in more.signatures if s.signer == other]}
        )
        with pytest.raises(Untrusted):
            ACTIVE.hold(encode(alone))


def test_a_list_is_the_one_that_the_root_signed() -> None:
    listed = Endorsements([bytes([n]) * 32 for n in range(5)])
    assert len(Endorsements.read(listed.raw(), listed.retirement())) == 5
    for raw in (listed.raw()[:-32], listed.raw() + bytes(32), b"", bytes(160)):
        with pytest.raises(ValueError, match="not the list"):
            Endorsements.read(raw, listed.retirement())


def test_nobody_comes_back_from_retirement() -> None:
    known = roster()
    left = without(known, ["security"], Endorsements().retirement())
    follows(known, left)
    follows(left, left)
    back = left.model_copy(update={"version": 5, "operators": known.operators})
    with pytest.raises(Untrusted, match="retired"):
        follows(left, back)
    more = without(left, ["security"], Endorsements([bytes(32)]).retirement())
    with pytest.raises(Untrusted, match="retired"):
        follows(left, more)
    gone = [one for one in left.operators if one.operator != "security"]
    follows(left, left.model_copy(update={"version": 5, "operators": gone}))
    with pytest.raises(Untrusted, match="older"):
        follows(left, known)
    with pytest.raises(Untrusted, match="differs"):
        follows(left, left.model_copy(update={"issued_ms": 99}))
    with pytest.raises(Untrusted, match="another system"):
        follows(left, left.model_copy(update={"system": "tests", "version": 9}))


def test_a_retired_auditor_answers_no_more() -> None:
    row = next(row for row in ROWS if row.name == "auditor's reply")
    raw = encode(identity("aud-eu").sign(row.kind, row.body))
    assert ACTIVE.admin_reply(raw, Role.AUDITOR)
    with pytest.raises(Untrusted):
        RETIRED.admin_reply(raw, Role.AUDITOR)


def test_a_retired_gateway_opens_no_session() -> None:
    info = TicketInfo("eu", "core-eu", ID, "gw-eu", ID, ID, 1, 2)
    message = to_sign(info.encode(), b"ciphertext")
    signature = identity("gw-eu").sign_raw(message)
    assert ACTIVE.ticket("gw-eu", "eu", signature, message).instance == "gw-eu"
    with pytest.raises(Untrusted, match="retired"):
        RETIRED.ticket("gw-eu", "eu", signature, message)


def test_a_statement_counts_in_the_name_of_who_makes_it_count() -> None:
    """``alice`` is first by name and has retired; whoever has her old key signs beside others."""
    names = ["alice", "security"]
    known = roster()
    operators = [
        known.operators[0].model_copy(
            update={
                "operator": name,
                "roles": [OperatorRole.SECURITY],
                "public_key": identity(name).public,
            }
        )
        for name in names
    ]
    known = known.model_copy(update={"operators": operators})
    held = identity("security").sign(Kind.HOLD, hold())
    ended = identity("security").sign(Kind.LIFT, lift(hold(), "security"))
    both = identity("alice").countersign(ended)
    assert Verifier(known).lift(encode(both)).issuer == "alice"
    assert Verifier(known).hold(encode(identity("alice").countersign(held))).issuer == "alice"
    for endorsements, author in [
        (Endorsements(), "security"),
        (Endorsements([statement_digest(held), statement_digest(ended)]), "alice"),
    ]:
        after = Verifier(
            without(known, ["alice"], endorsements.retirement()), {"alice": endorsements}
        )
        found = after.lift(encode(both))
        assert (found.issuer, after.author(found.raw)) == (author, author)
        found_hold = after.hold(encode(identity("alice").countersign(held)))
        assert (found_hold.issuer, after.author(found_hold.raw)) == (author, author)


def test_a_hold_of_nobody_who_acts_has_an_author_all_the_same() -> None:
    raw = encode(identity("security").sign(Kind.HOLD, hold()))
    assert RETIRED.hold(raw).issuer == RETIRED.author(raw) == "security"
