"""A Gateway's engine with its own kill switch, over a wire that a test holds."""

import asyncio

from kcm_gateway.assembly import Ports, assemble
from kcm_gateway.config import EngineSettings
from kcm_gateway.envelope import cached_envelope
from kcm_schemas.codes import Code, KcmError

from tests.fakes.virtual import settled
from tests.unit.core_rig import is_request
from tests.unit.switch.rig import Incarnation
from tests.unit.switch.statements import LINK, tenant


class Gate:
    """Holds operations back while it is closed."""

    def __init__(self, only="unwrap"):
        self.only = only
        self.open = asyncio.Event()
        self.open.set()
        self.inside = 0

    async def __call__(self, operation, uri):
        if operation == self.only:
            self.inside += 1
            await self.open.wait()


class GatewayIncarnation(Incarnation):
    """A Gateway's engine with its own kill switch, asking Cores over a wire that a test holds."""

    envelope_of = staticmethod(cached_envelope)

    def __init__(self, system, name, core, **settings):
        super().__init__(system, name)
        system.incarnations.append(self)
        self.core = core
        self.reply_gate = Gate("reply")
        self.asked = 0
        ports = Ports(
            host=self.host,
            replica_state=self.state,
            randomness=self.randomness,
            region_bus=self,
            buckets=system.buses[self.region],
            control_bus=self.bus,
            stream=self.log,
            envelope_of=self.envelope_of,
        )
        settings = EngineSettings(core_timeout_s=4.0, **settings)
        self.engine = assemble(ports, settings, self.switch).engine

    async def request(self, subject, body, timeout_s):
        """The region's bus: each request is a call of the Core."""
        if not is_request(subject):
            return await self.core.answer(subject, body)
        self.asked += 1
        answer = await self.core.answer(subject, body)
        await self.reply_gate("reply", subject)
        return answer

    def purge(self, tenant):
        super().purge(tenant)
        return self.engine.purge(tenant)


async def pair(system, **settings):
    """A Core and a Gateway of one region, with a tenant and a service."""
    core = system.core("core-eu-1")
    await core.start(regions=False)
    await core.make(tenant())
    gateway = GatewayIncarnation(system, "gw-eu-1", core, **settings)
    gateway.learn(LINK, tenant())
    await gateway.start()
    await settled()
    return core, gateway


async def code_of(awaitable):
    try:
        await awaitable
    except KcmError as error:
        return error.code
    return Code.OK
