"""The table: what each role may publish and subscribe in each account of a region's broker.

Everything that a role does not need is absent, and there are no denials to forget. Four rules:

- An instance has a signing key of its own, whose subjects are literal. ``{{…}}`` is for clients
  without one: applications, operators and the short-lived provisioner. The broker drops an entry
  with a queue group from a list that also has a ``{{…}}`` entry, so no list has both.
- Replies are published with plain permissions, never by ``allow_responses``: with that, the asker
  would choose any subject at which the answer is stored. So each role has a tree of inboxes,
  ``_INBOX.<role>.<instance or user key>.>``: a client receives from its own place in the tree
  alone, and an instance answers in the trees of the roles that ask it (``inbox_prefix``).
- In accounts with JetStream there is no ``CONSUMER.MSG.NEXT`` and no ``DIRECT.GET``: either one
  can delete any stream of the account, by a reply subject of the caller's choice. Streams are
  followed by named push consumers, whose filter is a part of the subject.
- The server takes ``>`` for a token when it compares a subscription with an entry: a client that
  may subscribe ``a.*`` may also subscribe ``a.>``. So no subject of one instance begins with what
  an entry of another one has before its last ``*``.

``subscribe`` entries of the form ``SUBJECT QUEUE`` allow that queue group only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from kcm_schemas import data_subjects, subjects
from kcm_schemas.codes import Code, KcmError
from kcm_schemas.names import is_name

from kcm_broker import server_subjects as server
from kcm_broker.claims import APPLICATION_VERBS
from kcm_broker.roles import (
    GRANT,
    INSTANCE_ROLES,
    NAME,
    SPOKEN,
    SUBJECT,
    Account,
    Rights,
    Role,
    inboxes,
    own_inbox,
)


def rights(role: Role, account: Account, region: str, instance: str = "") -> Rights:
    """Return a role's rights in an account; ``instance`` names a Core, a Gateway or an Auditor.

    Raises ``malformed`` if the role has no place in the account, or a name is not valid.
    """
    made = TABLE.get((role, account))
    if made is None:
        raise KcmError(Code.MALFORMED, f"the role {role} has no rights in the account {account}")
    taken = role is Role.GATEWAY and instance in APPLICATION_VERBS  # its subjects would be mixed
    if (role in INSTANCE_ROLES) != bool(instance) or (instance and not is_name(instance)) or taken:
        raise KcmError(Code.MALFORMED, "Cores, Gateways and Auditors have rights by instance")
    subjects.in_region(region)  # raises for a name that would widen a subject
    return made(region, instance)


def _all(subject: str, tokens: int) -> str:
    return subject + ".*" * tokens


def _writes_lease(region: str, instance: str) -> tuple[str, ...]:
    """What every instance that holds keys writes: its audit events and its lease entries."""
    own_lease = ".".join((subjects.in_region(region, "control", "lease"), instance, "*"))
    emitted = ".".join((subjects.in_region(region, "audit"), instance))
    return (emitted, own_lease)


def _core(region: str, instance: str) -> Rights:
    def control(*tokens: str) -> str:
        return subjects.in_region(region, "control", *tokens)

    return Rights(
        publish=(
            *_writes_lease(region, instance),
            _all(control("hold"), 2),
            _all(control("lifts"), 4),
            _all(control("peer-lease"), 1),
            _all(control("key-use"), 2),
            _all(control("endorsements"), 2),
            subjects.control_roster(region),
            subjects.control_trim(region),
            subjects.registry_question(region),
            subjects.bucket_all(subjects.REGISTRY_BUCKET),
            subjects.bucket_all(subjects.RESULTS_BUCKET),
            *inboxes(Role.CORE, Role.GATEWAY, Role.EMBEDDED, Role.OPERATOR),
            server.INFO,
            *server.follow(subjects.CONTROL_STREAM, subjects.control_all(region)),
            *server.follow(server.REGISTRY, subjects.bucket_all(subjects.REGISTRY_BUCKET)),
            *server.follow(subjects.AUDIT_STREAM, subjects.audit_all(region)),
            server.purge(subjects.AUDIT_STREAM),
            server.info(server.RESULTS),
            server.last(subjects.CONTROL_STREAM),
            server.last(server.REGISTRY),
            server.last(server.RESULTS),
        ),
        subscribe=(
            own_inbox(Role.CORE, instance),
            data_subjects.core_sessions(region, instance),
            data_subjects.core_all(region, instance),
            f"{subjects.admin(region, 'hold', 'put')} core-{region}",
            subjects.admin_all_at(region, instance),
            subjects.registry_question(region),
            *server.monitored("kcm-core"),
        ),
    )


def _core_control(region: str, instance: str) -> Rights:
    return Rights(
        publish=(
            _all(f"{subjects.CTL}.hold.{region}", 2),
            _all(f"{subjects.CTL}.receipt.{region}", 1),
            f"{subjects.CTL}.pull.*.{region}",
            "_R_.>",  # the broker's name for the inbox of another account
        ),
        subscribe=(
            own_inbox(Role.CORE, instance),
            subjects.broadcast_holds(),
            subjects.receipts(),
            f"{subjects.pulls(region)} core-{region}",
        ),
    )


def _core_vault(_region: str, instance: str) -> Rights:
    return Rights(
        publish=(
            subjects.bucket_all(subjects.KEYS_BUCKET),
            server.INFO,
            server.info(server.KEYS),
            server.last(server.KEYS),
        ),
        subscribe=(own_inbox(Role.CORE, instance),),
    )


def _reads(region: str) -> tuple[str, ...]:
    """What a Gateway, embedded or not, reads of the region's server."""
    return (
        server.INFO,
        *server.follow(subjects.CONTROL_STREAM, subjects.control_all(region)),
        *server.follow(server.REGISTRY, subjects.bucket_all(subjects.REGISTRY_BUCKET)),
        server.last(subjects.CONTROL_STREAM),
        server.last(server.REGISTRY),
    )


