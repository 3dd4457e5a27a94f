"""What each role may do, written without the product's code: subjects of region `eu`.

`U` is the user's public key. Each role has the lines that it may publish, and those that it may
subscribe. They are compared with the table of `kcm_broker.rights`, and with what a server does.
"""

GRANTS = ("encrypt.acme.mail", "decrypt.acme.files")
"""The grants of the applications in these tests."""
EMBEDDED_GRANTS = ("wrap.acme.mail", "unwrap.acme.files")
"""The grants of the embedded application in these tests."""

FOLLOWING = """
    $JS.API.INFO
    $JS.API.STREAM.INFO.KCM_CONTROL
    $JS.API.CONSUMER.CREATE.KCM_CONTROL.*.kcm.v1.eu.control.>
    $JS.API.STREAM.INFO.KV_kcm-registry
    $JS.API.CONSUMER.CREATE.KV_kcm-registry.*.$KV.kcm-registry.>
    $JS.API.STREAM.MSG.GET.KCM_CONTROL
    $JS.API.STREAM.MSG.GET.KV_kcm-registry
"""

MONITORED = """
    $SRV.PING
    $SRV.PING.NAME
    $SRV.PING.NAME.*
    $SRV.INFO
    $SRV.INFO.NAME
    $SRV.INFO.NAME.*
    $SRV.STATS
    $SRV.STATS.NAME
    $SRV.STATS.NAME.*
"""

EXPECTED = {
    ("core", "region"): (
        f"""
        {FOLLOWING}
        kcm.v1.eu.audit.core-1
        kcm.v1.eu.control.lease.core-1.*
        kcm.v1.eu.control.hold.*.*
        kcm.v1.eu.control.lifts.*.*.*.*
        kcm.v1.eu.control.peer-lease.*
        kcm.v1.eu.control.key-use.*.*
        kcm.v1.eu.control.endorsements.*.*
        kcm.v1.eu.control.roster
        kcm.v1.eu.control.trim
        kcm.v1.eu.registry.question
        $KV.kcm-registry.>
        $KV.kcm-results.>
        _INBOX.core.>
        _INBOX.gateway.>
        _INBOX.embedded.>
        _INBOX.operator.>
        $JS.API.STREAM.INFO.KCM_AUDIT
        $JS.API.CONSUMER.CREATE.KCM_AUDIT.*.kcm.v1.eu.audit.*
        $JS.API.STREAM.PURGE.KCM_AUDIT
        $JS.API.STREAM.INFO.KV_kcm-results
        $JS.API.STREAM.MSG.GET.KV_kcm-results
        """,
        f"""
        _INBOX.core.core-1.>
        kcm.v1.eu.core.core-1.*
        kcm.v1.eu.core.core-1.*.*.*
        kcm.v1.eu.admin.hold.put core-eu
        kcm.v1.eu.admin.*.*.core-1
        kcm.v1.eu.registry.question
        {MONITORED.replace("NAME", "kcm-core")}
        """,
    ),
    ("core", "control"): (
        """
        kcm.v1.ctl.hold.eu.*.*
        kcm.v1.ctl.receipt.eu.*
        kcm.v1.ctl.pull.*.eu
        _R_.>
        """,
        """
        _INBOX.core.core-1.>
        kcm.v1.ctl.hold.>
        kcm.v1.ctl.receipt.>
        kcm.v1.ctl.pull.eu.* core-eu
        """,
    ),
    ("core", "vault"): (
        """
        $KV.kcm-keys.>
        $JS.API.INFO
        $JS.API.STREAM.INFO.KV_kcm-keys
        $JS.API.STREAM.MSG.GET.KV_kcm-keys
        """,
        "_INBOX.core.core-1.>",
    ),
    ("gateway", "region"): (
        f"""
        {FOLLOWING}
        kcm.v1.eu.audit.gateway-1
        kcm.v1.eu.control.lease.gateway-1.*
        kcm.v1.eu.core.*.key
        kcm.v1.eu.core.*.open
        kcm.v1.eu.core.*.open-app
        kcm.v1.eu.core.*.wrap.*.*
        kcm.v1.eu.core.*.unwrap.*.*
        _INBOX.application.>
        _INBOX.plain.>
        _INBOX.operator.>
        """,
        f"""
        _INBOX.gateway.gateway-1.>
        kcm.v1.eu.gateway.gateway-1.*
        kcm.v1.eu.gateway.gateway-1.*.*.*
        kcm.v1.eu.gateway.encrypt.*.* gateway-eu
        kcm.v1.eu.gateway.decrypt.*.* gateway-eu
        kcm.v1.eu.gateway.roster gateway-eu
        {MONITORED.replace("NAME", "kcm-gateway")}
        """,
    ),
    ("gateway", "control"): ("kcm.v1.ctl.receipt.eu.*", "kcm.v1.ctl.hold.>"),
    ("auditor", "region"): (
        """
        kcm.v1.eu.audit.auditor-1
        kcm.v1.eu.control.head.auditor-1
        _INBOX.operator.>
        $JS.API.STREAM.INFO.KCM_AUDIT
        $JS.API.CONSUMER.CREATE.KCM_AUDIT.*.kcm.v1.eu.audit.*
        $JS.API.STREAM.MSG.GET.KCM_CONTROL
        """,
        f"""
        _INBOX.auditor.auditor-1.>
        kcm.v1.eu.auditor.* auditor
        {MONITORED.replace("NAME", "kcm-auditor")}
        """,
    ),
    ("application", "region"): (
        """
        kcm.v1.eu.gateway.roster
        kcm.v1.eu.gateway.*.key
        kcm.v1.eu.gateway.*.open
        kcm.v1.eu.gateway.*.session.*.*
        kcm.v1.eu.gateway.*.roster
        kcm.v1.eu.gateway.*.GRANT
        """,
        "_INBOX.application.U.>",
    ),
    ("plain", "region"): ("kcm.v1.eu.gateway.GRANT", "_INBOX.plain.U.>"),
    ("embedded", "region"): (
        f"""
        {FOLLOWING}
        kcm.v1.eu.audit.NAME
        kcm.v1.eu.control.lease.NAME.*
        kcm.v1.eu.core.*.key
        kcm.v1.eu.core.*.open
        kcm.v1.eu.core.*.GRANT
        """,
        "_INBOX.embedded.NAME.>",
    ),
    ("embedded", "control"): ("kcm.v1.ctl.receipt.eu.*", "kcm.v1.ctl.hold.>"),
    ("operator", "region"): (
        """
        kcm.v1.eu.admin.hold.put
        kcm.v1.eu.admin.*.*.*
        kcm.v1.eu.core.*.key
        kcm.v1.eu.core.*.open-operator
        kcm.v1.eu.auditor.*
        $SRV.PING
        $SRV.PING.>
        $SRV.INFO
        $SRV.INFO.>
        $SRV.STATS
        $SRV.STATS.>
        """,
        "_INBOX.operator.U.>",
    ),
    ("provisioner", "region"): (
        """
        $JS.API.INFO
        $JS.API.STREAM.INFO.KCM_CONTROL
        $JS.API.STREAM.CREATE.KCM_CONTROL
        $JS.API.STREAM.UPDATE.KCM_CONTROL
        $JS.API.STREAM.INFO.KCM_AUDIT
        $JS.API.STREAM.CREATE.KCM_AUDIT
        $JS.API.STREAM.UPDATE.KCM_AUDIT
        $JS.API.STREAM.INFO.KV_kcm-registry
        $JS.API.STREAM.CREATE.KV_kcm-registry
        $JS.API.STREAM.UPDATE.KV_kcm-registry
        $JS.API.STREAM.INFO.KV_kcm-results
        $JS.API.STREAM.CREATE.KV_kcm-results
        $JS.API.STREAM.UPDATE.KV_kcm-results
        $JS.API.STREAM.CREATE.KCM_ROOM
        $JS.API.STREAM.DELETE.KCM_ROOM
        """,
        "_INBOX.provisioner.U.>",
    ),
    ("provisioner", "vault"): (
        """
        $JS.API.INFO
        $JS.API.STREAM.INFO.KV_kcm-keys
        $JS.API.STREAM.CREATE.KV_kcm-keys
        $JS.API.STREAM.UPDATE.KV_kcm-keys
        """,
        "_INBOX.provisioner.U.>",
    ),
    ("pusher", "system"): (
        """
        $SYS.REQ.CLAIMS.UPDATE
        $SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP
        """,
        "_INBOX.pusher.U.>",
    ),
    ("leaf", "backbone"): (
        """
        kcm.v1.ctl.hold.eu.>
        kcm.v1.ctl.receipt.eu.>
        kcm.v1.ctl.probe.eu.>
        kcm.v1.ctl.pull.*.eu
        _R_.>
        """,
        """
        kcm.v1.ctl.hold.>
        kcm.v1.ctl.receipt.>
        kcm.v1.ctl.probe.>
        kcm.v1.ctl.pull.eu.*
        _INBOX.core.>
        """,
    ),
}


