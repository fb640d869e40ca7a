"""The words of the page for somebody who has never heard of ranks."""

from __future__ import annotations

from corank.wording import mark, say

WORDS = {
    mark("Rank"): mark(
        "How many independent patterns a layer really uses. A layer of low rank can be replaced by two "
        "smaller ones that compute nearly the same in less time."
    ),
    mark("Dense"): mark(
        "The network as it was, trained as long as the others. Everything is compared with it, and it is "
        "what you go back to."
    ),
    mark("Arm"): mark("One way to train the network in this trial. All arms see the same data as long."),
    mark("Cut"): mark("The moment in training when layers are replaced by smaller ones."),
    mark("Force"): mark(
        "A small pull during training that makes the filters of a layer alike, so that a cut loses less. It "
        "is gone once training ends."
    ),
    mark("Dev and final samples"): mark(
        "Choices are made on dev samples. Final samples are looked at once, at the end, so they show what to "
        "expect."
    ),
    mark("95% interval"): mark(
        "Where the true value plausibly lies. If it includes no change, chance alone may explain the "
        "difference."
    ),
    mark("Points"): mark("Percentage points: from 98.0% to 97.5% is a loss of 0.5 points."),
    mark("MACs"): mark("Multiplications, each with an addition, that one sample takes."),
    mark("Speedup"): mark("How many times as fast as dense: at 2× a batch takes half the time."),
}


def glossary() -> list[tuple[str, str]]:
    """Return each word with what it means."""
    return [(say(word), say(meaning)) for word, meaning in WORDS.items()]
