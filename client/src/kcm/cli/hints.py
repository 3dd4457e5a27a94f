"""Hints: what to do next, by the failed command and the error code.

A hint fits the command: an operator who links a key needs another one than a user who decrypts.
Commands in a hint are complete, so that they can be typed. Words in capitals are placeholders.
"""

from __future__ import annotations

from typing import Final

GENERAL: Final = {
    "malformed": "correct what the error names; `--help` shows the forms",
    "wrong_region": "use the region to which it belongs",
    "unknown_tenant": "`kcm tenant list` shows the region's tenants",
    "unknown_service": "`kcm service list TENANT` shows them; `kcm service create TENANT SERVICE` "
    "creates one",
    "unknown_link": "`kcm l1 list` shows the links; `kcm l1 link NAME URI` creates one",
    "unknown_app": "`kcm app list` shows them; `kcm app create NAME --grant GRANT` creates one",
    "unknown_hold": "`kcm hold list --all` shows the holds, lifted ones too",
    "unknown_session": "give the same command again",
    "unknown_ask": "give the same command again",
    "replayed": "give the same command again",
    "tenant_killed": "`kcm hold list TENANT` shows why; `kcm lift --tenant TENANT --reason TEXT` "
    "lifts the holds on it",
    "tenant_unavailable": "the root key cannot be reached; the tenant is served again when it can",
    "tampered": "the stored data differs from what was signed: `kcm audit tail` shows more",
    "forbidden": "`kcm roster show` shows the roles of the operators",
    "conflict": "another operator changed it at the same time: give the same command again",
    "too_large": "use smaller batches",
    "busy": "give the same command again in a moment",
    "unavailable": "`kcm region list` shows which Cores serve; for a system of `kcm dev up`, use "
    "`kcm dev status`",
    "deadline_exceeded": "give the same command again; `kcm region list` shows which Cores serve",
    "key_shredded": "the record can no longer be decrypted",
    "key_destroyed": "the record can no longer be decrypted",
    "internal": "see the logs of the components",
}
"""By code, for commands without a better hint."""

_ADMIN: Final = "this needs an operator with role admin: `kcm roster show` shows the roles"
_SECURITY: Final = "this needs an operator with role security: `kcm roster show` shows the roles"
_APP: Final = (
    "`kcm app show NAME` shows the grants of the application in the context, and `kcm app change "
    "NAME --grant TENANT/SERVICE` adds one"
)
_APP_CHANGE_CONFLICT: Final = (
    "`kcm app show NAME` shows the entry that is there; prepare or change it again from that one"
)
_RECORD: Final = "to replace it: the same command with a higher --revision"
_GATEWAY: Final = (
    "check that a Gateway of the region runs; give the same command again, or ask another --region"
)
_CORES: Final = (
    "a Gateway replied, so check the region's Cores: `kcm region list` shows which of them serve; "
    "give the same command again, or ask another --region"
)
_BROKER: Final = (
    "check that the region's broker runs, and its url in the context; or ask another --region"
)
_AUDITOR: Final = (
    "check that the region's Auditor runs; `kcm audit verify DIRECTORY` reads a journal without it"
)
_ROSTER: Final = "`kcm roster show` shows the valid roster: prepare the next one from it"
_REGION: Final = "check --region; `kcm tenant list` shows the region's tenants"
_UNDONE: Final = (
    "give the same command again, it repeats no finished change; `kcm region list` shows which "
    "Cores serve"
)
_SILENT: Final = "no region replies: check the context, and that the brokers run"
_KILLING: Final = "killing again does no harm; `kcm hold list` shows the holds that are in force"

_APP_CHANGE: Final = {
    "forbidden": _ADMIN, "conflict": _APP_CHANGE_CONFLICT, "unavailable": _UNDONE,
    "deadline_exceeded": _UNDONE,
}  # fmt: skip

