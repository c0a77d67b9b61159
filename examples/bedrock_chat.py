"""A chat by LangChain with a model on Amazon Bedrock that remembers its users, each by themselves.

It talks to Bedrock when AWS's credentials are set (AWS_ACCESS_KEY_ID, AWS_PROFILE or AWS_BEARER_TOKEN_BEDROCK), and
otherwise to a server on this machine that speaks Bedrock's protocol and answers from nothing but what it was sent.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from langchain_aws import ChatBedrock
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from memori import Memori
from memori.testing.provider import ProviderServer, answer_from_context

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK")


def main() -> None:
    """Run the example and print each step."""
    database = Path(tempfile.mkdtemp(prefix="memori-")) / "memori.db"
    where: dict[str, Any] = {"region_name": os.getenv("AWS_REGION", "us-east-1")}

    with ExitStack() as stack:
        if not any(os.getenv(name) for name in CREDENTIALS):
            server = stack.enter_context(ProviderServer(answer=answer_from_context))
            where |= {"endpoint_url": server.url, "aws_access_key_id": "local", "aws_secret_access_key": "local"}
            print(f"No AWS credentials are set: a local provider at {server.url} answers in Bedrock's place.\n")

        model = ChatBedrock(model=os.getenv("BEDROCK_MODEL", "amazon.nova-lite-v1:0"), **where)
        mem = stack.enter_context(Memori(conn=f"sqlite:///{database}")).llm.register(model)
        mem.config.recall_timeout_s = mem.config.capture_timeout_s = 10.0  # However busy the machine is.
        mem.config.storage.build()

        # The model itself, or whatever is made of it: tools, structured output, chains, agents.
        prompt = ChatPromptTemplate.from_messages([("system", "Answer in one sentence."), ("human", "{question}")])
        chat = prompt | model | StrOutputParser()

        for user, said in (("ann", "My favorite food is ramen."), ("ben", "My favorite food is pizza.")):
            with mem.scope(entity_id=user, process_id="concierge"):
                print(f"{user}: {said}\n  {chat.invoke({'question': said})}")
        if not mem.augmentation.wait(timeout=30):
            raise SystemExit(f"augmentation did not finish: {mem.status()}")

        print("\nLater, and without what was said before: only memory connects the calls.")
        for user in ("ann", "ben"):
            with mem.scope(entity_id=user, process_id="concierge"):
                print(f"{user}: What is my favorite food?\n  ", end="")
                for piece in chat.stream({"question": "What is my favorite food?"}):
                    print(piece, end="", flush=True)
                print()

        print("\nWhat is known:")
        for user in ("ann", "ben"):
            for fact in mem.facts(entity_id=user):
                print(f"  of {user}: {fact.content}")


if __name__ == "__main__":
    main()
