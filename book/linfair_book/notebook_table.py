"""The notebooks and their parameters: names, types, defaults, ranges and descriptions, said once."""

from linfair_book.parameter import Notebook, Parameter


def shares_kept(default: list[float], description: str) -> Parameter:
    """The parameter `budgets`: ReLU budgets as fractions between 0 and 1, strictly descending."""
    return Parameter("budgets", "list[float]", default, description, low=0, high=1, open_ends=True, descending=True)


_SEED = Parameter("seed", "int", 0, "First seed; the others follow it.", low=0, high=1_000_000)
_DEVICE = Parameter("device", "str", "cpu", "Where to train.", choices=("cpu", "cuda"))
_PROFILE = Parameter(
    "profile",
    "str",
    "small",
    "small: as given; smoke: few seeds and steps, to see that the page runs.",
    choices=("smoke", "small"),
)

_REPETITIONS = Parameter("n_seeds", "int", 10, "Repetitions: new split, new start.", low=2, high=100)
_STUDY_PROFILE = Parameter(
    "profile",
    "str",
    "small",
    "small: bundled data on a CPU; paper: the paper's settings; smoke: does the page run.",
    choices=("smoke", "small", "quick", "paper"),
)

_STUDY = (_REPETITIONS, _SEED, _DEVICE, _STUDY_PROFILE)
_NETWORK = Parameter("network", "str", "mlp", "Network.", choices=("mlp", "resnet18", "resnet34"))

SWEEPS = tuple(f"fig{n:02d}" for n in (1, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15)) + (
    "label_group",
    "mitigations",
    "deepreduce_search",
)
"""Figures that are grids: the files of `linfair/study/figures`."""

