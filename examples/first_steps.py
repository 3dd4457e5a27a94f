"""Encrypt and decrypt two rows of tenant ``acme``, service ``files``, as the README makes them."""

import asyncio

from kcm import Client


async def main() -> None:
    async with Client.connect() as kcm:
        sealed = await kcm.encrypt("acme", "files", [b"one", b"two"], contexts=[b"row-1", b"row-2"])
        opened = await kcm.decrypt("acme", "files", sealed.values, contexts=[b"row-1", b"row-2"])
        assert opened.values == [b"one", b"two"]
        print("two records there and back")


if __name__ == "__main__":
    asyncio.run(main())
