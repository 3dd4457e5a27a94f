"""The rules of the word list: each wording to replace, what to write instead, and why."""

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """A wording to replace. `unless` matches a longer span in which the wording is correct."""

    name: str
    pattern: str
    instead: str
    why: str
    unless: str = r"(?!)"

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where each hit begins and ends: a named group, or the whole match."""
        allowed = [match.span() for match in re.finditer(self.unless, text, re.IGNORECASE)]
        for match in re.finditer(self.pattern, text, re.IGNORECASE):
            start, end = match.span(match.lastgroup or 0)
            if not any(left <= start and end <= right for left, right in allowed):
                yield start, end


PERSON = "name the party: the caller, the reader, the operator, an attacker, another process"
BE = r"(?:is|are|was|were|be|been|being)"
FINITE = (
    r"(?:is|are|was|were|has|have|had|does|must|may|can|cannot|will|should"
    r"|(?:add|ask|begin|come|count|differ|end|fail|find|follow|get|give|hear|hold|keep|lack|learn|leave"
    r"|look|lose|make|need|purge|read|say|see|serve|sign|stay|stop|take|tell|wait|write)s)"
)
VERB = (
    r"[*_\"]*\s+(?!(?:this|that|it|they|he|she|we|you|else)\b)"
    rf"[\w']+(?:\s+[\w'*-]+){{0,12}}?\s+{FINITE}\b"
)

RULES = (
    Rule(
        "whoever",
        r"\bwho(?:so)?m?ever\b",
        PERSON,
        "a relative clause without a noun hides which component or role acts",
    ),
    Rule(
        "who without a noun",
        r"(?:\A\s*|\n[ \t]*\n\s*|[.;!?][*_\"')]*\s+|\b(?:but|because|so|then)\s+)"
        rf"[*_\"]*(?P<first>who)(?={VERB})"
        r"|\b(?:only|that|by|for|to|of|than|with|against|reach(?:es)?)\s+(?P<later>who)\b",
        PERSON,
        "'who' needs the noun to which it refers",
        unless=r"\bwho\s+(?:\w+\s+){1,3}(?:what|which|whom|when)\b|\bwho\b(?:\s*,|[^.;!?]*\?)",
    ),
    Rule(
        "nobody, somebody",
        r"\b(?:no|some|any|every)body\b",
        PERSON + "; or use the passive voice",
        "components, roles and processes act in this system, not persons at large",
    ),
    Rule(
        "an own, the own",
        r"\b(?:an?|the|no|any|every|each)\s+own\b",
        "its own, or 'of its own'",
        "'own' needs a possessive in English",
    ),
    Rule(
        "behind",
        r"\bbehind\b",
        "after (in an order or a stream), above (a sequence), past (a position), with",
        "an order has 'before' and 'after'",
        unless=r"\b(?:leav\w+|left|lag\w*|f[ae]ll\w*|stay\w*)(?:\s+\w+){0,3}\s+behind\b"
        rf"|\b{BE}\s+behind(?=\s*(?:[.,;:)]|\Z|up\b|on\b|it\b|the\s+others?\b))"
        r"|\bbehind\s+(?:(?:an?|the|its)\s+)?(?:[\w-]+\s+)?"
        r"(?:proxy|proxies|nat|firewall|load\s+balancer)\b"
        r"|\bbehind\s+the\s+scenes\b",
    ),
    Rule(
        "anew",
        r"\banew\b",
        "again; for a thing: recreate, restart, rewrite, re-read",
        "archaic; the verb with 're-' is precise",
    ),
    Rule(
        "lies",
        r"\b(?:lies?|lay|lying|lain)\s+(?:in|on|at|under|beside|there|above|below|behind|with|outside"
        r"|between|where|here|open|elsewhere|beyond|before|anywhere|somewhere|ahead)\b"
        r"|\bwhere\s+(?:\w+\s+){1,4}(?:lies?|lay)\b",
        "is, is stored, is located",
        "things are or are stored; a component lies only when it makes a false statement",
        unless=r"\b(?:lies?|lying)\s+in\s+(?:its|their)\s+(?:answers?|repl(?:y|ies)|statements?)\b",
    ),
    Rule(
        "stands",
        r"\b(?:stands?|stood)\b",
        "is, is stated, is listed, is in force; of a hold: its state",
        "text is stated or listed, a hold is in force",
        unless=r"\b(?:stands?|stood)\s+(?:for|by|in\s+for)\b|\bstand-(?:in|by|alone)s?\b",
    ),
    Rule(
        "told",
        rf"\b{BE}\s+(?:\w+ly\s+)?told\b|\btold\s+(?:of|by|from)\b",
        "reported, printed, answered, notified; recognised by, distinguished from",
        "software reports, answers and notifies",
        unless=rf"\b{BE}\s+(?:\w+ly\s+)?told\s+(?:apart|that|to(?!\s+be\b))\b",
    ),
    Rule(
        "said",
        rf"\b{BE}\s+said\b",
        "stated, reported, printed, logged",
        "software states, reports and prints",
        unless=rf"\b{BE}\s+said\s+to\b",
    ),
    Rule(
        "is none",
        rf"\b{BE}\s+none\b",
        "is not one, is not valid, is absent",
        "'none' is no predicate: say what the thing is",
        unless=rf"\bthere\s+{BE}\s+none\b|\b{BE}\s+none\s+of\b",
    ),
    Rule(
        "as it is known",
        rf"\bas\s+(?:it|he|they)\s+{BE}\s+known\b",
        "in the state that this instance has",
        "say which component knows it",
    ),
    Rule(
        "goes on",
        r"\b(?:go|goes|went|going|gone)\s+on\b",
        "continues, resumes, keeps (doing)",
        "a phrasal verb with many meanings",
        unless=r"\b(?:go|goes|went|going|gone)\s+on\s+(?:the|an?|its|their|disk|record|call|top)\b"
        rf"|\b{BE}\s+going\s+on\b(?!\s+\w+ing\b)",
    ),
    Rule(
        "of before",
        r"\bof\s+before\b",
        "earlier, previous, old",
        "not English",
    ),
    Rule(
        "all the same",
        r"\ball\s+the\s+same(?=\s*(?:[.,;:)*]|\Z|\n\s*\n))",
        "nevertheless, still",
        "an idiom that reads as 'all equal'",
    ),
    Rule(
        "word",
        r"(?:'s|\bown|\bsigned)\s+word\b(?!\s+for\b)",
        "statement, attestation, report",
        "a signed message is a statement",
    ),
    Rule(
        "house",
        r"\b(?:the|of\s+this|this)\s+house\b(?!-)",
        "the repository, the code base, the layout",
        "a metaphor",
    ),
    # Terms that were replaced: docs/glossary.md says by what, and why.
    Rule(
        "fence",
        r"\bfenc(?:e|es|ed|ing)\b",
        "peer lease (of another region); region quorum (the policy)",
        "in distributed systems a fence is a fencing token",
        unless=r"\bfencing[\s-]+tokens?\b|\bgeo-fenc\w+\b|\bcode\s+fences?\b",
    ),
    Rule(
        "boot",
        r"\bboot(?:s|ed)?\b",
        "incarnation (one run of a process); start (the event)",
        "a machine boots; a process has incarnations",
        unless=r"\b(?:secure|measured|trusted)\s+boot\b|\bboot\s+(?:time|loader)s?\b"
        r"|\b(?:machines?|hosts?|kernels?|servers?|vms?)\s+boot(?:s|ed)?\b",
    ),
    Rule(
        "on record",
        r"\bon\s+record\b",
        "registered, has a lease entry (an instance); recorded (an event); known (a tenant)",
        "'record' means an encrypted data record",
    ),
    Rule(
        "record, of something else",
        r"\b(?:lease|registry|audit|roster|hold)\s+records?\b",
        "lease entry, registry entry, audit event or journal entry, hold",
        "'record' means an encrypted data record",
    ),
    Rule(
        "sentinel",
        r"\bsentinels?\b",
        "key monitor (the component); probe scheduler (the decision)",
        "a sentinel is a marker value, or a product of another system",
        unless=r"\bsentinel\s+(?:value|object)s?\b",
    ),
    Rule(
        "proof",
        r"\bproofs?\b",
        "key-use attestation (the statement); key lease (what it gives)",
        "a signed statement attests; a proof is mathematical, as in a transparency log",
        unless=r"\b(?:inclusion|consistency|merkle|formal|security|mathematical)\s+proofs?\b"
        r"|\b(?:tamper|future)-proof\b|\bproof\s+of\s+(?:possession|work|concept|inclusion|identity)\b",
    ),
    Rule(
        "seal a tenant",
        r"\bseal(?:s|ed|ing)?\s+(?:(?:the|a|an|every|some|its|of|more|further)\s+)*tenants?\b"
        rf"|\btenants?\b(?:\s+(?:that|which|of\s+further\s+ones))?\s+(?:{BE}\s+)?(?:\w+\s+)?sealed\b",
        "unload (keys that are not used, or whose lease ended); purge (for a hold)",
        "'seal' means to encrypt with authentication",
    ),
    Rule(
        "tenant key",
        r"\btenant\s+keys?\b",
        "tenant root (L2), service key (L3)",
        "two layers could be meant",
    ),
)
