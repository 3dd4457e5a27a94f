"""Prints what a broker's configuration needs.

    python -m kcm_broker users REGION

prints ``users.conf``: the accounts and users of a region's broker without a broker operator, each
with the permissions of its role. The hashes of the passwords are variables of the environment.

Exit codes: 0 printed, 2 the arguments are not valid.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kcm_schemas.codes import KcmError

from kcm_broker.role_users import users_text


def main(arguments: Sequence[str]) -> int:
    """Print what the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kcm_broker")
    jobs = parser.add_subparsers(dest="job", required=True)
    users = jobs.add_parser("users", help="users.conf of a region, with permissions")
    users.add_argument("region", metavar="REGION")
    chosen = parser.parse_args(arguments)
    try:
        sys.stdout.write(users_text(chosen.region))
    except KcmError as error:
        sys.stderr.write(f"{chosen.region!r} is no name of a region: {error.detail}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
