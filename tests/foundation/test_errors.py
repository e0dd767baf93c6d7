"""The hint that ends many messages."""

from harness.foundation.did_you_mean import nearest_name


def test_the_likely_names_are_named_and_nothing_else():
    assert nearest_name("wikitext", ["c4", "wikitext2"]) == "did you mean wikitext2?"
    assert nearest_name("aaab", ["aaaa", "aaac", "c"], most=3) == "did you mean aaac or aaaa?"
    assert nearest_name("zzz", iter(["c4", "wikitext2"])) == ""
    assert nearest_name("a", [], cutoff=0) == ""
