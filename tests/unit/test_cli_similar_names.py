"""A mistyped name: a similar one is named where the operator may list the names."""

import json
from collections.abc import Callable

import pytest
from kcm.exit_codes import Exit
from kcm_schemas.admin.links import LinkPage, LinkRow
from kcm_schemas.admin.requests import AdminRequest
from kcm_schemas.admin.tenants import ServiceListQuery, ServicePage, ServiceRow, TenantPage
from kcm_schemas.codec import Message, decode, encode
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.data import Failure

from tests.unit.operator_rig import Desk, row, unknown


def refuses(code: Code) -> Callable[[AdminRequest, str], Message]:
    def answer(request: AdminRequest, operator: str) -> Message:
        raise KcmError(code, "not here")

    return answer


@pytest.fixture
def names(desk: Desk) -> Desk:
    """Every region has the tenant acme with the service files, and the link acme-root."""

    def services(request: AdminRequest, operator: str) -> Message:
        if decode(ServiceListQuery, request.payload).tenant != "acme":
            raise KcmError(Code.UNKNOWN_TENANT)
        one = ServiceRow(tenant="acme", service="files", revision=1)
        return ServicePage(services=[one], total=1, more=False)

    link = LinkRow(
        link="acme-root", region="eu", uri="softkey:/keys", model="byok", revision=1, tenants=1
    )
    tenants = TenantPage(tenants=[row(tenant="acme")], total=1, more=False)
    desk.system.everywhere("tenant", "list", lambda *_: tenants)
    desk.system.everywhere("link", "list", lambda *_: LinkPage(links=[link], total=1, more=False))
    desk.system.everywhere("service", "list", services)
    for verb in ("find", "show"):
        desk.system.everywhere("tenant", verb, unknown)
    return desk


@pytest.mark.parametrize(
    "command",
    [
        ("tenant", "show", "amce"),
        ("service", "list", "amce"),
        ("service", "create", "amce", "files"),
        ("tenant", "relink", "amce", "--link", "acme-root"),
    ],
    ids=" ".join,
)
def test_a_tenant_that_a_region_does_not_know(names: Desk, command: tuple[str, ...]) -> None:
    code, _, err = names.run(*command, "-o", "json")
    said = json.loads(err)
    assert (code, said["error"]) == (Exit.REFUSED, "unknown_tenant")
    assert said["hint"].endswith("; did you mean acme?")
    quite_another = [one.replace("amce", "zebra") for one in command]
    assert "did you mean" not in names.run(*quite_another, "-o", "json")[2]


def test_a_link_that_a_region_does_not_know(names: Desk) -> None:
    names.system.everywhere("tenant", "put", refuses(Code.UNKNOWN_LINK))
    code, _, err = names.run("tenant", "create", "new", "--link", "acme-rot", "-o", "json")
    said = json.loads(err)
    assert (code, said["error"]) == (Exit.REFUSED, "unknown_link")
    assert said["hint"].endswith("; did you mean acme-root?")


def test_a_name_that_exists_is_not_suggested(names: Desk) -> None:
    """Its root may be lost, or the store may be behind."""
    assert "did you mean" not in names.run("tenant", "show", "acme", "-o", "json")[2]


def gateway_refuses(desk: Desk, code: Code) -> None:
    async def refuse(subject: str, body: bytes) -> bytes:
        return encode(Failure(v=1, error=code, detail="not here"))

    for gateway in desk.system.gateways.values():
        gateway.script = refuse


TABLE = ("--fields", "ssn", "--as", "csv")


@pytest.mark.parametrize("more", [(), TABLE, ("--record",)], ids=["file", "table", "record"])
@pytest.mark.parametrize(
    ("code", "tenant", "service", "meant"),
    [
        (Code.UNKNOWN_TENANT, "amce", "files", "acme"),
        (Code.UNKNOWN_SERVICE, "acme", "fiels", "files"),
        (Code.UNKNOWN_SERVICE, "acme", "zebra", ""),
    ],
)
def test_what_a_gateway_does_not_know(
    names: Desk, more: tuple[str, ...], code: Code, tenant: str, service: str, meant: str
) -> None:
    gateway_refuses(names, code)
    plain = names.system.directory / "plain"
    plain.write_text("name,ssn\nann,7\n")
    out = str(names.system.directory / "out")
    command = ("encrypt", str(plain), "--tenant", tenant, "--service", service, *more)
    end, _, err = names.run(*command, "-o", out, "--format", "json")
    said = json.loads(err.splitlines()[-1])
    assert (end, said["error"]) == (Exit.REFUSED, code.value)
    assert said["hint"].endswith(f"; did you mean {meant}?") is bool(meant)
    asked = [one for core in names.system.cores.values() for one in core.requests]
    assert 0 < len(asked) <= 3


def test_an_application_without_an_operator_gets_no_suggestion(names: Desk) -> None:
    file = names.system.context_file
    file.write_text(file.read_text().partition("[operator]")[0])
    gateway_refuses(names, Code.UNKNOWN_TENANT)
    plain = names.system.directory / "plain"
    plain.write_text("text")
    who = ("--tenant", "amce", "--service", "files", "-o", str(plain.with_name("out")))
    code, _, err = names.run("encrypt", str(plain), *who, "--format", "json")
    assert (code, json.loads(err)["error"]) == (Exit.REFUSED, "unknown_tenant")
    assert "did you mean" not in err
    assert not any(core.requests for core in names.system.cores.values())
