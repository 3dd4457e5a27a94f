"""What to do next, by the command that failed and the code that it failed with.

A hint speaks of what was given: what helps an operator who links a key does not help somebody who
decrypts. Commands in it are whole, so that they can be typed; what is in capitals is filled in.
"""

from __future__ import annotations

from typing import Final

GENERAL: Final = {
    "unknown_tenant": "`kcm tenant list` shows the region's tenants",
    "unknown_service": "`kcm service list TENANT` shows them; `kcm service create TENANT SERVICE` "
    "makes one",
    "unknown_link": "`kcm l1 list` shows the links; `kcm l1 link NAME URI` makes one",
    "unknown_hold": "`kcm hold list --all` shows the holds, lifted ones too",
    "unknown_session": "give the same command again",
    "tenant_killed": "`kcm hold list TENANT` shows why; `kcm lift --tenant TENANT --reason TEXT` "
    "ends the holds on it",
    "tenant_sealed": "the root key does not answer; it opens again by itself when it does",
    "tampered": "what is stored is not what was signed: `kcm audit tail` says more",
    "forbidden": "`kcm roster show` says who has which role",
    "conflict": "somebody changed it at the same moment: give the same command again",
    "too_large": "give less at once",
    "busy": "give the same command again in a moment",
    "unavailable": "`kcm region list` says which Cores serve; on a system of `kcm dev up` it is "
    "`kcm dev status`",
    "deadline_exceeded": "give the same command again; `kcm region list` says which Cores serve",
    "key_shredded": "nobody can read it any more",
    "key_destroyed": "nobody can read it any more",
    "internal": "the services' logs say more",
}
"""By code, where a command has no better one."""

_ADMIN: Final = "it takes an operator with role admin: `kcm roster show` says who has which role"
_SECURITY: Final = (
    "it takes an operator with role security: `kcm roster show` says who has which role"
)
_RECORD: Final = "to replace it: the same command with a higher --revision"
_GATEWAY: Final = (
    "does a Gateway of the region run? give the same command again, or ask another --region"
)
_AUDITOR: Final = (
    "does the region's Auditor run? the journal can be read without: `kcm audit verify DIRECTORY`"
)
_ROSTER: Final = (
    "`kcm roster show` shows the roster that counts, and where: make the next one from it"
)
_REGION: Final = "is --region the right one? `kcm tenant list` shows the region's tenants"
_UNDONE: Final = (
    "give the same command again, it changes nothing that is done; `kcm region list` says which "
    "Cores serve"
)
_SILENT: Final = "no region answers: is this the right context, and do the brokers run?"
_KILLING: Final = "killing again does no harm; `kcm hold list` shows the holds that are in force"

OF_COMMAND: Final = {
    "encrypt": {
        "forbidden": "the region's Gateways are not granted this service by the roster: "
        "`kcm roster show` names them",
        "unavailable": _GATEWAY,
        "deadline_exceeded": _GATEWAY,
        "unknown_tenant": _REGION,
    },
    "decrypt": {
        "forbidden": "`kcm inspect FILE` says whose a record is",
        "tampered": "are --context-bytes and --bind as at encryption? else the data was changed",
        "wrong_region": "`kcm inspect FILE` shows the record's region; name it with --region",
        "unavailable": _GATEWAY,
        "deadline_exceeded": _GATEWAY,
        "unknown_tenant": _REGION,
    },
    "tenant create": {
        "forbidden": _ADMIN, "conflict": _RECORD, "unavailable": _UNDONE,
        "deadline_exceeded": _UNDONE,
    },
    "tenant relink": {
        "forbidden": _ADMIN, "unavailable": _UNDONE, "deadline_exceeded": _UNDONE,
    },
    "service create": {
        "forbidden": _ADMIN, "conflict": _RECORD, "unavailable": _UNDONE,
        "deadline_exceeded": _UNDONE,
    },
    "l1 link": {
        "forbidden": _ADMIN,
        "conflict": "a link's URI stays what it is: link this key under another name, then "
        "`kcm tenant relink TENANT --link NAME`; another --model takes a higher --revision",
        "unavailable": _UNDONE,
        "deadline_exceeded": _UNDONE,
    },
    "tenant show": {"unknown_tenant": _REGION},
    "service list": {"unknown_tenant": _REGION},
    "kill": {"forbidden": _SECURITY, "unavailable": _KILLING, "deadline_exceeded": _KILLING},
    "lift": {
        "forbidden": _SECURITY,
        "unavailable": "a second lift does no harm; `kcm hold list` shows the holds that are in "
        "force",
    },
    "region retire": {
        "forbidden": _SECURITY, "unavailable": _KILLING, "deadline_exceeded": _KILLING,
    },
    "region list": {
        "unavailable": _SILENT, "deadline_exceeded": _SILENT,
    },
    "registry adopt": {
        "forbidden": _ADMIN,
        "conflict": "`kcm registry show --region REGION` shows what the Cores know now",
        "unavailable": "`kcm registry show --region REGION` says which Core answers",
    },
    "roster put": {"forbidden": _ROSTER, "conflict": _ROSTER},
    "roster retire": {"forbidden": _ROSTER, "conflict": _ROSTER},
    "audit tail": {"unavailable": _AUDITOR, "deadline_exceeded": _AUDITOR},
    "audit status": {"unavailable": _AUDITOR, "deadline_exceeded": _AUDITOR},
}  # fmt: skip
"""By command and code, where what it works on is known."""

ALSO: Final = {"link list": "l1 list"}
"""Commands that are another one by another name."""


def hint_of(command: str, code: str) -> str:
    """What to do next; empty where nothing is known. ``command`` is as in ``tenant create``."""
    by_code = OF_COMMAND.get(ALSO.get(command, command), {})
    return by_code.get(code) or GENERAL.get(code, "")
