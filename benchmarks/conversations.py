"""Made-up but lifelike conversations: seeded, so that every run remembers the same; no sentence twice."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import accumulate

from memori import Message, StoredMessage
from memori.types import ExtractedFact

__all__ = ["MESSAGES_A_CONVERSATION", "Speaker", "every_sentence"]

MESSAGES_A_CONVERSATION = 20  # Every second one is the user's and says two things: as many facts as messages.

_SUBJECTS = "I I I I I We We My_brother My_sister My_wife My_boss My_neighbour My_doctor Our_daughter".split()  # noqa: SIM905
_VERBS = (
    "bought sold found lost repaired painted visited ordered planned finished borrowed cleaned moved cooked watched"
    " recommended cancelled booked missed studied measured packed sketched recorded returned tasted trained wrapped"
)
_ADJECTIVES = (
    "old new blue green red small large broken cheap quiet heavy wooden spicy electric antique frozen local narrow"
    " bright foreign rusty gentle salty round yellow empty modern Italian Japanese velvet portable stubborn"
)
_NOUNS = (
    "car bicycle guitar kitchen garden laptop phone camera jacket contract invoice recipe soup bread cheese coffee tea"
    " cat dog horse parrot passport ticket suitcase tent boat piano violin novel painting lamp sofa carpet mirror"
    " window roof fence bridge museum library bakery hospital school office market station airport harbour"
    " mountain river lake forest island concert lecture marathon wedding birthday holiday meeting interview"
    " deadline salary insurance allergy headache vaccine exercise diet protein medicine keyboard printer router server"
    " database backup password garage ladder hammer drill bucket blanket pillow candle umbrella necklace bracelet"
    " helmet skateboard telescope"
)
_TIMES = (
    "yesterday|last week|last summer|on Monday|on Friday evening|in March|in late autumn|two years ago|this morning"
    "|before Christmas|after lunch|at the weekend|during the holidays|on my birthday|at midnight|in 2019|in 2023"
)
_ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh st t tr v w y z".split()  # noqa: SIM905
_VOWELS = "a e i o u ai ea ia oo ou".split()  # noqa: SIM905
_CODAS = "- - - l n r s m".split()  # noqa: SIM905
_NAMES = 3000
_LEAST_WORDS, _MOST_WORDS = 6, 20


class _Bank:
    """Words of which the n-th is said about 1/n as often as the first: Zipf's law, flattened a little at the top."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._weights = list(accumulate(1 / (rank + 3) for rank in range(len(words))))

    def draw(self, chance: random.Random) -> str:
        return chance.choices(self._words, cum_weights=self._weights)[0].replace("_", " ")


class Speaker:
    """One who tells of their life; the same *seed*, the same life."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - chance, not secrets
        self._sentences: list[str] = []
        self._known: set[str] = set()
        self._subjects = _Bank(_SUBJECTS)
        self._verbs, self._adjectives, self._nouns = (_Bank(words.split()) for words in (_VERBS, _ADJECTIVES, _NOUNS))
        self._times = _Bank(_TIMES.split("|"))
        self._names = _Bank(_names(random.Random(7), _NAMES))  # noqa: S311 - all speakers live in one world

    def sentence(self) -> str:
        """Return a sentence of 6 to 20 words that was not said before."""
        while True:
            wanted = self._chance.randint(_LEAST_WORDS, _MOST_WORDS)
            parts = [self._subjects.draw(self._chance), self._verbs.draw(self._chance), self._thing()]
            while _word_count(parts) < wanted:
                parts.append(self._detail())
            if _word_count(parts) > _MOST_WORDS:
                parts.pop()
            text = f"{' '.join(parts)}."
            if text not in self._known:
                self._known.add(text)
                self._sentences.append(text)
                return text

    def question(self) -> str:
        """Return a question about something said before, in words of its own and three of that."""
        about = self._chance.choice(self._sentences) if self._sentences else self.sentence()
        words = sorted({word.strip(".") for word in about.split() if len(word) > 3}, key=len, reverse=True)[:3]
        return f"Do you remember what it was with the {' and the '.join(words)}?"

    def conversation(self) -> list[Message]:
        """Return one conversation: the user tells two things at a time, the assistant answers."""
        messages = []
        for _ in range(MESSAGES_A_CONVERSATION // 2):
            first, second = self.sentence(), self.sentence()
            messages.append(Message(role="user", content=f"{first} {second}"))
            echo = " ".join(second.rstrip(".").split()[1:7])
            messages.append(Message(role="assistant", content=f"That sounds like quite a story: {echo}. Tell me more!"))
        return messages

    def _thing(self) -> str:
        return f"the {self._adjectives.draw(self._chance)} {self._nouns.draw(self._chance)}"

    def _detail(self) -> str:
        name, noun = self._names.draw(self._chance), self._nouns.draw(self._chance)
        return self._chance.choice(
            [
                f"with {name}",
                f"in {name}",
                f"near the {noun} of {name}",
                f"because {self._thing()} was gone",
                f"for {name}'s {noun}",
                f"without {self._thing()}",
                self._times.draw(self._chance),
            ]
        )


def every_sentence(messages: Sequence[StoredMessage]) -> list[ExtractedFact]:
    """Return each sentence of the user as a fact: the extractor that fills the database, so that its size is known."""
    return [
        ExtractedFact(kind="fact", content=f"{sentence}.", sources=(message.id,))
        for message in messages
        if message.role == "user"
        for sentence in message.content.rstrip(".").split(". ")
    ]


def _word_count(parts: Sequence[str]) -> int:
    return sum(len(part.split()) for part in parts)


def _names(chance: random.Random, count: int) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < count:
        syllables = [
            chance.choice(_ONSETS) + chance.choice(_VOWELS) + chance.choice(_CODAS).strip("-")
            for _ in range(chance.choice((2, 2, 3)))
        ]
        names["".join(syllables).capitalize()] = None
    return list(names)
