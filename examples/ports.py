"""Says which of many addresses accept connections: an `async def`, 200 at once in each worker.

    printf '%s\n' localhost:22 localhost:80 | remuda map --python examples/ports.py:probe
"""

import asyncio

import remuda


@remuda.capacity(200)
async def probe(address):
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), timeout=3)
    except (OSError, asyncio.TimeoutError) as error:
        return "%s closed (%s)" % (address, type(error).__name__)
    writer.close()
    return "%s open" % address
