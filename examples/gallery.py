"""Every picture there is, on one page, each with what to look for and the line that draws it.

Run: python examples/gallery.py, or with --quick for models that are hardly trained. It writes gallery/index.html, which
needs no network, and the pictures beside it. The lines under the pictures are the ones that were run.
"""

import html
import os
import sys
from pathlib import Path

import torch
from sklearn.datasets import load_breast_cancer

import pyro_vae as pv
from pyro_vae.criticism import Importance, inference_gap, sbc

QUICK = "--quick" in sys.argv or bool(os.environ.get("PYRO_VAE_QUICK"))
EPOCHS, DRAWS = (2, 40) if QUICK else (120, 500)
FOLDER = Path("gallery")
FEW = ["neighbour distance", "largest correlation", "chi-squared", "minus log-likelihood"]


def fitted(vae: pv.VAE, data, **options) -> tuple[pv.VAE, pv.History]:
    return vae, pv.fit(vae, data, epochs=EPOCHS, optimizer=pv.Adam(2e-3), progress=False, **options)


torch.manual_seed(0)
digits = pv.data.load("digits", seed=0)
held = digits.validation.x
network = pv.MLP(hidden=(128,))
vae, history = fitted(
    pv.VAE(digits.event_shape, 8, encoder=network, likelihood=pv.Normal(scale="learned")),
    digits.train,
    validation=digits.validation,
)
plane, _ = fitted(pv.VAE(digits.event_shape, 2, encoder=network, likelihood=pv.Normal(scale="learned")), digits.train)

cancer = load_breast_cancer(as_frame=True)
table = ((cancer.data - cancer.data.mean()) / cancer.data.std()).astype("float32").sample(frac=1, random_state=0)
train, test = table[:400], table[400:]
tabular, _ = fitted(pv.VAE((30,), 5, encoder=pv.MLP(hidden=(64,))), train)
tails, _ = fitted(pv.VAE((30,), 5, encoder=pv.MLP(hidden=(64,)), likelihood=pv.StudentT(scale="per_feature")), train)

quick = {"progress": False}
visits = torch.poisson(torch.distributions.Gamma(1.0, 0.2).sample((900, 2)))  # counts that vary more than Poisson's
counts, _ = fitted(pv.VAE((2,), 1, encoder=pv.MLP(hidden=(16,)), likelihood=pv.Poisson()), visits[:600])
checked = {
    "digits": pv.predictive_check(vae, digits.validation, draws=DRAWS, **quick),
    "again": pv.predictive_check(vae, digits.validation, kind="posterior", draws=DRAWS, **quick),
    "table": pv.predictive_check(tabular, test, draws=DRAWS, **quick),
    "few": pv.predictive_check(tabular, test, kind="posterior", statistics=FEW, draws=DRAWS, **quick),
    "counts": pv.predictive_check(counts, visits[600:], draws=DRAWS, **quick),
}
x = torch.tensor(test.to_numpy())
method = Importance(draws=100 if QUICK else 1000)
evidence, other = (pv.evidence(model, x, method=method, **quick) for model in (tabular, tails))
gap = inference_gap(tabular, x[:20], draws=100, steps=5 if QUICK else 100, **quick)
comparison = pv.compare({"Normal": evidence, "StudentT": other})
ranks = sbc(plane, simulations=40 if QUICK else 200, **quick)

