"""Fetches many URLs as the tutorial does: aiohttp, aiofiles, 64 KiB chunks, 16 concurrent tasks.

usage: fetch.py URLS FOLDER CERTIFICATE
"""

import asyncio
import ssl
import sys

import aiofiles
import aiohttp


async def fetch(session, semaphore, url, folder):
    async with semaphore, session.get(url) as response:
        response.raise_for_status()
        async with aiofiles.open(f"{folder}/{url.rsplit('/', 1)[1]}", "wb") as file:
            async for chunk in response.content.iter_chunked(65536):
                await file.write(chunk)


async def main(urls, folder, certificate):
    semaphore = asyncio.Semaphore(16)
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=certificate))
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        with open(urls) as lines:
            tasks = [fetch(session, semaphore, line.strip(), folder) for line in lines]
        await asyncio.gather(*tasks)


asyncio.run(main(*sys.argv[1:]))
