"""The one-shot jobs of ``compose.yaml``.

    python -m kcm_devsystem.setup init --dir DIR
    python -m kcm_devsystem.setup provision --config FILE

``init`` writes every container's files. ``provision`` is ``kcm region provision`` without a
client's context: it creates the missing streams and buckets of a region, and adds missing
protection to existing ones.

Exit codes: 0 done, 1 not possible now, 2 the arguments or the configuration are not valid.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kcm.ops.errors import OperationError
from kcm.ops.provision import ProvisionConfig, provision
from kcm_runtime.config import ConfigError, load
from kcm_runtime.files.secret_file import SecretFileError
from kcm_schemas.codes import KcmError

from kcm_devsystem.containers import write_compose

EXIT_FAULT: Final = 1
EXIT_CONFIG: Final = 2


def main(arguments: Sequence[str]) -> int:
    """Run one job and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kcm_devsystem.setup")
    jobs = parser.add_subparsers(dest="job", required=True)
    init = jobs.add_parser("init", help="write every container's files")
    init.add_argument("--dir", type=Path, required=True)
    streams = jobs.add_parser("provision", help="create a region's streams and buckets")
    streams.add_argument("--config", required=True)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.job == "init":
            public = write_compose(chosen.dir, time.time_ns() // 1_000_000)
            return _tell(f"every container has its files; the operator root is {public.hex()}")
        config = load(ProvisionConfig, chosen.config)
        asyncio.run(provision(config, tell=_tell))
        return _tell(f"{config.region} has its streams and buckets")
    except (ConfigError, SecretFileError) as error:
        return _tell(str(error), EXIT_CONFIG)
    except (OperationError, KcmError) as error:
        return _tell(str(error), EXIT_FAULT)


def _tell(text: str, code: int = 0) -> int:
    sys.stderr.write(text + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
