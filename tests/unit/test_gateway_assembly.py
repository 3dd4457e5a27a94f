"""What the composition of a Gateway connects."""

from kcm_killswitch.replica.registry_follower import RegistryFollower
from kcm_runtime.nats.ports import Entry
from kcm_schemas import subjects
from kcm_schemas.signed import Kind

from tests.unit.core_rig import lease_of, signed
from tests.unit.gateway_rig import Rig


async def test_another_registry_that_a_core_shows_makes_the_gateway_read_its_own_again(
    tmp_path, monkeypatch
):
    read = []

    def read_again(feed: RegistryFollower) -> None:
        read.append(feed)

    monkeypatch.setattr(RegistryFollower, "read_again", read_again)
    rig = await Rig.make(tmp_path)
    other = lease_of(rig.core.me).model_copy(
        update={"registry": [b"other registry 1"] * 16, "first": 1}
    )
    subject = subjects.control_lease("eu", other.instance, other.incarnation)
    rig.switch.reader.receive(Entry(7, subject, signed(Kind.LEASE, other, "core-eu")))
    assert len(read) == 1