PICTURES = {
    "Did training end?": [
        (
            "training",
            "The bound and its parts over epochs, on training and on held-out rows. Look for curves that are flat at "
            "the end, and for a held-out curve that turns while the other goes on: the model learns its rows by heart.",
            "pv.plots.training(history)",
        ),
    ],
    "Do data like these come out of the model?": [
        (
            "replicates-images",
            "Held-out digits, and data sets that the model made up. Could you tell the first grid from the others?",
            'pv.plots.ppc(checked["digits"])',
        ),
        (
            "replicates-table",
            "The density of each feature in data and in replicates. Look for peaks and tails that lines do not have.",
            'pv.plots.ppc(checked["table"])',
        ),
        (
            "replicates-counts",
            "Counts that vary more than Poisson replicates do: the bars at zero and far out rise above the ranges.",
            'pv.plots.ppc(checked["counts"])',
        ),
        (
            "checks",
            "Test statistics of replicates, and of the data as a line. The further out the line, the worse the model "
            "describes what that test statistic measures; those that are significant among so many are red.",
            'pv.plots.test_statistics(checked["digits"])',
        ),
        (
            "checks-discrepancies",
            "The same by replicates of the same rows. A discrepancy has a value of the data for each latent: points "
            "should lie on both sides of the diagonal. These replicates have seen the data, so they look better.",
            'pv.plots.test_statistics(checked["few"])',
        ),
        (
            "coverage",
            "Left: where data fall among their replicates; inside of the band is no sign of a fault. Right: intervals "
            "should lie on the dashed line; below it the model is too sure of itself, above it not sure enough.",
            'pv.plots.pit(checked["table"])',
        ),
        (
            "worst-images",
            "The rows that are most extreme among their replicates, and the pixels whose intervals hold too little "
            "(purple) or too much (orange) of the data. Are these rows errors in the data, or in the model?",
            'pv.plots.outliers(checked["again"])',
        ),
        (
            "worst-table",
            "A table: rows by the test statistics in which they are extreme, and features by their coverage.",
            'pv.plots.outliers(checked["table"])',
        ),
        (
            "two-sample-images",
            "By which pixels a classifier tells a replicate from the data. Bright ones are where to mend the model.",
            'pv.plots.two_sample(checked["digits"])',
        ),
        (
            "two-sample-table",
            "By which features it does. An accuracy near 0.5 says that it cannot.",
            'pv.plots.two_sample(checked["table"])',
        ),
        (
            "draws",
            "Data, draws and means. Draws are what the model says of data; means alone hide their noise.",
            "pv.plots.prior_predictive(vae, held)",
        ),
        (
            "reconstructions",
            "Rows, and what comes back of them through the latents. Look for what is lost in all of them.",
            "pv.plots.reconstructions(vae, held)",
        ),
    ],
    "What do the latents mean?": [
        (
            "latent",
            "Where the guide puts each row, coloured by class, over the prior's contours. Look for holes that the "
            "prior expects to be filled, and for rows outside of it.",
            "pv.plots.latent(plane, held, digits.validation.labels)",
        ),
        (
            "aggregate",
            "All posteriors together against the prior, latent by latent. Where they part, draws from the model come "
            "from places that no data are in.",
            "pv.plots.aggregate_posterior(vae, held)",
        ),
        (
            "usage",
            "What each latent costs, and whether it says anything of the data. Grey latents are not used.",
            "pv.plots.latent_usage(pv.criticism.latents(vae, held, progress=False))",
        ),
        (
            "traversals",
            "One digit as one latent after the other moves along the prior. A line that does not change is a latent "
            "that is not used.",
            "pv.plots.traversals(vae, held)",
        ),
        (
            "traversals-table",
            "The same for a table: lines over features, from dark to bright as the latent grows.",
            "pv.plots.traversals(tabular, x)",
        ),
        (
            "interpolations",
            "What lies between two digits. A smooth change of shape is good; two digits laid over each other are not.",
            "pv.plots.interpolations(vae, held)",
        ),
        (
            "manifold",
            "What two latents can say, at quantiles of the prior. Each class should have a place, as large as it is "
            "frequent.",
            "pv.plots.manifold(plane)",
        ),
    ],
    "Can the numbers be trusted?": [
        (
            "khat",
            "Whether the weights behind each row's evidence can be trusted. Red rows cannot: take another method.",
            "pv.plots.khat(evidence)",
        ),
        (
            "inference-gap",
            "What the bound lacks of the evidence: the fault of the guide's family, or of the encoder.",
            "pv.plots.inference_gap(gap)",
        ),
        (
            "calibration",
            "Whether the guide is right where the truth is known. Curves outside of the band show that it is not.",
            "pv.plots.sbc(ranks)",
        ),
        (
            "comparison",
            "Which model describes held-out rows better, and whether the difference is more than chance.",
            "pv.plots.compare(comparison)",
        ),
    ],
}

FOLDER.mkdir(exist_ok=True)
page = [
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>pyro_vae: gallery</title>',
    '<meta name="viewport" content="width=device-width, initial-scale=1"><style>',
    "body{font:16px/1.5 sans-serif;color:#222;max-width:50rem;margin:auto;padding:1rem}",
    "img{max-width:100%;height:auto}figure{margin:0 0 3rem}code{background:#f2f2f2;padding:.2rem .4rem}",
    "pre{overflow-x:auto}</style></head><body><main><h1>Pictures of a VAE</h1>",
    f"<p>Handwritten digits and a table of tumours (scikit-learn), models of {EPOCHS} epochs, drawn by "
    "<code>examples/gallery.py</code>, which has the lines that made <code>vae</code> and <code>checked</code>.</p>",
]
for section, pictures in PICTURES.items():
    page.append(f"<h2>{section}</h2>")
    for name, caption, line in pictures:
        eval(line).savefig(FOLDER / f"{name}.png")  # the line that is shown is the line that is run
        page.append(
            f'<figure><img src="{name}.png" alt="{html.escape(caption)}"><figcaption>{html.escape(caption)}'
            f"</figcaption><pre><code>{html.escape(line)}</code></pre></figure>"
        )
        print(f"{name:<22} {line}")
(FOLDER / "index.html").write_text("\n".join([*page, "</main></body></html>"]))
print(f"Look at {FOLDER / 'index.html'}.")