NOTEBOOKS: dict[str, Notebook] = {
    notebook.name: notebook
    for notebook in (
        Notebook(
            name="01_toy_boundary",
            title="A decision boundary with fewer ReLUs (Fig. 2)",
            minutes=1,
            parameters=(
                Parameter(
                    "relu_budget",
                    "float",
                    0.5,
                    "Share of ReLUs kept in the picture of one seed and in the headline.",
                    low=0,
                    high=1,
                ),
                Parameter("n_seeds", "int", 20, "Repetitions: new data, mask and start.", low=2, high=200),
                _SEED,
                Parameter("amplitude", "float", 0.5, "A of the boundary A sin(f pi x).", low=0, high=1),
                Parameter("frequency", "float", 2.5, "f of the boundary A sin(f pi x).", low=0.5, high=5),
                Parameter("n_majority", "int", 900, "Training points of the majority.", low=10, high=20_000),
                Parameter("n_minority", "int", 100, "Training points of the minority.", low=10, high=20_000),
                Parameter("width", "int", 16, "ReLUs in each of the two hidden layers.", low=2, high=256),
                Parameter("steps", "int", 400, "Full-batch Adam steps.", low=1, high=10_000),
                _DEVICE,
                _PROFILE,
            ),
            limits={"smoke": {"n_seeds": 2, "steps": 20}},
        ),
        Notebook(
            name="02_accuracy_impact",
            title="Who loses accuracy when ReLUs go (Figs. 1, 5, 6)",
            minutes=4,
            parameters=(
                Parameter("data", "str", "digits", "Data set.", choices=("digits", "cifar10")),
                _NETWORK,
                Parameter("method", "str", "snl", "How the ReLUs to keep are chosen.", choices=("snl",)),
                shares_kept([0.8, 0.6, 0.4, 0.2, 0.02], "Shares of ReLUs kept; 100 % is always there."),
                *_STUDY,
            ),
            limits={"smoke": {"n_seeds": 2}},
        ),
        Notebook(
            name="03_theory",
            title="The propositions, each with a check that could fail (Sec. 4, Apps. A and B)",
            minutes=1,
            parameters=(
                shares_kept([0.8, 0.6, 0.4, 0.2, 0.02], "Shares of ReLUs kept by the trained networks."),
                _REPETITIONS,
                Parameter(
                    "n_networks", "int", 400, "Random networks for Prop. 4.5; a tenth for 4.2.", low=10, high=5000
                ),
                _SEED,
                _DEVICE,
                _PROFILE,
            ),
            limits={"smoke": {"n_seeds": 2, "n_networks": 20}},
        ),
        Notebook(
            name="04_why",
            title="Why: gradient norms, curvature, margins, and group size (Figs. 3, 4, 8, 14)",
            minutes=3,
            parameters=(
                Parameter("data", "str", "digits", "Data set.", choices=("digits", "cifar10")),
                _NETWORK,
                shares_kept([0.8, 0.6, 0.4, 0.2, 0.02], "Shares of ReLUs kept; 100 % is always there."),
                *_STUDY,
                Parameter(
                    "upsampled",
                    "str",
                    "table",
                    "table: the ten seeds in book/results; run: train again with these parameters.",
                    choices=("table", "run"),
                ),
            ),
            limits={"smoke": {"n_seeds": 2}},
        ),
        Notebook(
            name="05_mitigation",
            title="Repair: does Algorithm 1 help minorities without harming majorities? (Figs. 9, 12 to 15)",
            minutes=1,
            parameters=(
                Parameter("data", "str", "digits", "Data set.", choices=("digits", "cifar10")),
                _NETWORK,
                Parameter(
                    "relu_budget",
                    "float",
                    0.2,
                    "Share of ReLUs kept in the part computed here.",
                    low=0,
                    high=1,
                    open_ends=True,
                ),
                Parameter("mu", "float", 0.001, "Step of Algorithm 1's multipliers there.", low=0, high=10),
                *_STUDY,
            ),
            limits={"smoke": {"n_seeds": 2}},
        ),
        Notebook(
            name="06_released_code",
            title="Paper against released code: each disagreement a switch, and what it changes",
            minutes=1,
            parameters=(
                _REPETITIONS,
                _SEED,
                _DEVICE,
                _PROFILE,
                Parameter(
                    "switches",
                    "str",
                    "table",
                    "table: the runs in book/results; run: all of them again with these parameters.",
                    choices=("table", "run"),
                ),
            ),
            limits={"smoke": {"n_seeds": 2}},
        ),
        Notebook(
            name="07_which_linearizer",
            title="Which ReLUs, or how many? Selections of equal count",
            minutes=2,
            parameters=(
                Parameter("data", "str", "digits", "Data set.", choices=("digits",)),
                _NETWORK,
                shares_kept([0.4, 0.2, 0.1], "Shares of ReLUs kept, exactly, by every selection."),
                *_STUDY,
            ),
            limits={"smoke": {"n_seeds": 2}},
        ),
        Notebook(
            name="08_gpu_sweeps",
            title="A figure's whole grid, on whatever is at hand: a CPU, a GPU, a folder of results",
            minutes=0.5,
            parameters=(
                Parameter("figure", "str", "fig06", "Which figure's grid.", choices=SWEEPS),
                Parameter(
                    "profile",
                    "str",
                    "thin",
                    "smoke, small: digits stand in; thin, cpu: on a CPU; fast, paper: for a GPU.",
                    choices=("smoke", "small", "thin", "cpu", "fast", "paper"),
                ),
                _DEVICE,
                Parameter("n_seeds", "int", 5, "Seeds, from 0.", low=2, high=100),
                Parameter("minutes", "float", 0.0, "Start nothing that ends later; 0: only read.", low=0, high=10_000),
                Parameter("out", "str", "", "Folder of the results; empty: one in the user's cache."),
            ),
            limits={"smoke": {"n_seeds": 2}},
        ),
        Notebook(
            name="09_relu_cost",
            title="What a ReLU costs in private inference, and who pays for saving it",
            minutes=0.5,
            parameters=(
                Parameter(
                    "bandwidth_mbit", "float", 100.0, "Mbit a second between client and server.", low=0.01, high=1e6
                ),
                Parameter("rtt_ms", "float", 50.0, "Round trip time in milliseconds.", low=0, high=60_000),
                Parameter("n_seeds", "int", 10, "Seeds of the committed rows, at most.", low=2, high=100),
                Parameter(
                    "profile",
                    "str",
                    "small",
                    "small: as given; smoke: two seeds, to see that the page runs.",
                    choices=("smoke", "small"),
                ),
            ),
            limits={"smoke": {"n_seeds": 2}},
        ),
        Notebook(
            name="10_explorer",
            title="Play with the boundary and the results",
            minutes=1.5,
            parameters=(
                Parameter("n_seeds", "int", 3, "Seeds of the boundary explorer.", low=2, high=10),
                _SEED,
                Parameter("steps", "int", 400, "Full-batch Adam steps.", low=1, high=10_000),
                _DEVICE,
                _PROFILE,
            ),
            limits={"smoke": {"n_seeds": 2, "steps": 20}},
        ),
        Notebook(
            name="11_audit",
            title="Audit your own model",
            minutes=1,
            parameters=(
                Parameter(
                    "method", "str", "snl", "How the ReLUs to keep are chosen.", choices=("snl", "random", "snip")
                ),
                shares_kept([0.5, 0.2, 0.05], "Shares of ReLUs kept; the smallest is repaired."),
                Parameter(
                    "n_seeds",
                    "int",
                    2,
                    "Networks: the first is audited, the others show how it varies.",
                    low=2,
                    high=20,
                ),
                _SEED,
                _DEVICE,
                _PROFILE,
            ),
            limits={"smoke": {"n_seeds": 2}},
        ),
        Notebook(
            name="12_faces",
            title="The paper's faces, through a thin network (Figs. 1, 3, 4, 6, 9, 13, 14)",
            minutes=0.5,
            parameters=(
                Parameter(
                    "data",
                    "str",
                    "utkface_race",
                    "Data set of the first part.",
                    choices=("utkface_race", "utkface_age"),
                ),
                Parameter(
                    "source",
                    "str",
                    "table",
                    "table: the rows in book/results; run: compute what is missing, an hour a seed on a CPU.",
                    choices=("table", "run"),
                ),
                Parameter("n_seeds", "int", 5, "Seeds, from 0; of the table, at most.", low=2, high=100),
                _DEVICE,
                Parameter("out", "str", "", "Folder of the results for run; empty: one in the user's cache."),
                _PROFILE,
            ),
            limits={"smoke": {"n_seeds": 2}},
        ),
    )
}
