"""Laws of sentences."""

import math
from typing import Any

import numpy as np

import pyro_vae as pv
from helpers.shown.base import NAMES, Array, World, entries, law, statistics_order
from helpers.shown.results import _coverage_words, _held
from pyro_vae.core.formatting import format_p_value


@law
def findings(world: World) -> None:
    for tree in (world.results.tree, world.other.tree, world.posterior, world.faithful, world.narrow):
        found, drawn = entries(tree, "checks"), entries(tree, "statistics")
        said = pv.criticism.findings(tree)
        assert said[0].startswith(f"{tree.attrs['draws']} {tree.attrs['kind']} replicates")
        assert f"of {tree.attrs['rows']} rows" in said[0]
        order, count = statistics_order(found), len(found["q_value"])
        out = [at for at in order if found["q_value"][at] < 0.05]
        if not out:
            assert any(each.startswith(f"None of {count} test statistics") for each in said)
        else:
            start = said.index(f"{len(out)} of {count} test statistics stand out at a false discovery rate of 5 %.")
            assert said[start + 1 : start + 1 + len(out[:8])] == [str(found["sentence"][at]) for at in out[:8]]
            if len(out) > 8:
                assert said[start + 9].startswith(f"Further ones: {found['statistic'][out[8]]}")
        for at in range(count):
            _comparison(found, drawn, at, int(tree.attrs["draws"]))
        calibration = entries(tree, "calibration")
        sentence = next(each for each in said if "intervals hold" in each)
        assert sentence.startswith(_held(calibration, 2))
        _verdict(tree, sentence)
        failed = np.flatnonzero(calibration["pit_q_value"] < 0.05)
        if tree.attrs["kind"] == "population" and len(failed):
            ranked = ", ".join(NAMES[at] for at in sorted(failed, key=lambda at: calibration["pit_p_value"][at]))
            assert f"The distribution of {len(failed)} of 4 features is off (they are {ranked})." in said
        _two_sample_sentences(entries(tree, "two_sample"), " ".join(said))


def _comparison(found: dict[str, Array], drawn: dict[str, Array], at: int, draws: int) -> None:
    """The sentence of one test statistic has its label, its direction, its numbers and its p-value."""
    sentence, label = str(found["sentence"][at]), str(found["label"][at])
    replicated, realized = drawn["replicated"][0, :, at], drawn["realized"][0, :, at]
    observed, median = realized.mean(), np.median(replicated)
    assert label in sentence
    assert sentence.endswith(f"{format_p_value(found['p_value'][at], least=2 / (draws + 1))}.")
    if found["scope"][at] == "discrepancy":
        above = (replicated > realized).mean()
        assert sentence.startswith(f"In {100 * max(above, 1 - above):.1f} % of draws")
        assert f" a {'smaller' if above < 0.5 else 'larger'} {label}" in sentence
        return
    assert f"({median:.3g} against {observed:.3g})" in sentence
    if median != observed:
        assert ("larger" in sentence) == (median > observed)
        assert ("smaller" in sentence) == (median < observed)
        by = abs(median - observed)
        assert f" {by:.3g} " in sentence or f" {100 * by / observed:.0f} % " in sentence


def _verdict(tree: Any, sentence: str) -> None:
    words = _coverage_words(tree, 2).split(":")[0]
    expected = {
        "Overconfident": "overconfident, its distributions too narrow",
        "Underconfident": "underconfident, its distributions too wide",
        "Conservative": "covers more than its level",
        "Of the wrong shape": "too narrow at some levels and too wide at others",
    }
    assert expected.get(words, "no sign of distributions") in sentence


def _two_sample_sentences(found: dict[str, Array], said: str) -> None:
    p, accuracy = float(found["classifier_p_value"]), 100 * float(found["classifier_accuracy"])
    if p < 0.05:
        most = ", ".join(NAMES[at] for at in np.argsort(-found["importance"])[:3])
        sentence = f"A classifier distinguishes replicates from data {accuracy:.1f} % of the time ({format_p_value(p)})"
        assert f"{sentence}, most of all by {most}" in said
    else:
        assert f"does not distinguish replicates from data ({accuracy:.1f} % of the time, {format_p_value(p)})" in said
    covered, expected = (100 * float(found[name]) for name in ("coverage", "coverage_expected"))
    assert f"near {covered:.0f} % of the data ({expected:.0f} % if they were data)" in said
    assert f"their density among the data is {float(found['density']):.2f} " in said


