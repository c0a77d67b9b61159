"""A load to be killed: run by test_crash.py, which kills the processes that this one forks.

Imports once, then for each line on standard input forks a process that makes calls through memori until it is killed.
Each call that returned is acknowledged by one line on standard output: the text that its user said.
"""

from __future__ import annotations

import os
import sys
import threading

from openai import OpenAI

from memori import Memori, Settings

THREADS = 3


def load(database: str, provider: str, number: str) -> None:
    client = OpenAI(base_url=provider, api_key="local", max_retries=0)
    memori = Memori(conn=database, settings=Settings(lease_s=1.0, capture_timeout_s=10.0)).llm.register(client)

    def call(thread: int) -> None:
        with memori.scope(entity_id=f"user-{thread}"):
            for turn in range(10_000):
                said = f"I like gadget-{number}-{thread}-{turn}."
                client.chat.completions.create(model="m", messages=[{"role": "user", "content": said}])
                os.write(1, f"{thread} {said}\n".encode())

    threads = [threading.Thread(target=call, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    database, provider = sys.argv[1:]
    # What a fork inherits need not be imported by it: the modules that `Memori` loads when it is first made.
    with Memori(conn="sqlite://", worker=False) as preloaded:
        preloaded.llm.register(OpenAI(base_url=provider, api_key="local"))
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            load(database, provider, line.strip())
            os._exit(0)
        os.write(1, f"pid {pid}\n".encode())
        os.waitpid(pid, 0)
        os.write(1, b"gone\n")


if __name__ == "__main__":
    main()
