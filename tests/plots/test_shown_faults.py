"""Faults put by hand into pictures, sentences and pages: each of them breaks the law that it names.

A fault edits the source of a function, or of all functions of a module, for the time of one test; the law of
`helpers/shown.py` runs under it on the results of the right code, and has to raise.
"""

import pytest
from helpers.shown import LAWS, World
from helpers.shown.faults import fault

pytestmark = pytest.mark.slow


FAULTS: list[tuple[str, str, str, str]] = [
    # law, module, right passage, wrong passage
    ("training", "plots.training", "history[column], color", "history['loss'], color"),
    ("training", "plots.training", 'held = history[f"validation_{column}"]', "held = history[column]"),
    ("training", "plots.training", 'label="training"', 'label="validation "'),
    ("training", "plots.training", '"kl": "KL from guide to prior"}', '"kl": "log-likelihood "}'),
    (
        "prior_predictive",
        "plots.samples",
        '"draws: z ~ p(z), x ~ p(x|z)": drawn',
        '"draws: z ~ p(z), x ~ p(x|z)": x[:count]',
    ),
    ("prior_predictive", "plots.samples", "vae.sample(count, mean=True, **sizes)", "drawn"),
    ("prior_predictive", "plots.samples", "[0.05, 0.25, 0.5, 0.75, 0.95]", "[0.05, 0.2, 0.5, 0.8, 0.95]"),
    (
        "prior_predictive",
        "plots.samples",
        '"data", x), (0.15, COLOURS[1], "draws", replicates)',
        '"data", replicates), (0.15, COLOURS[1], "draws", x)',
    ),
    ("reconstructions", "plots.samples", "for values in both]", "for values in both[::-1]]"),
    ("reconstructions", "plots.samples", "vae.reconstruct(shown, mean=True, **given)", "shown"),
    ("image_grid", "plots.samples", "for images in (beside, x)]", "for images in (x, beside)]"),
    ("image_grid", "plots.samples", "(images.float() - low)", "(high - images.float())"),
    ("latent", "plots.latent", "2 * values.clamp(min=0).sqrt()", "values.clamp(min=0).sqrt()"),
    (
        "latent",
        "plots.latent",
        "{kl.information:.2f} information + {kl.aggregate:.2f}",
        "{kl.aggregate:.2f} information + {kl.information:.2f}",
    ),
    ("latent", "plots.latent", "SHARES = (0.5, 0.9, 0.99)", "SHARES = (0.541, 0.926, 0.994)"),
    ("latent", "plots.latent", "torch.argsort(spread, descending=True)", "torch.argsort(spread)"),
    ("latent", "plots.latent", "colours.get(int(at), OTHERS)", "colours.get(len(classes) - 1 - int(at), OTHERS)"),
    ("latent", "plots.latent", "vectors[:, 1, 1], vectors[:, 0, 1]", "vectors[:, 1, 0], vectors[:, 0, 0]"),
    ("aggregate_posterior", "plots.aggregate_posterior", "for sample in (z, prior)]", "for sample in (prior, z)]"),
    ("aggregate_posterior", "plots.aggregate_posterior", "{max(distances):.2f}", "{min(distances):.2f}"),
    (
        "aggregate_posterior",
        "plots.aggregate_posterior",
        "abs(shares[0] - shares[1]).max()",
        "abs(shares[0] - shares[1]).mean()",
    ),
    (
        "traversals",
        "plots.latent_traversal",
        "z[place, :, latent] = quantiles[:, latent]",
        "z[place, :, latent] = quantiles[:, latent].flip(0)",
    ),
    (
        "traversals",
        "plots.latent_traversal",
        "_posterior_means(vae, batch, [row])",
        "_posterior_means(vae, batch, [0])",
    ),
    (
        "interpolations",
        "plots.latent_traversal",
        "means[:, :1] + share * (means[:, 1:] - means[:, :1])",
        "means[:, 1:] + share * (means[:, :1] - means[:, 1:])",
    ),
    ("interpolations", "plots.latent_traversal", "[rows].unflatten(0, (-1, 2))", "[rows[::-1]].unflatten(0, (-1, 2))"),
    ("manifold", "plots.latent_traversal", "quantiles[:, 1].flip(0)[:, None]", "quantiles[:, 1][:, None]"),
    ("manifold", "plots.latent_traversal", "torch.stack([across, up], dim=-1)", "torch.stack([up, across], dim=-1)"),
    (
        "graph",
        "plots.graph",
        "_arrow(axes, places[parent], places[site])",
        "_arrow(axes, places[site], places[parent])",
    ),
    (
        "graph",
        "plots.graph",
        'SHADE if site in relations["observed"] else "white"',
        '"white" if site in relations["observed"] else SHADE',
    ),
    ("latent_usage", "plots.latent_usage", "if latent in found.active", "if latent in found.collapsed"),
    ("latent_usage", "plots.latent_usage", "active ({len(found.active)})", "active ({len(found.collapsed)})"),
    ("latent_usage", "plots.latent_usage", 'found.kl, "KL from', 'found.spread, "KL from'),
    ("khat", "plots.khat", "return [first, *between, last]", "return [last, *between, first]"),
    ("khat", "plots.khat", "(values > limit).mean()", "(values <= limit).mean()"),
    ("khat", "plots.khat", "sorted({min(NO_VARIANCE, evidence.threshold), evidence.threshold})", "[0.5, 0.7]"),
    ("khat", "criticism.evidence", "MAX_KHAT = 0.7", "MAX_KHAT = 0.4"),
    ("sbc", "plots.sbc", "share - points, color", "points - share, color"),
    ("sbc", "plots.sbc", "COLOURS[1] if failed else COLOURS[0]", "COLOURS[0] if failed else COLOURS[1]"),
    ("sbc", "plots.sbc", "found.quantities.index(name)]", "names.index(name) - 1]"),
    ("sbc", "plots.sbc", "format_p_value(found.p_values[name])", "format_p_value(found.p_value)"),
    ("sbc", "criticism.ecdf_bands", "1 - LEVEL)", "0.2)"),
    (
        "test_statistics",
        "plots.test_statistics",
        '_draw_histogram(axes, replicated[:, at], float(one["observed"]))',
        '_draw_histogram(axes, replicated[:, at], float(one["mean"]))',
    ),
    (
        "test_statistics",
        "plots.test_statistics",
        "replicated[:, at] > realized[:, at]",
        "replicated[:, at] < realized[:, at]",
    ),
    (
        "test_statistics",
        "plots.test_statistics",
        'SIGNIFICANT if float(one["q_value"])',
        'SIGNIFICANT if float(one["p_value"])',
    ),
    (
        "test_statistics",
        "plots.test_statistics",
        'float(one["p_value"])), float(one["p_error"])',
        'float(one["q_value"])), float(one["p_error"])',
    ),
    (
        "test_statistics",
        "plots.test_statistics",
        "order_by_significance(found)[:PANELS]",
        "order_by_significance(found)[::-1][:PANELS]",
    ),
    ("test_statistics", "plots.test_statistics", "axes.plot(realized, replicated,", "axes.plot(replicated, realized,"),
    ("pit", "plots.pit", 'found["ecdf"].to_numpy()[at] - u', 'u - found["ecdf"].to_numpy()[at]'),
    ("pit", "plots.pit", "200 * error", "100 * error"),
    ("pit", "plots.pit", "100 * levels, 100 * overall", "100 * levels[::-1], 100 * overall"),
    ("pit", "plots.pit", "np.argmax(abs(overall - levels)", "np.argmin(abs(overall - levels)"),
    (
        "pit",
        "plots.pit",
        "left.fill_between(u, low - u, high - u",
        "left.fill_between(u, 2 * (low - u), 2 * (high - u)",
    ),
    ("pit", "plots.pit", "if q[at] < FDR_LEVEL]", "if q[at] >= FDR_LEVEL]"),
    (
        "pit",
        "criticism.summary",
        'return "overconfident", "the model is over',
        'return "underconfident", "the model is over',
    ),
    (
        "ppc",
        "plots.ppc",
        "np.stack([kept.observed, *kept.replicates[sets]])",
        "np.stack([kept.replicates[0], *kept.replicates[sets]])",
    ),
    ("ppc", "plots.ppc", "(0.05, 0.5, 0.95)", "(0.25, 0.5, 0.75)"),
    ("ppc", "plots.ppc", "axes.bar(at, data, 0.8", "axes.bar(at, median, 0.8"),
    ("ppc", "plots.ppc", "_heights(values, edges) for values in drawn]", "_heights(data, edges) for values in drawn]"),
    ("outliers", "plots.outliers", "order = np.lexsort((others, least))", "order = np.lexsort((others, -least))"),
    (
        "outliers",
        "plots.outliers",
        'abs(found["level"].to_numpy() - LEVEL).argmin()',
        'abs(found["level"].to_numpy() - 0.5).argmin()',
    ),
    ("outliers", "plots.outliers", '(found["u"] - found["ecdf"])', '(found["ecdf"] - found["u"])'),
    (
        "outliers",
        "plots.outliers",
        "for images in (kept.observed, *beneath)",
        "for images in (*beneath, kept.observed)",
    ),
    ("outliers", "plots.outliers", "(flat < FDR_LEVEL).mean()", "(flat > FDR_LEVEL).mean()"),
    ("outliers", "plots.outliers", "(~failed, DATA,", "(failed, DATA,"),
    ("outliers", "plots.outliers", "axes.set_ylim(len(order) - 0.4, -0.6)", "axes.set_ylim(-0.6, len(order) - 0.4)"),
    ("two_sample", "plots.two_sample", "np.argsort(-importance", "np.argsort(importance"),
    ("two_sample", "plots.two_sample", "{value['density']:.2f}", "{value['coverage']:.2f}"),
    ("two_sample", "plots.two_sample", '"does not distinguish"', '"distinguishes"'),
    (
        "two_sample",
        "plots.two_sample",
        'p, of_mmd = value["classifier_p_value"], value["mmd_p_value"]',
        'of_mmd, p = value["classifier_p_value"], value["mmd_p_value"]',
    ),
    ("compare", "plots.compare", "axes.plot(at.interval,", "axes.plot((at.value - at.se, at.value + at.se),"),
    ("compare", "plots.compare", "left.set_ylim(count - 0.5, -0.5)", "left.set_ylim(-0.5, count - 0.5)"),
    ("compare", "plots.compare", "INK if at.differs else", "INK if not at.differs else"),
    ("compare", "plots.compare", "place, at.difference, colour", "place, at.log_p, colour"),
    ("comparison_report", "criticism.compare", "key=lambda name: -float", "key=lambda name: float"),
    ("inference_gap", "plots.gap", "2 * over_rows", "over_rows"),
    ("inference_gap", "plots.gap", "gap.total.argsort()", "gap.amortised.argsort()"),
    ("inference_gap", "plots.gap", "array(gap.approximation[order])", "array(gap.amortisation[order])"),
    (
        "inference_gap",
        "criticism.inference_gap",
        '"approximation": (self.approximation,',
        '"approximation": (self.amortisation,',
    ),
    ("findings", "criticism.summary", "LEVEL = 0.9\n", "LEVEL = 0.5\n"),
    ("findings", "criticism.summary", "if (sides < 0).any():", "if (sides > 0).any():"),
    ("findings", "criticism.summary", "in np.argsort(-importance)[:3]", "in np.argsort(importance)[:3]"),
    ("findings", "criticism.summary", "for at in ordered[:SHOWN]", "for at in ordered[::-1][:SHOWN]"),
    ("findings", "criticism.summary", "if q_values[at] < FDR_LEVEL]", "if q_values[at] > FDR_LEVEL]"),
    (
        "findings",
        "criticism.summary",
        'argsort(part["pit_p_value"].values[failed])',
        'argsort(-part["pit_p_value"].values[failed])',
    ),
    (
        "findings",
        "criticism.summary",
        'coverage, expected = part["coverage"], part["coverage_expected"]',
        'expected, coverage = part["coverage"], part["coverage_expected"]',
    ),
    (
        "summaries",
        "criticism.latent_usage",
        "{kl.aggregate:.2f} +- {errors[2]:.2g}",
        "{kl.information:.2f} +- {errors[2]:.2g}",
    ),
    ("summaries", "criticism.latent_usage", "+- {errors[1]:.2g}", "+- {errors[0]:.2g}"),
    (
        "summaries",
        "criticism.evidence",
        "return float(self.mcse.square().sum().sqrt()) / len(self)",
        "return float(self.mcse.mean())",
    ),
    (
        "summaries",
        "criticism.sbc",
        'word = "over" if spread > 0 else "under"',
        'word = "under" if spread > 0 else "over"',
    ),
    (
        "summaries",
        "criticism.sbc",
        'in a wrong place, or ignore the data" if bias > 0',
        'in a wrong place, or ignore the data" if bias < 0',
    ),
    (
        "summaries",
        "criticism.inference_gap",
        "L = {float(self.amortised.mean()):.3f}",
        "L = {float(self.refined.mean()):.3f}",
    ),
    ("summaries", "criticism.compare", "by {-at.difference.value:.3g} nats", "by {at.difference.se:.3g} nats"),
    (
        "run_report",
        "reports.run_report",
        '"data": "observed", "replicates": "mean"',
        '"data": "mean", "replicates": "observed"',
    ),
    ("run_report", "reports.run_report", '"p": "p_value"', '"p": "q_value"'),
    ("run_report", "reports.run_report", 'for prefix in ("", "validation_"))]', 'for prefix in ("validation_", ""))]'),
    (
        "run_report",
        "reports.run_report",
        '"error": found.mcse, "k-hat": found.khat',
        '"error": found.khat, "k-hat": found.mcse',
    ),
    ("run_report", "reports.run_report", "found.pointwise.argsort()[:WORST]", "(-found.pointwise).argsort()[:WORST]"),
    ("run_report", "reports.run_report", 'held["level"].values - 0.9', 'held["level"].values - 0.5'),
    (
        "run_report",
        "reports.run_report",
        '"yes" if latent in found.active else "no"',
        '"no" if latent in found.active else "yes"',
    ),
    (
        "run_report",
        "reports.run_report",
        "int(found.unreliable.sum())} are above",
        "int((found.khat > 0.7).sum())} are above",
    ),
    ("run_report", "reports.run_report", "labels=rows.labels, usage=found, **given", "labels=rows.labels, **given"),
    ("run_report", "reports.run_report", '["mean", "std", "min", "max"]', '["mean", "std", "max", "min"]'),
    ("run_report", "reports.run_report", "plots.khat(found), alt", "plots.outliers(results.tree), alt"),
    (
        "run_report",
        "reports.pictures",
        'first, last = float(history["loss"][0])',
        'last, first = float(history["loss"][0])',
    ),
    ("run_report", "reports.pictures", "accuracy = results.classifier_accuracy", "accuracy = results.coverage"),
    ("run_report", "reports.page", 'f"{value:.4g}"', 'f"{value:.1g}"'),
    (
        "comparison_report",
        "reports.comparison_report",
        "[at.log_p.value, at.log_p.se, at.difference.value, at.difference.se]",
        "[at.difference.value, at.log_p.se, at.log_p.value, at.difference.se]",
    ),
    (
        "comparison_report",
        "reports.comparison_report",
        "one.coverage, one.classifier_accuracy, one.active]",
        "one.classifier_accuracy, one.coverage, one.active]",
    ),
    (
        "comparison_report",
        "reports.comparison_report",
        "count == min(counts.values())]",
        "count == max(counts.values())]",
    ),
    (
        "comparison_report",
        "reports.comparison_report",
        'found[["mean", "q_value"]].reindex',
        'found[["mean", "q_value"]].roll(statistic=1, roll_coords=False).reindex',
    ),
    ("comparison_report", "reports.results", ".sel(level=0.9, method", ".sel(level=0.5, method"),
]


@pytest.fixture(scope="module")
def world() -> World:
    """Results of the right code, made before any fault."""
    made = World()
    for check in LAWS.values():
        check(made)
    return made


@pytest.mark.parametrize(("name", "module", "right", "wrong"), FAULTS, ids=lambda part: part[:40])
def test_fault_breaks_its_law(name: str, module: str, right: str, wrong: str, world: World) -> None:
    with fault(module, right, wrong), pytest.raises((AssertionError, StopIteration, KeyError, ValueError)):
        LAWS[name](world)


def test_there_are_at_least_sixty_faults_for_every_law() -> None:
    assert len(FAULTS) >= 60
    assert {name for name, *_ in FAULTS} == set(LAWS)