@law
def summaries(world: World) -> None:
    """Sentences of evidence, latents, calibration, gaps and comparisons."""
    evidence, latents, ranks, gap = world.results.evidence, world.results.latents, world.sbc, world.gap
    values = evidence.pointwise.double().numpy()
    said = repr(evidence)
    assert f"log p(x) = {values.mean():.3f} nats per row" in said
    over_draws = math.sqrt(float(evidence.mcse.double().square().sum())) / len(values)
    over_rows = values.std(ddof=1) / math.sqrt(len(values))
    assert f"standard error {over_rows:.2g} over rows, {over_draws:.2g} over draws" in said
    assert f"bias about {-float(evidence.mcse.double().square().mean()) / 2:.1g}" in said
    unsure = int((evidence.khat > evidence.threshold).sum())
    assert f"k-hat is above {evidence.threshold:.2f} in {unsure} of {len(values)} rows" in said or not unsure
    kl, errors, said = latents.surgery, latents.mcse, repr(latents)
    assert f"KL from guide to prior {kl.mean:.2f} nats per row" in said
    assert f"{kl.information:.2f} +- {errors[1]:.2g} of mutual information" in said
    assert f"{kl.aggregate:.2f} +- {errors[2]:.2g} from aggregate to prior ({kl.rows} rows)" in said
    unused = [at for at, spread in enumerate(latents.spread.tolist()) if spread <= 0.01]
    assert f"Collapse: latent {unused[0]} is not used; {3 - len(unused)} of 3 are active" in said
    assert latents.kl is not None
    assert f"KL of each latent, in nats: {', '.join(f'{each:.2g}' for each in latents.kl.tolist())}" in said
    assert ("aggregate is not the prior" in said) == (2 * min(latents.mmd.p_value, latents.classifier.p_value) < 0.05)
    _sbc_sentences(ranks)
    confidence = [sentence.split(": ")[1] for sentence in world.wrong_widths.findings if sentence.startswith("z")]
    assert ["overconfident" in confidence[0], "underconfident" in confidence[1]] == [True, True]
    _sbc_sentences(world.wrong_widths)
    said = repr(gap)
    for name, values in (
        ("inference", gap.total),
        ("approximation", gap.approximation),
        ("amortisation", gap.amortisation),
    ):
        assert f"{name} gap = {float(values.mean()):.3f} nats" in said
        assert f"standard error {float(values.std()) / math.sqrt(len(values)):.2g} over rows" in said
    assert f"L* = {float(gap.refined.mean()):.3f} after 30 steps, L = {float(gap.amortised.mean()):.3f}" in said
    found = world.comparison
    best, second = found.models
    difference = (world.results.evidence.pointwise - world.other.evidence.pointwise).double().mean().abs()
    said = repr(found)
    assert said.splitlines()[1].startswith(best.name)
    assert said.splitlines()[2].startswith(second.name)
    if second.differs:
        assert f"{best.name} is ahead of {second.name} by {float(difference):.3g} nats per row" in said


def _sbc_sentences(ranks: Any) -> None:
    said = repr(ranks)
    smallest = min(ranks.quantities, key=lambda name: ranks.p_values[name])
    assert f"smallest {format_p_value(ranks.p_values[smallest])} ({smallest})" in said
    assert len(ranks.findings) == len(ranks.failed)
    for name, sentence in zip(ranks.failed, ranks.findings, strict=True):
        u = ranks.uniforms[:, ranks.quantities.index(name)]
        assert sentence.startswith(f"{name}: ")
        if "median in" in sentence:
            above = (u > 0.5).mean()
            assert f"lies {'above' if above > 0.5 else 'below'} its median in {max(above, 1 - above):.0%}" in sentence
            assert ("too low" in sentence) == (above > 0.5)
        if "confident" in sentence:
            assert ("overconfident" in sentence) == (u.var() > 1 / 12)
            assert f"{(abs(u - 0.5) < 0.45).mean():.0%} of the time" in sentence
        if "more probable" in sentence:
            assert f"than {u.mean():.0%} of the guide's draws" in sentence
            assert ("too narrow" in sentence) == (u.mean() < 0.5)
