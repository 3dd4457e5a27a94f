"""``kcm init`` and Gateways inside of applications: grants on the roster and at the broker."""

import base64
import json
import tomllib

import pytest
from kcm_deployment.doctor.finding import State
from kcm_deployment.doctor.instance import check_instance
from kcm_deployment.trust_files import Trust, known_roster
from kcm_runtime.files.identity_file import load_identity
from kcm_runtime.nats import credentials
from kcm_schemas.codec import encode
from kcm_schemas.roster import Retirement
from kcm_schemas.signed import Kind
from kcm_trust.identity import ROOT

from tests.unit.test_init import PLAN, Desk


@pytest.fixture
def desk(tmp_path, capsys):
    return Desk(tmp_path, capsys)


EMBEDDED = PLAN.replace(
    "[regions.us]",
    """[[regions.eu.embedded]]
application = "shop"
grants = ["clinic/files", "clinic/mail"]
count = 2
[regions.us]""",
)


def on_roster(desk, name):
    roster = known_roster(desk.authority)
    found = next(one for one in roster.instances if one.instance == name)
    return found.application, [f"{one.tenant}/{one.service}" for one in found.grants]


def granted(path):
    """The user, its name and what the broker grants it."""
    found = credentials.read(path)
    claims = json.loads(base64.urlsafe_b64decode(found.token.split(".")[1] + "=="))
    tags = claims["nats"].get("tags", [])
    return found.key.public, claims["name"], [one.removeprefix("grant:") for one in tags]


def test_a_gateway_inside_of_an_application_has_its_grants_everywhere(desk):
    desk.plan.write_text(EMBEDDED)
    made = {one["bundle"]: one["for"] for one in desk.init()["bundles"]}
    assert {made["eu/shop-eu-1"], made["eu/shop-eu-2"]} == {"Gateway inside of shop"}
    assert on_roster(desk, "shop-eu-1") == ("shop", ["clinic/files", "clinic/mail"])
    assert on_roster(desk, "gateway-eu-1") == (None, ["*/*"])
    bundle = desk.made / "eu" / "shop-eu-1"
    user, name, grants = granted(bundle / "region-bus")
    assert (name, grants) == (
        "shop-eu-1",
        ["unwrap.clinic.files", "unwrap.clinic.mail", "wrap.clinic.files", "wrap.clinic.mail"],
    )
    assert granted(bundle / "control-bus")[2] == []
    config = tomllib.loads((bundle / "config.toml").read_text())
    assert config["region_bus"]["inbox"] == "_INBOX.embedded.shop-eu-1"
    for key in ("identity", "roster"):
        assert (bundle / config[key]).is_file()

    desk.plan.write_text(EMBEDDED.replace('"clinic/files", ', ""))
    again = {one["bundle"]: one["change"] for one in desk.init()["bundles"]}
    assert again["eu/shop-eu-1"] == "changed"
    assert on_roster(desk, "shop-eu-1") == ("shop", ["clinic/mail"])
    assert granted(bundle / "region-bus") == (
        user, name, ["unwrap.clinic.mail", "wrap.clinic.mail"]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ('"clinic/mail"]', '"clinic"]', "TENANT/SERVICE"),
        ('"clinic/mail"]', '"clinic/>"]', "TENANT/SERVICE"),
        ('"clinic/mail"]', '"clinic/files"]', "each of them once"),
        ('["clinic/files", "clinic/mail"]', "[]", "at least one grant"),
        ('"shop"', '"core"', "'core-eu-1' cannot be an instance"),
        ('"shop"', f'"{"s" * 60}"', "too long"),
        ("count = 2", "count = 0", "count"),
    ],
)
def test_a_plan_of_embedded_gateways_that_cannot_be_is_refused(desk, before, after, word):
    desk.init()
    desk.refused(EMBEDDED.replace(before, after), word)


def findings(bundle):
    content = tomllib.loads((bundle / "config.toml").read_text())
    for key in ("roster", "identity", "state_dir"):
        content[key] = str(bundle / content[key])
    return {one.check: (one.state, one.text) for one in check_instance(content)}


def test_a_check_of_its_bundle_names_the_application_and_sees_a_later_roster(desk):
    desk.plan.write_text(EMBEDDED)
    desk.init()
    bundle = desk.made / "eu" / "shop-eu-1"
    found = findings(bundle)
    assert {state.value for state, _ in found.values()} == {"ok"}
    assert found["name"][1].endswith("as a gateway of eu, inside of shop")
    roster = known_roster(desk.authority)
    left = [
        one.model_copy(update={"retired": Retirement(endorsements=bytes(32), count=0)})
        if one.instance == "shop-eu-1"
        else one
        for one in roster.instances
    ]
    later = roster.model_copy(update={"version": roster.version + 1, "instances": left})
    root = load_identity(ROOT, str(Trust(desk.authority).key(ROOT)), "acme")
    (bundle / "state" / "roster").write_bytes(encode(root.sign(Kind.ROSTER, later)))
    assert findings(bundle)["name"] == (State.FAIL, "shop-eu-1 is retired")
