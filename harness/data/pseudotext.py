"""Text that looks like English to a tokenizer and needs no file: for tests, and where there are no assets."""

import random

_ONSETS = "b bl br c ch cl cr d dr f fl fr g gl gr h j k l m n p pl pr qu r s sh sl sp st str t th tr v w y"
_ONSETS = _ONSETS.split()
_VOWELS = "a e i o u ai ea ee ie oa oo ou".split()  # noqa: SIM905
_CODAS = ["", "", "", *"b ck d g ld m n nd ng nt p r rd rm rt s sh st t th x".split()]  # noqa: SIM905
_FRAMES = (  # N noun, V verb, A adjective, D adverb; the words between are English
    "the A N V the N of the N",
    "in the N , a N Vs to the N",
    "it was D A that the N V the A N",
    "many Ns V when the N is A",
    "the N and the N were D V by a N in 1#",
    "after # Ns , the A N V D",
    "a N is a kind of A N which V the Ns",
    "there is no N without a N , and the A Ns V it D",
)


def articles(count: int, seed: int) -> list[str]:
    """`count` articles of about 1,000 characters, the same for the same seed on every machine and Python."""
    draw = random.Random(seed).random  # the one method whose sequence Python promises to keep
    words = {kind: [_word(draw, syllables) for _ in range(size)] for kind, syllables, size in _LEXICON}
    return [_article(draw, words) for _ in range(count)]


_LEXICON = (("N", 2, 900), ("V", 1, 300), ("A", 2, 300), ("D", 2, 80))  # kind, syllables at most, words


def _article(draw, words: dict[str, list[str]]) -> str:
    paragraphs = []
    for _ in range(2 + int(3 * draw())):
        sentences = [_sentence(draw, words) for _ in range(3 + int(5 * draw()))]
        paragraphs.append(" ".join(sentences))
    return "\n\n".join(paragraphs)


def _sentence(draw, words: dict[str, list[str]]) -> str:
    spoken = []
    for item in _FRAMES[int(len(_FRAMES) * draw())].split():
        kind, ending = item[0], item[1:]
        if kind in words:
            spoken.append(_common(draw, words[kind]) + ending + ("ly" if kind == "D" else ""))
        else:
            spoken.append(item.replace("#", str(100 + int(900 * draw()))))
    text = " ".join(spoken).replace(" ,", ",")
    return text[0].upper() + text[1:] + "."


def _word(draw, syllables: int) -> str:
    count = 1 + int(syllables * draw())
    parts = [_ONSETS, _VOWELS, _CODAS] * count
    return "".join(choices[int(len(choices) * draw())] for choices in parts)


def _common(draw, words: list[str]) -> str:
    """Zipf's law: the n-th word is about 1/n times as frequent as the first."""
    return words[int((len(words) + 1) ** draw()) - 1]
