"""Text → terms: words of any script, and the character n-grams that survive typos and inflection."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["STOP_WORDS", "gram_hashes", "stem", "words"]

# Words that say how a sentence is built and not what it is about. Pronouns included: nearly every memory has one.
STOP_WORDS = frozenset(
    # As one text, not a list: it stays readable.
    """
    a about above after again all also am an and any are as at be because been before being below between both but by
    can could d did didn didnt do does doesn doesnt doing don dont down during each else ever few for from further get
    gets getting go goes going got had has hasn have haven having he her here hers herself him himself his how however i
    if im in into is isn it its itself ive just let like ll m me more most much my myself no nor not now of off on once
    only or other our ours ourselves out over own please re really s same shall she should shouldn so some such t than
    that the their theirs them themselves then there these they this those through to too under until up upon us ve very
    was wasn we were weren what when where which while who whom whose why will with won would wouldn yes yet you your
    yours yourself yourselves
    """.split()  # noqa: SIM905
)

# Marks that readers and writers leave out at will: Latin accents, Hebrew points, Arabic vowels and tatweel.
_OPTIONAL_MARKS = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed]"
)
# Python's \w leaves out combining marks, and would cut Indic and South-East Asian words at every vowel sign.
_MARKS = (
    "\u0900-\u0963\u0966-\u0dff\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1-\u0ebc\u0ec8-\u0ecd\u0f71-\u0f84"
    "\u102b-\u103e\u17b4-\u17d3\u200c\u200d\u3099\u309a"
)
_WORD = re.compile(f"(?:[^\\W_]|[{_MARKS}])+")
_ASCII_WORD = re.compile("[a-z0-9]+")
# Scripts written without spaces (Thai, Lao, Tibetan, Burmese, Khmer, kana, Han) or with particles glued on (Hangul).
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_CHARACTER_LIMIT = 200_000  # A megabyte of text would hold a call up for 100 ms.
_STEM_CACHE = 65_536


def words(text: str, *, stemmed: bool = True) -> list[str]:
    """Return the words of *text* in order, folded to one case and form, without English stop words.

    A text of stop words alone keeps them: "The Who" is a band. Runs of a script that is written without spaces come as
    overlapping pairs of characters. ASCII words are reduced to their stem.
    """
    text = text[:_CHARACTER_LIMIT]
    if text.isascii():
        found = _ASCII_WORD.findall(text.lower())
    else:
        found = []
        for word in _WORD.findall(_folded(text)):
            found += _pairs(word) if not word.isascii() and _UNSPACED.search(word) else [word]
    kept = [word for word in found if word not in STOP_WORDS] or found
    return [stem(word) for word in kept] if stemmed else kept


def _folded(text: str) -> str:
    plain = _OPTIONAL_MARKS.sub("", unicodedata.normalize("NFKD", text))
    return unicodedata.normalize("NFKC", plain).casefold()


def _pairs(word: str) -> list[str]:
    terms: list[str] = []
    end = 0
    for run in _UNSPACED.finditer(word):
        if run.start() > end:
            terms.append(word[end : run.start()])
        text, end = run[0], run.end()
        terms += [text] if len(text) == 1 else [text[at : at + 2] for at in range(len(text) - 1)]
    if end < len(word):
        terms.append(word[end:])
    return terms


_VOWEL = re.compile("[aeiouy]")


@lru_cache(maxsize=_STEM_CACHE)
def stem(word: str) -> str:
    """Return *word* without its English inflection: plurals, -ed, -ing, -ly; itself if not an ASCII word.

    Lighter than Porter's stemmer: derivations (-ment, -tion) stay, because names and things are told apart by them.
    """
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        root = word.removesuffix(ending)
        if root != word and len(root) >= 2 and _VOWEL.search(root):
            word = root[:-1] if len(root) > 3 and root[-1] == root[-2] and root[-1] not in "lsz" else root
            break
    if word.endswith("ly") and len(word) > 4:
        word = word[:-2]
    if word.endswith("e") and len(word) > 3:
        word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") and len(word) > 2 else word


_GRAM_LIMIT = 8_000  # Characters of one text whose n-grams are kept: beyond it everything resembles everything.
_SIZES = (3, 4, 5)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio, as in Fibonacci hashing.


def gram_hashes(texts: Sequence[Sequence[str]]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return the hashes of all 3- to 5-grams of characters within words, and beside each the number of its text.

    Args:
        texts: Each as its words; a word is read with a space before and after it.
    """
    joined = [f" {' '.join(text)} "[:_GRAM_LIMIT] for text in texts]
    codes = np.frombuffer("".join(joined).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    owner = np.repeat(np.arange(len(joined)), [len(text) for text in joined])
    inner = codes == ord(" ")
    hashes: list[npt.NDArray[np.uint64]] = []
    owners: list[npt.NDArray[np.int64]] = []
    for size in _SIZES:
        count = len(codes) - size + 1
        if count <= 0:
            break
        value = np.full(count, size, dtype=np.uint64)
        crosses = np.zeros(count, dtype=bool)
        for at in range(size):
            value = (value ^ codes[at : at + count]) * _MULTIPLIER
            value ^= value >> np.uint64(29)
            if 0 < at < size - 1:
                crosses |= inner[at : at + count]
        kept = ~crosses & (owner[:count] == owner[size - 1 :])
        hashes.append(value[kept])
        owners.append(owner[:count][kept])
    if not hashes:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64)
    return np.concatenate(hashes), np.concatenate(owners)