def _core_sessions(region: str, *more: str, own: bool = True) -> tuple[str, ...]:
    """What begins a session with any Core; ``own``: that of an instance."""
    core = subjects.in_region(region, "core")
    return tuple(f"{core}.*.{verb}" for verb in ("key", *(("open",) if own else ()), *more))


def _gateway(region: str, instance: str) -> Rights:
    return Rights(
        publish=(
            *_writes_lease(region, instance),
            *_core_sessions(region, data_subjects.OPEN_APP),
            f"{subjects.in_region(region, 'core')}.*.wrap.*.*",
            f"{subjects.in_region(region, 'core')}.*.unwrap.*.*",
            *inboxes(Role.APPLICATION, Role.PLAIN, Role.OPERATOR),
            *_reads(region),
        ),
        subscribe=(
            own_inbox(Role.GATEWAY, instance),
            data_subjects.gateway_sessions(region, instance),
            data_subjects.gateway_all_at(region, instance),
            # By verb: the entry ``gateway.*.*.*`` would also allow what is for other Gateways.
            *(
                f"{_all(subjects.in_region(region, 'gateway', verb), 2)} gateway-{region}"
                for verb in sorted(APPLICATION_VERBS)
            ),
            f"{data_subjects.gateway_roster(region)} gateway-{region}",
            *server.monitored("kcm-gateway"),
        ),
    )


def _gateway_control(region: str, _instance: str) -> Rights:
    return Rights(
        publish=(_all(f"{subjects.CTL}.receipt.{region}", 1),),
        subscribe=(subjects.broadcast_holds(),),
    )


def _auditor(region: str, instance: str) -> Rights:
    return Rights(
        publish=(
            subjects.audit(region, instance),
            subjects.control_head(region, instance),
            *inboxes(Role.OPERATOR),
            *server.follow(subjects.AUDIT_STREAM, subjects.audit_all(region)),
            server.last(subjects.CONTROL_STREAM),
        ),
        subscribe=(
            own_inbox(Role.AUDITOR, instance),
            f"{subjects.auditor_all(region)} auditor",
            *server.monitored("kcm-auditor"),
        ),
    )


