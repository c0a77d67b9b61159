"""What must not get into memory: secrets, and text that is shaped like an instruction to a model.

Only facts pass through here. The messages table keeps the conversation as it was said, secrets included, because it is
the application's own record; what is distilled from it, and recalled again and again, does not carry them on.
"""

# Full-width marks are what people write.
# ruff: noqa: E501, RUF001

from __future__ import annotations

import re
import unicodedata

__all__ = ["MASK", "redact", "suspicious"]

MASK = "[redacted]"

_SECRETS = (
    re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL),
    # Keys that providers give a recognisable beginning.
    re.compile(
        r"(?<![A-Za-z0-9])(?:sk-|sk_live_|sk_test_|rk_live_|pk_live_|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|xai-|hf_"
        r"|npm_|pypi-|gsk_|dop_v1_|ya29\.|AIza|AKIA|ASIA|SG\.)[A-Za-z0-9_.-]{12,}"
    ),
    re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    re.compile(r"(?i)(?<=\bbearer )[A-Za-z0-9._~+/=-]{16,}"),
    re.compile(r"(?i)(?<=://)[^\s/:@]{0,64}:[^\s/@]{1,128}(?=@)"),
)
# "my password is hunter2", "API_KEY=abc", "PIN: 1234": the name stays, what follows goes. A passphrase is many words.
_NAMED = re.compile(
    r"(?i)\b((?:pass ?words?|passwd|pass ?code|pwd|(?:api|access|secret|private|licen[cs]e|encryption)[ _-]?key|client[ _-]secret"
    r"|(?:access|auth|refresh|api|secret|session)[ _-]?token|(?:pin|cvv|cvc)(?:[ _-](?:code|number))?"
    r"|(?:security|door|alarm|verification|unlock)[ _-]code)\b"
    r"(?: (?:for|to|of|on) (?:\w+[ .'-]?){1,4}?)?\s{0,3}(?:is|are|was|=|:|＝|：)\s{0,3})"
    r"(?!a\b|an\b|the\b|not\b|very\b|too\b|\[redacted\])([^\s,;]{2,200})"
)
_PASSPHRASE = re.compile(
    r"(?i)\b((?:pass ?phrase|(?:seed|recovery) phrase|mnemonic)\s{0,3}(?:is|=|:)\s{0,3})[^.;\n]{2,400}"
)
_CARD = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d])")


def redact(text: str) -> str:
    """Return *text* with keys, tokens, passwords, PINs, private keys and payment card numbers masked."""
    for secret in _SECRETS:
        text = secret.sub(MASK, text)
    text = _PASSPHRASE.sub(rf"\1{MASK}", text)
    text = _NAMED.sub(_without_value, text)
    return _CARD.sub(lambda found: MASK if _luhn(found.group()) else found.group(), text)


def suspicious(text: str) -> bool:
    """Return whether *text* reads like an instruction to a model instead of something about a person.

    That is: orders to drop earlier instructions, talk of the system prompt, new roles, markup of prompts, of tool
    calls and of memori's own block. A standing wish ("always answer in French") is none of these.
    """
    plain = unicodedata.normalize("NFKC", text)
    # Letters may be kept apart by characters that cannot be seen.
    plain = "".join(character for character in plain if unicodedata.category(character) != "Cf")
    return any(shape.search(plain) for shape in _SHAPES)


def _without_value(found: re.Match[str]) -> str:
    tail = found.group(2)[len(found.group(2).rstrip(".!?)\"'")) :]
    return f"{found.group(1)}{MASK}{tail}"


def _luhn(number: str) -> bool:
    digits = [int(digit) for digit in number if digit.isdecimal()]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


_DROP = r"ignor(?:e|ing)|disregard(?:ing)?|forget|overrid(?:e|ing)|bypass(?:ing)?|discard|do not (?:follow|obey)|don't follow"
_ORDERS = r"instructions?|prompts?|directives?|guidelines|guardrails|system messages?|programming|safety rules"
_SHAPES = (
    re.compile(
        rf"(?i)\b(?:{_DROP})\b(?:\W{{1,3}}\w{{1,20}}){{0,5}}?\W{{1,3}}(?:(?:previous|prior|earlier|above|preceding|former)"
        rf"(?:\W{{1,3}}\w{{1,20}}){{0,3}}?\W{{1,3}}(?:{_ORDERS}|rules|messages|context|conversation|text)"
        rf"|(?:your|all|any|the|these|those|its|system)\W{{1,3}}(?:\w{{1,20}}\W{{1,3}}){{0,2}}(?:{_ORDERS}))\b"
    ),
    re.compile(
        r"(?i)\b(?:ignore|disregard|forget) (?:everything|all|anything)(?: \w{1,10}){0,3} (?:above|before|so far)\b"
    ),
    re.compile(r"(?i)\b(?:system|developer|hidden|initial) (?:prompt|instructions?|message)\b"),
    re.compile(
        r"(?i)\b(?:reveal|print|show|repeat|output|leak|expose|tell me) (?:\w{1,12} ){0,4}(?:your|the) (?:\w{1,12} )?"
        r"(?:instructions|prompt|rules|guidelines)\b"
    ),
    re.compile(
        r"(?i)\b(?:you are now|from now on,? you are|you must now|you will now act|pretend (?:that )?you are|"
        r"act as if you (?:are|were|have))\b"
    ),
    re.compile(r"(?i)\b(?:new|updated|real|actual|important) instructions?\s{0,3}:"),
    re.compile(r"(?i)\b(?:jailbreak|developer mode|do anything now|DAN mode|god mode|prompt injection)\b"),
    re.compile(
        r"(?i)\b(?:the )?(?:assistant|model|ai|agent|chatbot) (?:must|should|shall|has to|needs to) (?:now |always |never )?"
        r"(?:ignore|obey|comply|send|forward|call|execute|reveal|transfer|delete|email)\b"
    ),
    re.compile(
        r"(?i)<\s{0,3}/?\s{0,3}(?:memor(?:y|ies|i)|system|assistant|user|human|developer|instructions?|prompt|context"
        r"|tools?|tool_|function|invoke|parameter|antml|im_start|im_end|s>|\|)"
    ),
    re.compile(r"(?i)<\|[\w ]{1,40}\|>|\[/?(?:INST|SYS|SYSTEM|TOOL_CALLS?|AVAILABLE_TOOLS)\]|<</?SYS>>"),
    re.compile(r"(?im)^\s{0,8}(?:#{1,6} ?|\*{2})?(?:system|assistant|developer|instructions?)(?:\*{2})?\s{0,3}:"),
    re.compile(r"(?i)[\"'](?:role|tool_calls?|function_call)[\"']\s{0,3}:"),
    # The same order in the languages in which it is tried most.
    re.compile(
        r"(?i)ignor(?:a|e|i|ez|iere|ieren|are)\b.{0,40}(?:instruc|istruz|anweisung|consigne|instru[cç])"
        r"|oubli(?:e|ez)\b.{0,40}(?:instruction|consigne)|olvida\b.{0,40}instrucciones|vergiss\b.{0,40}anweisung"
        r"|игнорир\w{0,10}.{0,40}инструкц|забуд\w{0,6}.{0,40}инструкц|忽略.{0,12}(?:指令|指示|提示)|無視.{0,12}(?:指示|命令)"
        r"|(?:指示|命令)を(?:すべて)?(?:無視|忘れ)|이전.{0,12}(?:지시|명령).{0,6}무시"
    ),
)
