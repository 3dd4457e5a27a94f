"""Subjects of every kind of the product, own and foreign, which each role of a broker tries."""

from tests.broker_expectations import lines

STREAMS = ("KCM_CONTROL", "KCM_AUDIT", "KV_kcm-keys", "KV_kcm-registry", "KV_kcm-results")

FILTERS = {
    "KCM_CONTROL": "kcm.v1.eu.control.>",
    "KCM_AUDIT": "kcm.v1.eu.audit.*",
    "KV_kcm-keys": "$KV.kcm-keys.>",
    "KV_kcm-registry": "$KV.kcm-registry.>",
    "KV_kcm-results": "$KV.kcm-results.>",
}


def api(stream):
    """Every request to JetStream about one stream, and some with other parts."""
    names = lines("""
        STREAM.INFO
        STREAM.CREATE
        STREAM.UPDATE
        STREAM.DELETE
        STREAM.PURGE
        STREAM.MSG.GET
        STREAM.MSG.DELETE
        STREAM.SNAPSHOT
        STREAM.RESTORE
        STREAM.PEER.REMOVE
        STREAM.LEADER.STEPDOWN
        DIRECT.GET
        CONSUMER.CREATE
        CONSUMER.NAMES
        CONSUMER.LIST
    """)
    consumer = lines("""
        CONSUMER.CREATE
        CONSUMER.DURABLE.CREATE
        CONSUMER.INFO
        CONSUMER.DELETE
        CONSUMER.MSG.NEXT
        CONSUMER.PAUSE
        CONSUMER.RESET
        CONSUMER.UNPIN
        CONSUMER.LEADER.STEPDOWN
    """)
    wanted = FILTERS[stream]
    return [
        *(f"$JS.API.{name}.{stream}" for name in names),
        *(f"$JS.API.{name}.{stream}.kcm-auditor-1" for name in consumer),
        f"$JS.API.DIRECT.GET.{stream}.{wanted.rstrip('>*')}acme",
        f"$JS.API.CONSUMER.CREATE.{stream}.n1.{wanted}",
        f"$JS.API.CONSUMER.CREATE.{stream}.n1.>",
        f"$JS.API.CONSUMER.CREATE.{stream}.n1.other.subject",
        f"$JS.ACK.{stream}.kcm-auditor-1.1.1.1.1.0",
        f"$JS.FC.{stream}.n1.x",
    ]


