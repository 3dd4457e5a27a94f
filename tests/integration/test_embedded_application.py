"""An application with the Gateway in its own process, on a real bus."""

import pytest
from kcm import Admin, KcmError
from kcm._internal.kills import Kills
from kcm_devsystem.configs import config_file
from kcm_devsystem.identities import APP
from kcm_gateway.embedded import EmbeddedGateway
from kcm_schemas.codes import Code
from kcm_schemas.names import key_target

from tests.integration.living import EU, eventually


async def code(engine, tenant, records):
    """The code of a decryption."""
    try:
        await engine.decrypt(tenant, "crm", records)
    except KcmError as error:
        return error.code
    return Code.OK


@pytest.mark.timeout(120)
async def test_a_hold_on_its_application_ends_it_until_it_is_lifted(living):
    tenant = await living.tenant(kind="softkey")
    path = str(config_file(living.directory, living.options.embedded[0]))
    async with Admin.open(living.context) as admin, EmbeddedGateway.join(path) as gateway:
        engine = gateway.engine
        sealed = (await engine.encrypt(tenant, "crm", [b"x", b"y"])).values
        assert (await engine.decrypt(tenant, "crm", sealed)).values == [b"x", b"y"]
        kills, until = Kills(admin, [EU]), admin.around.until
        identity = living.context.app_identity()
        hold = kills.make("app", key_target(APP, identity.public), "a drill")
        await kills.place(hold, until(30))

        async def refused():
            return await code(engine, tenant, sealed) is Code.FORBIDDEN

        async def served():
            return await code(engine, tenant, sealed) is Code.OK

        try:
            await eventually(refused)
            with pytest.raises(KcmError, match="out of service"):
                await engine.encrypt(tenant, "crm", [b"x"])
        finally:
            await kills.lift(hold.id, "over", until(30))
        await eventually(served)