def _application(region: str, _instance: str) -> Rights:
    place = subjects.in_region(region, "gateway")
    return Rights(
        publish=(
            data_subjects.gateway_roster(region),
            *(f"{place}.*.{verb}" for verb in ("key", "open", "roster")),
            f"{place}.*.{data_subjects.CARRIED}.*.*",
            f"{place}.*.{GRANT}",
        ),
        subscribe=(own_inbox(Role.APPLICATION, SUBJECT),),
    )


def _plain(region: str, _instance: str) -> Rights:
    return Rights(
        publish=(f"{subjects.in_region(region, 'gateway')}.{GRANT}",),
        subscribe=(own_inbox(Role.PLAIN, SUBJECT),),
    )


def _embedded(region: str, _instance: str) -> Rights:
    return Rights(
        publish=(
            *_writes_lease(region, NAME),
            *_core_sessions(region),
            f"{subjects.in_region(region, 'core')}.*.{GRANT}",
            *_reads(region),
        ),
        subscribe=(own_inbox(Role.EMBEDDED, NAME),),
    )


def _operator(region: str, _instance: str) -> Rights:
    return Rights(
        publish=(
            subjects.admin(region, "hold", "put"),
            _all(subjects.in_region(region, "admin"), 3),
            *_core_sessions(region, data_subjects.OPEN_OPERATOR, own=False),
            subjects.auditor_all(region),
            *server.monitoring(),
        ),
        subscribe=(own_inbox(Role.OPERATOR, SUBJECT),),
    )


def _provisioner(_region: str, _instance: str) -> Rights:
    return Rights(server.provision(server.IN_REGION), (own_inbox(Role.PROVISIONER, SUBJECT),))


def _provisioner_vault(_region: str, _instance: str) -> Rights:
    return Rights(server.provision(server.IN_VAULT), (own_inbox(Role.PROVISIONER, SUBJECT),))


def _pusher(_region: str, _instance: str) -> Rights:
    return Rights(
        publish=(server.SYSTEM_UPDATE, server.system_lookup("*")),
        subscribe=(own_inbox(Role.PUSHER, SUBJECT),),
    )


def _leaf(region: str, _instance: str) -> Rights:
    # What passes is decided by the exports and imports of the region's account (``accounts``), too.
    return Rights(
        publish=(
            *(f"{subjects.CTL}.{noun}.{region}.>" for noun in SPOKEN),
            f"{subjects.CTL}.pull.*.{region}",
            "_R_.>",
        ),
        subscribe=(
            *(f"{subjects.CTL}.{noun}.>" for noun in SPOKEN),
            subjects.pulls(region),
            *inboxes(Role.CORE),
        ),
        connection="LEAFNODE",
    )


TABLE: Final[Mapping[tuple[Role, Account], Callable[[str, str], Rights]]] = {
    (Role.CORE, Account.REGION): _core,
    (Role.CORE, Account.CONTROL): _core_control,
    (Role.CORE, Account.VAULT): _core_vault,
    (Role.GATEWAY, Account.REGION): _gateway,
    (Role.GATEWAY, Account.CONTROL): _gateway_control,
    (Role.AUDITOR, Account.REGION): _auditor,
    (Role.APPLICATION, Account.REGION): _application,
    (Role.PLAIN, Account.REGION): _plain,
    (Role.EMBEDDED, Account.REGION): _embedded,
    (Role.EMBEDDED, Account.CONTROL): _gateway_control,
    (Role.OPERATOR, Account.REGION): _operator,
    (Role.PROVISIONER, Account.REGION): _provisioner,
    (Role.PROVISIONER, Account.VAULT): _provisioner_vault,
    (Role.PUSHER, Account.SYSTEM): _pusher,
    (Role.LEAF, Account.BACKBONE): _leaf,
}
"""The rights of each role in each account, by region and instance."""
