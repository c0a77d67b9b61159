"""The quick example: tell one client something, ask a fresh one, and see what memori did in between.

It talks to OpenAI when OPENAI_API_KEY is set, and otherwise to a server on this machine that speaks OpenAI's protocol
and answers from nothing but what it was sent.
"""

import json
import os
import sqlite3
import tempfile
from contextlib import ExitStack
from pathlib import Path

from openai import DefaultHttpxClient, OpenAI

from memori import Memori
from memori.testing.provider import ProviderServer, answer_from_context


def main() -> None:
    """Run the example and print each step."""
    database = Path(tempfile.mkdtemp(prefix="memori-")) / "memori.db"
    api_key, base_url = os.getenv("OPENAI_API_KEY"), None

    with ExitStack() as stack:
        if not api_key:
            server = stack.enter_context(ProviderServer(answer=answer_from_context))
            api_key, base_url = "not needed", f"{server.url}/v1"
            print(f"OPENAI_API_KEY is not set: a local provider at {server.url} answers in OpenAI's place.\n")

        client = OpenAI(api_key=api_key, base_url=base_url)
        mem = stack.enter_context(Memori(conn=lambda: sqlite3.connect(database))).llm.register(client)
        mem.config.recall_timeout_s = mem.config.capture_timeout_s = 5.0  # However busy the machine is.
        mem.config.storage.build()
        mem.attribution(entity_id="user_123", process_id="support_agent")
        client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "My favorite color is blue."}]
        )
        if not mem.augmentation.wait(timeout=30):
            raise SystemExit(f"augmentation did not finish: {mem.status()}")

        print(f"Captured, in {database}:")
        with sqlite3.connect(database) as connection:
            for role, content in connection.execute(
                "SELECT role, content FROM memori_conversation_message ORDER BY id"
            ):
                print(f"  {role}: {content}")

        print("\nFacts that came out:")
        for fact in mem.facts():
            print(f"  {fact.kind}: ({fact.subject}, {fact.predicate}, {fact.object})  {fact.content!r}")

        # A second client, which knows nothing; what goes over its wire is kept, to be shown.
        sent: list[bytes] = []
        http_client = DefaultHttpxClient(event_hooks={"request": [lambda request: sent.append(request.read())]})
        second = stack.enter_context(OpenAI(api_key=api_key, base_url=base_url, http_client=http_client))
        mem.llm.register(second)
        answer = second.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": "What is my favorite color?"}]
        )

        print("\nA second client asked 'What is my favorite color?'. What the model was sent:")
        for message in json.loads(sent[-1])["messages"]:
            print(f"  {message['role']}:", message["content"].replace("\n", "\n    "))

        print(f"\nIt answered: {answer.choices[0].message.content}")
        print(f"\nThe database is yours to look at: sqlite3 {database}")


if __name__ == "__main__":
    main()
