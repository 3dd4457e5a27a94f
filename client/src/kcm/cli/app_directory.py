"""The directory that the host of an application needs: a context, and every file that it names.

    context.toml       the system, its operator root, the regions' brokers, and the application
    roster             signed by that root
    app.key            the application's private key, if it is on this machine
    REGION/ca.pem      the authority of the broker's certificate, if it is not one of the machine's
    REGION/app.creds   with which the broker lets the application in

A directory of something else is refused, and no other key is replaced.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

from kcm.cli.error_report import Problem
from kcm.exit_codes import Exit

if TYPE_CHECKING:
    from kcm_schemas.app import App

    from kcm._internal import client_files
    from kcm._internal.client_context import ClientContext

KEY: Final = "app.key"
CREDENTIALS: Final = "app.creds"
CA: Final = "ca.pem"

_OF_OTHERS: Final = 0o022
"""Rights of other users to change a directory."""


class AppDirectory:
    """The directory of one application, as the context of an operator describes the system."""

    def __init__(self, path: Path, context: ClientContext, entry: App) -> None:
        """Raise ``Problem`` for a directory that is another one's, or that others may change."""
        self.path: Final = path
        self._context: Final = context
        self._entry: Final = entry
        self._before: Final = self._checked()

    @property
    def context_file(self) -> Path:
        """The context file of the host."""
        from kcm._internal.client_files import CONTEXT

        return self.path / CONTEXT

    @property
    def key(self) -> Path:
        """The private key of the application."""
        return self.path / KEY

    def credentials(self, region: str) -> Path:
        """Return the file with which the broker of a region lets the application in."""
        return self.path / region / CREDENTIALS

    def write(self, regions: list[str], key: Path | None) -> bool:
        """Write the context for these regions, the roster, the authorities, and a copy of ``key``.

        A newer roster, a key, and a default region that is valid are kept. Returns whether the
        directory has the key. Raises ``Problem``, before anything is written for a key that is not
        the one of the application's entry.
        """
        from kcm_runtime.files.private_files import copy_private, make_directory, write_private
        from kcm_runtime.toml_text import to_toml

        from kcm._internal import client_files

        with self._explained():
            own = self.key if self.key.exists() else key
            if own is not None:
                self._check_key(own)
            content = client_files.context(
                self._context.system, self._context.root_public, self._files(regions)
            )
            make_directory(self.path)
            self._check_owner()  # another user may have made it meanwhile
            # The context first: it shows to a repetition whose directory this is.
            write_private(self.context_file, to_toml(content))
            raw, roster = self._context.highest()
            place = self.path / client_files.ROSTER
            if self._version(place) < roster.version:
                write_private(place, raw)
            for region in regions:
                ca = self._context.ca_path(region)
                if ca is not None:
                    copy_private(ca, self.path / region / CA)
            if own is not None and own != self.key:
                copy_private(own, self.key)
        return own is not None

    def _files(self, regions: list[str]) -> client_files.ClientFiles:
        from kcm._internal import client_files

        wanted = (self._before, self._context.default_region, *regions)
        return client_files.ClientFiles(
            roster=PurePath(client_files.ROSTER),
            app=(self._entry.app, PurePath(KEY)),
            default_region=next(one for one in wanted if one in regions),
            regions={
                region: client_files.RegionFiles(
                    [self._context.regions[region].url, *self._context.regions[region].also],
                    PurePath(region, CA) if self._context.ca_path(region) else None,
                    app_credentials=PurePath(region, CREDENTIALS),
                )
                for region in regions
            },
        )

    def _checked(self) -> str:
        """Check the directory; returns the default region of the context that it has."""
        from kcm_runtime.files.atomic import is_rest

        from kcm._internal.client_context import ClientContext, ContextError

        if not self.path.exists():
            return ""
        with self._explained():
            self._check_owner()
            if all(is_rest(one.name) for one in self.path.iterdir()):
                return ""
        try:
            found = ClientContext.load(self.context_file)
        except ContextError:
            raise self._foreign() from None
        mine = (self._context.system, self._context.root_public, self._entry.app, "")
        if (found.system, found.root_public, found.app_name, found.operator_name) != mine:
            raise self._foreign()
        return found.default_region

    def _check_owner(self) -> None:
        info = self.path.stat()
        if info.st_uid != os.geteuid() or info.st_mode & _OF_OTHERS:
            raise self._refused("is not only yours: other users can change it", "chmod go-w it")

    def _check_key(self, path: Path) -> None:
        from kcm_runtime.files.identity_file import load_identity

        identity = load_identity(self._entry.app, str(path), self._context.system)
        if identity.public != self._entry.public_key:
            raise Problem(
                Exit.USAGE, "usage", f"{path} is not the present key of {self._entry.app}",
                "name the file of its key with --key, and move another key out of the directory",
            )  # fmt: skip

    def _version(self, roster: Path) -> int:
        """Return the version of a roster that counts; 0 if there is none."""
        from kcm_trust.verify import Untrusted

        try:
            return self._context.believe(roster.read_bytes()).version
        except (FileNotFoundError, Untrusted):
            return 0

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from kcm_runtime.files.secret_file import SecretFileError

        hint = "correct this, and give the command again: it keeps what is there"
        try:
            yield
        except OSError as error:
            text = f"cannot use {self.path}: {error.strerror} ({error.filename or self.path})"
            raise Problem(Exit.USAGE, "usage", text, hint) from None
        except SecretFileError as error:
            raise Problem(Exit.USAGE, "usage", str(error), hint) from None

    def _foreign(self) -> Problem:
        text = f"has files, and is not the directory of the application {self._entry.app}"
        return self._refused(text, "name a new or empty directory")

    def _refused(self, why: str, hint: str) -> Problem:
        return Problem(Exit.USAGE, "usage", f"{self.path} {why}", hint)