def lines(text):
    return {line.strip() for line in text.splitlines() if line.strip()}


def covers(pattern, subject, *, strictly=False):
    """Whether a pattern of NATS covers a subject, which may itself have wildcards.

    Without `strictly`, as the server compares: `>` in the subject is a token like any other.
    """
    have, want = pattern.split("."), subject.split(".")
    for place, token in enumerate(have):
        if token == ">":
            return len(want) > place
        if place >= len(want) or token not in ("*", want[place]):
            return False
        if strictly and token == "*" and want[place] == ">":
            return False
    return len(have) == len(want)


def allows(entries, line, *, strictly=False):
    """Whether a list of entries allows a subject, perhaps with a queue group after a space."""
    subject, _, queue = line.partition(" ")
    for entry in entries:
        pattern, _, group = entry.partition(" ")
        if covers(pattern, subject, strictly=strictly) and group in ("", queue):
            return True
    return False


BROADER = {
    "core": {
        "kcm.v1.eu.core.core-1.>",
        "kcm.v1.eu.core.core-1.*.*.>",
        "kcm.v1.ctl.pull.eu.> core-eu",
    },
    "gateway": {
        "kcm.v1.eu.gateway.gateway-1.>",
        "kcm.v1.eu.gateway.gateway-1.*.*.>",
        "kcm.v1.eu.gateway.encrypt.*.> gateway-eu",
        "kcm.v1.eu.gateway.decrypt.*.> gateway-eu",
    },
    "auditor": {"kcm.v1.eu.auditor.> auditor"},
}
"""Subscriptions that the server allows by an entry with `*` at its end, besides `$SRV`. None has
subjects of other instances under it."""
