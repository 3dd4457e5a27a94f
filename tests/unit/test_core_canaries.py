"""Where a canary is for a held link: looked for in a few tenants' roots at a time."""

import pytest
from kcm_core.keys.canaries import READS_MAX, Canaries
from kcm_killswitch.model.registry import Registry
from kcm_schemas.codes import Code, KcmError

from tests.unit.core_rig import LINK, TENANT, World


class Store:
    """Roots of some tenants; the others have none, or what is stored is damaged."""

    def __init__(self, roots, damaged=()):
        self.roots, self.damaged, self.asked = roots, damaged, []

    async def root(self, tenant):
        self.asked.append(tenant)
        if tenant in self.damaged:
            raise KcmError(Code.UNAVAILABLE)
        return self.roots.get(tenant)


@pytest.fixture
async def root(tmp_path):
    core = await World(tmp_path).core().made()
    return await core.store.root("acme")


def names(count):
    return [f"t{number:03}" for number in range(count)]


def registry(count):
    made = Registry()
    made.put(LINK)
    for name in names(count):
        made.put(TENANT.model_copy(update={"tenant": name}))
    return made


async def test_a_look_reads_a_few_roots_and_the_next_one_goes_on(root):
    store = Store({"t020": root}, damaged={"t003"})
    canaries = Canaries(registry(100), store)
    for looks in (1, 2):
        assert await canaries.of_links([LINK.link]) == set()
        assert store.asked == names(looks * READS_MAX)
    (target,) = await canaries.of_links([LINK.link])
    assert store.asked == names(21)
    assert canaries.find(target).root == root.versions[0]
    assert await canaries.of_links([LINK.link]) == {target}
    assert len(store.asked) == 21


async def test_after_all_of_them_it_begins_anew(root):
    store = Store({})
    canaries = Canaries(registry(READS_MAX + 1), store)
    for _ in range(2):
        await canaries.of_links([LINK.link])
    store.roots["t000"] = root
    assert len(await canaries.of_links([LINK.link])) == 1
