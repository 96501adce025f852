"""Run coroutines although a browser of other tests keeps a loop in this thread."""

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor


def run_async(coroutine):
    """Run a coroutine in a loop and a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, asyncio.run, coroutine).result()
