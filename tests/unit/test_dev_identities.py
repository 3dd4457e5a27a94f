"""A development system's roster: made again, it loses nobody whom somebody else put there."""

from kcm_deployment.members import Member
from kcm_deployment.trust_files import Trust
from kcm_devsystem.identities import APPROVER, OPERATOR, SYSTEM, make_trust
from kcm_runtime.files.identity_file import load_identity
from kcm_schemas.codec import encode
from kcm_schemas.roster import Operator, OperatorRole, Role
from kcm_schemas.signed import Kind
from kcm_trust.endorsements import Endorsements
from kcm_trust.identity import ROOT
from kcm_trust.roster import follows
from kcm_trust.verify import verify_roster

MEMBERS = [Member(Role.CORE, "eu", 1), Member(Role.CORE, "eu", 2)]
LEFT = Endorsements([bytes(32)]).retirement()


def test_who_is_retired_or_was_added_stays(tmp_path):
    trust = Trust(tmp_path)
    public = make_trust(tmp_path, MEMBERS, ["eu"], 1)
    first = verify_roster(trust.roster.read_bytes(), public, 0)
    alice = Operator(operator="alice", roles=[OperatorRole.ADMIN], public_key=b"a" * 32)
    changed = first.model_copy(
        update={
            "version": 2,
            "operators": [
                first.operators[0].model_copy(update={"retired": LEFT}),
                *first.operators[1:],
                alice,
            ],
            "instances": [
                first.instances[0].model_copy(update={"retired": LEFT}),
                first.instances[1],
            ],
        }
    )
    root = load_identity(ROOT, str(trust.key(ROOT)), SYSTEM)
    trust.roster.write_bytes(encode(root.sign(Kind.ROSTER, changed)))
    make_trust(tmp_path, MEMBERS, ["eu"], 2)
    assert verify_roster(trust.roster.read_bytes(), public, 0) == changed
    more = [Member(Role.GATEWAY, "eu", 1), MEMBERS[1]]
    make_trust(tmp_path, more, ["eu"], 3)
    last = verify_roster(trust.roster.read_bytes(), public, 0)
    follows(changed, last)
    assert {one.instance for one in last.instances} == {"core-eu-1", "core-eu-2", "gateway-eu-1"}
    assert [one.operator for one in last.operators] == [OPERATOR, APPROVER, "alice"]


def test_the_roster_is_private_and_nothing_lies_beside_it(tmp_path):
    """It is replaced as every file that decides: whole, and so that it outlives a power cut."""
    make_trust(tmp_path, MEMBERS, ["eu"], 1)
    roster = Trust(tmp_path).roster
    assert roster.stat().st_mode & 0o777 == 0o600
    make_trust(tmp_path, MEMBERS[:1], ["eu"], 2)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [roster.name]