OF_COMMAND: Final = {
    "encrypt": {
        "forbidden": _APP,
        "unavailable": _GATEWAY,
        "deadline_exceeded": _GATEWAY,
        "unknown_tenant": _REGION,
    },
    "decrypt": {
        "forbidden": "`kcm inspect FILE` shows the record's tenant and service; " + _APP,
        "tampered": "give --context-bytes and --bind as at encryption; else the data was changed",
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
    "app create": _APP_CHANGE,
    "app change": _APP_CHANGE,
    "app rotate": _APP_CHANGE,
    "app revoke": _APP_CHANGE,
    "app approve": _APP_CHANGE,
    "l1 link": {
        "forbidden": _ADMIN,
        "conflict": "a link's URI cannot change: link this key under another name, then "
        "`kcm tenant relink TENANT --link NAME`; another --model needs a higher --revision",
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
        "unavailable": "`kcm registry show --region REGION` shows which Core replies",
    },
    "roster put": {"forbidden": _ROSTER, "conflict": _ROSTER},
    "roster retire": {"forbidden": _ROSTER, "conflict": _ROSTER},
    "audit tail": {"unavailable": _AUDITOR, "deadline_exceeded": _AUDITOR},
    "audit status": {"unavailable": _AUDITOR, "deadline_exceeded": _AUDITOR},
}  # fmt: skip
"""By command and code."""

_NO_SIGNER: Final = (
    "[operator] in the context must name an operator of the roster, which `kcm roster show` shows; "
    "the owner of the operator root adds one"
)
_OTHER_KEY: Final = (
    "the key that the context names is not that operator's key on the roster: name the right file "
    "in [operator]; `kcm roster show` shows the operators"
)
_RETIRED: Final = (
    "a retired operator signs nothing new: use the context of another one; `kcm roster show` shows "
    "who is not retired"
)

OF_TEXT: Final = {
    ("unavailable", "opens a session for this application"): "compare [app] in the context with "
    "`kcm app show NAME`: it may be unknown, revoked or expired, may have another key now, or may "
    "not act in this region",
    ("forbidden", "no plain application may"): "name an application and its key in [app] of the "
    "context: `kcm app create NAME --grant TENANT/SERVICE` creates one",
    ("unavailable", "no baseline of its region's registry"): "`kcm registry show` shows which Core "
    "has a baseline",
    ("unavailable", "another region of the tenant has not been heard for too long"): "`kcm region "
    "list` shows the regions that serve, and `kcm roster show` which has an older roster; "
    "docs/cli.md describes what to do about a lost region",
    ("forbidden", "the signer is not on the roster"): _NO_SIGNER,
    ("unavailable", "the signer is not on the roster"): _NO_SIGNER,
    ("forbidden", "a signature is not valid"): _OTHER_KEY,
    ("unavailable", "a signature is not valid"): _OTHER_KEY,
    ("forbidden", " is retired"): _RETIRED,
    ("unavailable", "the signer is retired"): _RETIRED,
    ("unavailable", "the operator is retired"): _RETIRED,
    ("malformed", "a majority needs three regions"): "create it with --region-quorum all, or name "
    "at least three regions with --region",
}
"""By code and a part of the detail, which says more than the code. Instances say or claim both."""

REPLIED: Final = {_GATEWAY: _CORES}
"""In place of a hint, where ``unavailable`` is the reply of that component."""

NO_BROKER: Final = ("broker", "no program listens")
"""Parts of a detail about a broker that was not reached. They are of this client."""

ALSO: Final = {"link list": "l1 list"}
"""Aliases of commands."""


def hint_of(command: str, code: str, detail: str = "", *, replied: bool = False) -> str:
    """Return the hint; empty for an unknown code. ``command`` is as in ``tenant create``.

    ``replied``: the error is the reply of a component.
    """
    known = hint_of_text(code, detail)
    if known:
        return known
    by_code = OF_COMMAND.get(ALSO.get(command, command), {})
    hint = by_code.get(code) or GENERAL.get(code, "")
    if code == "unavailable" and replied:
        return REPLIED.get(hint, hint)
    if hint in {_GATEWAY, _AUDITOR} and any(part in detail for part in NO_BROKER):
        return _BROKER
    return hint


def hint_of_text(code: str, detail: str) -> str:
    """Return the hint for a detail that says more than the code; empty for any other one."""
    known = (hint for (one, part), hint in OF_TEXT.items() if one == code and part in detail)
    return next(known, "")
