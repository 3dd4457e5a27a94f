"""The parts of a Core that handle keys: load, create, rewrap, and wrap and unwrap for Gateways."""

from __future__ import annotations

from dataclasses import dataclass

from kcm_keymem.arena import Arena
from kcm_killswitch.replica.registry_follower import RegistryFeed
from kcm_runtime.config import ConfigError
from kcm_runtime.files.secret_file import read_secret
from kcm_sealing.hpke import SECRET_SIZE, HpkePrivate

from kcm_core.api.sessions import Sessions
from kcm_core.api.wrap import WrapApi
from kcm_core.assembly.foundation import Foundation
from kcm_core.assembly.kill_switch import KillSwitchParts
from kcm_core.keys.creation import KeyCreator
from kcm_core.keys.loader import KeyLoader
from kcm_core.keys.root_rewrap import RootRewrapper


@dataclass(frozen=True, slots=True)
class KeyService:
    """The parts that other parts, or the Core's end, need."""

    private: HpkePrivate
    sessions: Sessions
    wrapping: WrapApi
    creator: KeyCreator
    rewrapper: RootRewrapper


def key_service(base: Foundation, parts: KillSwitchParts, feed: RegistryFeed) -> KeyService:
    """Make the parts; raises ``ConfigError`` and ``SecretFileError``."""
    loader = KeyLoader(
        membership=base.me,
        admission=base.admission,
        watch=parts.monitor,
        purge=base.purge,
        clock=base.clock,
        registry=base.registry,
        revocations=base.revocations,
        store=base.store,
        vault=base.vault,
        unsealer=base.unsealer,
        emit=base.emit,
        deadline_s=base.config.l1_deadline_s,
    )
    private = _hpke_private(base)
    sessions = Sessions(base.me.region, base.region.hpke_key_id, private, base.me.rosters)
    wrapping = WrapApi(
        membership=base.me,
        admission=base.admission,
        loader=loader,
        vault=base.vault,
        sessions=sessions,
        emit=base.emit,
        clock=base.clock,
        randomness=base.randomness,
        incarnations=parts.switch.record.incarnations,
        lease_ms=base.config.lease_ms,
        fetch=feed.fetch_service,
        may_record=lambda: base.audit.has_room,
        refusal=lambda: base.audit.refusal,
    )
    return KeyService(private, sessions, wrapping, _creator(base, loader), _rewrapper(base))


def _creator(base: Foundation, loader: KeyLoader) -> KeyCreator:
    return KeyCreator(
        membership=base.me,
        revocations=base.revocations,
        store=base.store,
        vault=base.vault,
        loader=loader,
        unsealer=base.unsealer,
        seal_key_id=base.region.seal_key_id,
        emit=base.emit,
        randomness=base.randomness,
        deadline_s=base.config.l1_deadline_s,
    )


def _rewrapper(base: Foundation) -> RootRewrapper:
    return RootRewrapper(
        membership=base.me,
        registry=base.registry,
        revocations=base.revocations,
        store=base.store,
        vault=base.vault,
        unsealer=base.unsealer,
        emit=base.emit,
        randomness=base.randomness,
        deadline_s=base.config.l1_deadline_s,
    )


def _hpke_private(base: Foundation) -> HpkePrivate:
    arena = Arena()
    try:
        with arena.use() as view:
            read_secret(str(base.config.secrets.hpke_key), view[:SECRET_SIZE])
            private = HpkePrivate(view[:SECRET_SIZE])
    finally:
        arena.purge()
    if private.public_bytes != base.region.hpke_public:
        raise ConfigError("the HPKE key is not the one that the roster has for this region")
    return private