PUBLISHED = [
    *(line for stream in STREAMS for line in api(stream)),
    *lines("""
    $JS.API.INFO
    $JS.API.STREAM.NAMES
    $JS.API.STREAM.LIST
    $JS.API.STREAM.CREATE.KCM_ROOM
    $JS.API.STREAM.DELETE.KCM_ROOM
    $JS.API.STREAM.INFO.KCM_ROOM
    $JS.API.STREAM.CREATE.TAP
    $JS.API.META.LEADER.STEPDOWN
    $JS.API.ACCOUNT.PURGE.A
    $KV.kcm-keys.tenant.acme
    $KV.kcm-registry.tenant.acme
    $KV.kcm-results.result.aa
    $KV.other.key
    $SYS.REQ.CLAIMS.UPDATE
    $SYS.REQ.CLAIMS.DELETE
    $SYS.REQ.CLAIMS.LIST
    $SYS.REQ.CLAIMS.PACK
    $SYS.REQ.ACCOUNT.A.CLAIMS.LOOKUP
    $SYS.REQ.ACCOUNT.A.CLAIMS.UPDATE
    $SYS.REQ.ACCOUNT.A.CONNZ
    $SYS.REQ.SERVER.PING
    $SYS.REQ.SERVER.PING.CONNZ
    $SYS.REQ.SERVER.N.RELOAD
    $SYS.REQ.SERVER.N.KICK
    $SYS.REQ.USER.INFO
    $SYS.ACCOUNT.A.CONNECT
    $SRV.PING
    $SRV.PING.kcm-core
    $SRV.INFO.kcm-gateway.aa
    $SRV.STATS
    $SRV.SCHEMA
    kcm.v1.eu.control.lease.core-1.aa
    kcm.v1.eu.control.lease.core-2.aa
    kcm.v1.eu.control.lease.gateway-1.aa
    kcm.v1.eu.control.lease.gateway-2.aa
    kcm.v1.eu.control.lease.auditor-1.aa
    kcm.v1.eu.control.lease.someone.aa
    kcm.v1.eu.control.lease.other.aa
    kcm.v1.eu.control.hold.tenant.aa
    kcm.v1.eu.control.hold.tenant
    kcm.v1.eu.control.hold.tenant.aa.bb
    kcm.v1.eu.control.lifts.operator.eu.ann.0f
    kcm.v1.eu.control.peer-lease.us
    kcm.v1.eu.control.key-use.link.aa
    kcm.v1.eu.control.head.auditor-1
    kcm.v1.eu.control.head.auditor-2
    kcm.v1.eu.control.head.core-1
    kcm.v1.eu.control.trim
    kcm.v1.eu.control.roster
    kcm.v1.eu.control.endorsements.ann.0
    kcm.v1.eu.control.other
    kcm.v1.eu.control.other.aa
    kcm.v1.us.control.trim
    kcm.v1.eu.audit.core-1
    kcm.v1.eu.audit.core-2
    kcm.v1.eu.audit.gateway-1
    kcm.v1.eu.audit.gateway-2
    kcm.v1.eu.audit.auditor-1
    kcm.v1.eu.audit.auditor-2
    kcm.v1.eu.audit.someone
    kcm.v1.eu.audit.other
    kcm.v1.us.audit.core-1
    kcm.v1.eu.registry.question
    kcm.v1.eu.admin.hold.place
    kcm.v1.eu.admin.hold.place.core-1
    kcm.v1.eu.admin.hold
    kcm.v1.us.admin.hold.place
    kcm.v1.eu.auditor.status
    kcm.v1.eu.auditor.status.more
    kcm.v1.eu.core.core-1.key
    kcm.v1.eu.core.core-2.open
    kcm.v1.eu.core.core-2.open-app
    kcm.v1.eu.core.core-1.roster
    kcm.v1.eu.core.core-1.wrap.acme.mail
    kcm.v1.eu.core.core-2.unwrap.acme.mail
    kcm.v1.eu.core.core-1.unwrap.acme.files
    kcm.v1.eu.core.core-1.wrap.other.mail
    kcm.v1.eu.core.core-1.steal.acme.mail
    kcm.v1.us.core.core-1.key
    kcm.v1.eu.gateway.roster
    kcm.v1.eu.gateway.gateway-1.key
    kcm.v1.eu.gateway.gateway-2.open
    kcm.v1.eu.gateway.gateway-2.session.core-2.key
    kcm.v1.eu.gateway.gateway-1.roster
    kcm.v1.eu.gateway.gateway-1.other
    kcm.v1.eu.gateway.gateway-1.encrypt.acme.mail
    kcm.v1.eu.gateway.gateway-2.decrypt.acme.files
    kcm.v1.eu.gateway.gateway-1.decrypt.acme.mail
    kcm.v1.eu.gateway.gateway-1.encrypt.acme.files
    kcm.v1.eu.gateway.gateway-1.encrypt.other.mail
    kcm.v1.eu.gateway.gateway-1.encrypt.acme
    kcm.v1.eu.gateway.encrypt.acme.mail
    kcm.v1.eu.gateway.decrypt.acme.files
    kcm.v1.eu.gateway.decrypt.acme.mail
    kcm.v1.eu.gateway.encrypt.other.mail
    kcm.v1.us.gateway.encrypt.acme.mail
    kcm.v1.ctl.hold.eu.tenant.aa
    kcm.v1.ctl.hold.us.tenant.aa
    kcm.v1.ctl.hold.eu.tenant.aa.bb
    kcm.v1.ctl.receipt.eu.aa
    kcm.v1.ctl.receipt.us.aa
    kcm.v1.ctl.pull.us.eu
    kcm.v1.ctl.pull.eu.us
    kcm.v1.ctl.pull.us.fr
    kcm.v1.ctl.probe.eu.aa
    _R_.aa.bb
    _INBOX.aa.bb
    _INBOX.core.core-1.aa.bb
    _INBOX.core.core-2.aa.bb
    _INBOX.gateway.gateway-1.aa.bb
    _INBOX.auditor.auditor-1.aa.bb
    _INBOX.application.UOTHER.aa.bb
    _INBOX.plain.UOTHER.aa.bb
    _INBOX.embedded.UOTHER.aa.bb
    _INBOX.operator.UOTHER.aa.bb
    _INBOX.provisioner.UOTHER.aa.bb
    _INBOX.pusher.UOTHER.aa.bb
    other
    """),
]
"""What each role tries to publish."""

