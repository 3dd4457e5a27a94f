"""Plans that ``kcm init`` refuses, with the place and what is wrong there, before it writes."""

import pytest
from kcm.exit_codes import Exit

from tests.unit.test_init import PLAN, Desk


@pytest.fixture
def desk(tmp_path, capsys):
    return Desk(tmp_path, capsys)


NAME = "is not a name (1 to 63 characters of a-z, 0-9 and -)"
HOST = "is not a host: a name in lower case or an IPv4 address, with no port"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version = 1", "version = 2", "version: 2 is not 1"),
        ("version = 1", "", "version: is missing"),
        ('"acme"', '"Acme"', f"system: 'Acme' {NAME}"),
        ('"n3.example"', '"n2.example"', "regions.eu.servers[2]: 'n2.example' is listed twice"),
        (
            ', "n3.example"',
            "",
            "regions.eu.servers: has 2 servers; a broker has 1, or 3 to 5: two tolerate no failure",
        ),
        ('"b.example"', '"b.example:4222"', f"backbone.servers[0]: 'b.example:4222' {HOST}"),
        (
            '"b.example"',
            '"::1"',
            "backbone.servers[0]: '::1' is an IPv6 address: give the server a host name",
        ),
        ('"b.example"', '""', f"backbone.servers[0]: '' {HOST}"),
        ('"b.example"', '"b.example\\"x"', f"backbone.servers[0]: 'b.example\"x' {HOST}"),
        ('"b.example"', "1", "backbone.servers[0]: 1 is not a text"),
        ('["b.example"]', '"b.example"', "backbone.servers: 'b.example' is not a list"),
        (
            "regions.us",
            "regions.ctl",
            "regions.ctl: a region cannot have this name: it has another meaning",
        ),
        ("regions.us", "regions.US", f"regions.US: 'US' {NAME}"),
        ("[regions.us]", "[[regions.us]]", "regions.us: is not a table"),
        ("cores = 2", "cores = 0", "regions.eu.cores: 0 is less than 1"),
        ("cores = 2", "cores = 65", "regions.eu.cores: 65 is more than 64"),
        ("cores = 2", "cores = 1.5", "regions.eu.cores: 1.5 is not a whole number"),
        ('"bob"', '"alice"', "operators[1].name: 'alice' is listed twice"),
        (
            '"bob"',
            '"core-eu-1"',
            "operators[1].name: 'core-eu-1' is the name of an instance: choose another one",
        ),
        ('name = "bob", ', "", "operators[1].name: is missing"),
        ('["security"]', '["king"]', "operators[1].roles[0]: 'king' is not 'admin' or 'security'"),
        ('["security"]', "[]", "operators[1].roles: has fewer entries than 1"),
        (
            "security",
            "admin",
            "operators: none has the role 'security', so there is no one to place a hold",
        ),
        (
            "cores = 1",
            'cores = 1\nca = "none.pem"',
            "regions.us.ca: there is no file 'none.pem'",
        ),
        ("cores = 1", 'colour = "red"', "regions.us.colour: is not a field here"),
        (
            'cores = 2\n[regions.us]\nservers = ["10.0.0.1"]',
            'cores = 0\n[regions.us]\nservers = ["10.0.0.1"]\ngateways = 0',
            "regions.eu.cores: 0 is less than 1; regions.us.gateways: 0 is less than 1",
        ),
    ],
)
def test_a_plan_that_cannot_be_is_refused_with_the_place_and_nothing_is_made(desk, old, new, said):
    assert old in PLAN
    error = desk.refused(PLAN.replace(old, new))
    assert error["error"] == "plan"
    assert error["detail"] == f"{desk.plan}: {said}"
    assert "--example" in error["hint"]
    assert not desk.made.exists()


def test_a_plan_that_is_no_toml_is_refused(desk):
    assert desk.refused(PLAN.replace("[backbone]", "[backbone"), "TOML")["error"] == "plan"
    assert not desk.made.exists()


EU = '["n1.example", "n2.example", "n3.example"]'


@pytest.mark.parametrize(
    ("servers", "said"),
    [
        ('["n2.example", "n1.example", "n3.example"]', "n2.example is the server eu-2"),
        ('["n1.example", "n3.example", "n4.example"]', "n3.example is the server eu-3"),
        ('["n3.example"]', "n3.example is the server eu-3"),
        ('["n1.example"]', "the server eu-2 at n2.example is not in the plan"),
    ],
)
def test_servers_are_not_exchanged_and_do_not_vanish(desk, servers, said):
    desk.init()
    desk.refused(PLAN.replace(EU, servers), said, code=Exit.FAULT)
    desk.plan.write_text(PLAN)
    assert {one["change"] for one in desk.init()["bundles"]} == {"same"}


def test_a_server_that_left_its_cluster_is_left_out_when_its_certificate_is_removed(desk):
    desk.init()
    smaller = PLAN.replace(EU, '["n1.example"]')
    for name in ("eu-2", "eu-3"):
        error = desk.refused(smaller, f"the server {name}", code=Exit.FAULT)
        assert f"{desk.authority / 'certificates' / 'eu' / name}.pem" in error["hint"]
        for ending in ("pem", "key"):
            (desk.authority / "certificates" / "eu" / f"{name}.{ending}").unlink()
    desk.init()


def test_a_server_that_moves_to_another_machine_is_named(desk):
    desk.init()
    desk.plan.write_text(PLAN.replace("n2.example", "n9.example").replace("b.example", "c.example"))
    made = desk.init()
    stop = "stop the old server before the new one starts"
    assert made["next"][:2] == [
        f"backbone-1 moves from b.example to c.example: {stop}",
        f"eu-2 moves from n2.example to n9.example: {stop}",
    ]
    assert {one["bundle"]: one["change"] for one in made["bundles"]}["eu/eu-2"] == "changed"


def test_a_cluster_grows_at_the_end_of_its_list(desk):
    desk.init()
    desk.plan.write_text(PLAN.replace('"n3.example"]', '"n3.example", "n4.example"]'))
    made = desk.init()
    assert not [step for step in made["next"] if "moves" in step]
    assert {one["bundle"]: one["change"] for one in made["bundles"]}["eu/eu-4"] == "made"