SUBSCRIBED = [
    *PUBLISHED,
    *lines("""
    >
    *
    *.>
    kcm.>
    kcm.v1.eu.>
    kcm.v1.eu.*.>
    $JS.>
    $JS.API.>
    $JS.API.STREAM.MSG.GET.>
    $JS.EVENT.>
    $KV.>
    $KV.kcm-keys.>
    $KV.kcm-registry.>
    $SYS.>
    $SRV.>
    $SRV.PING.kcm-core.*
    $SRV.PING.kcm-core.aa
    $SRV.PING.kcm-gateway.*
    $SRV.STATS.kcm-auditor.*
    $SRV.PING.*
    kcm.v1.eu.control.>
    kcm.v1.eu.control.hold.>
    kcm.v1.eu.audit.*
    kcm.v1.eu.audit.>
    kcm.v1.eu.core.>
    kcm.v1.eu.core.core-1.*
    kcm.v1.eu.core.core-1.>
    kcm.v1.eu.core.core-2.*
    kcm.v1.eu.core.core-1.*.*.*
    kcm.v1.eu.core.core-2.*.*.*
    kcm.v1.eu.core.*.*.*.*
    kcm.v1.eu.core.core-1.* core-eu
    kcm.v1.eu.gateway.>
    kcm.v1.eu.gateway.*.*.*
    kcm.v1.eu.gateway.*.*.* gateway-eu
    kcm.v1.eu.gateway.*.*.* gateway-us
    kcm.v1.eu.gateway.*.*.> gateway-eu
    kcm.v1.eu.gateway.*.> gateway-eu
    kcm.v1.eu.gateway.encrypt.*.*
    kcm.v1.eu.gateway.encrypt.*.* gateway-eu
    kcm.v1.eu.gateway.encrypt.acme.mail gateway-eu
    kcm.v1.eu.gateway.*.*.* core-eu
    kcm.v1.eu.gateway.> gateway-eu
    kcm.v1.eu.gateway.roster gateway-eu
    kcm.v1.eu.gateway.roster other
    kcm.v1.eu.gateway.gateway-1.*
    kcm.v1.eu.gateway.gateway-2.*
    kcm.v1.eu.gateway.gateway-1.*.*.*
    kcm.v1.eu.gateway.gateway-2.*.*.*
    kcm.v1.eu.admin.*.*
    kcm.v1.eu.admin.*.* core-eu
    kcm.v1.eu.admin.*.* auditor
    kcm.v1.eu.admin.*.*.core-1
    kcm.v1.eu.admin.*.*.core-2
    kcm.v1.eu.admin.>
    kcm.v1.eu.auditor.*
    kcm.v1.eu.auditor.* auditor
    kcm.v1.eu.auditor.* other
    kcm.v1.eu.registry.question core-eu
    kcm.v1.ctl.>
    kcm.v1.ctl.hold.>
    kcm.v1.ctl.hold.eu.>
    kcm.v1.ctl.receipt.>
    kcm.v1.ctl.pull.>
    kcm.v1.ctl.pull.eu.*
    kcm.v1.ctl.pull.eu.* core-eu
    kcm.v1.ctl.pull.us.* core-us
    kcm.v1.ctl.pull.us.* core-eu
    _R_.>
    _INBOX.>
    _INBOX.*.>
    _INBOX.core.>
    _INBOX.core.*.>
    _INBOX.core.core-1.>
    _INBOX.core.core-2.>
    _INBOX.gateway.>
    _INBOX.gateway.gateway-1.>
    _INBOX.gateway.gateway-2.>
    _INBOX.auditor.>
    _INBOX.auditor.auditor-1.>
    _INBOX.auditor.auditor-2.>
    _INBOX.application.>
    _INBOX.plain.>
    _INBOX.embedded.>
    _INBOX.operator.>
    _INBOX.provisioner.>
    _INBOX.pusher.>
    _INBOX.application.U.>
    _INBOX.plain.U.>
    _INBOX.embedded.U.>
    _INBOX.embedded.someone.>
    _INBOX.operator.U.>
    _INBOX.provisioner.U.>
    _INBOX.pusher.U.>
    _INBOX.operator.UOTHER.>
    _INBOX.application.UOTHER.>
    """),
]
"""What each role tries to subscribe; queue groups are after a space."""
