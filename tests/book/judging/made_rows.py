"""Rows of made-up studies and the verdicts on them, for the tests of judging."""

from pathlib import Path

import pandas as pd
from linfair_book.judging.cells import contexts
from linfair_book.judging.judge import Verdict, judge_rows
from linfair_book.judging.rows import read
from linfair_book.judging.rules import Rules

ROOT = Path(__file__).resolve().parents[3]
NOTHING = pd.DataFrame({"key": []}).set_index("key")
GROUPS = {"White": ("majority", 400), "Black": ("minority", 100), "Others": ("minority", 50)}


def made(
    effects: dict[str, float],
    *,
    seeds: int = 6,
    arm: str = "plain",
    data: str = "utkface_race",
    network: str = "resnet18",
    width: int = 16,
    profile: str = "cpu",
    method: str = "snl",
    budgets: tuple[float, ...] = (0.6, 0.2, 0.02),
    noise: float = 0.002,
) -> pd.DataFrame:
    """Rows in which an arm differs from the others by `effects` (shares) at every budget, up to a little noise."""
    lines = []
    for seed in range(seeds):
        teacher = f"{data} {network} {width} {profile} {seed}"
        for name, (role, n_train) in GROUPS.items():
            arms = [("original", 1.0), *((one, b) for one in ("plain", "control", arm) for b in budgets)]
            for one, budget in dict.fromkeys(arms):
                shift = effects[name] if one == arm else 0.0
                wobble = noise * ((seed * 7 + len(name) + int(100 * budget)) % 5 - 2) if one == arm else 0.0
                for split in ("train", "test"):
                    lines.append(
                        {
                            **{"data": data, "network": network, "width": width, "profile": profile, "options": ""},
                            "method": "original" if one == "original" else method,
                            **{"arm": one, "budget": budget, "seed": seed, "split": split, "teacher": teacher},
                            **{"group": list(GROUPS).index(name), "group_name": name, "role": role, "n_train": n_train},
                            **{"n": n_train // (1 if split == "train" else 4), "accuracy": 0.7 + shift + wobble},
                            **{"kept": int(1000 * budget), "gradient_norm": 1.0, "margin": 1.0},
                            **{"relative_distance": 1 - budget, "seconds": 60.0, "device": "CPU", "torch": "2"},
                            "linfair": "0.1.0",
                        }
                    )
    return pd.DataFrame(lines)


def verdict_of(claim: str, rules: Rules, *tables: pd.DataFrame, folder: Path) -> Verdict:
    for number, table in enumerate(tables):
        table.to_parquet(folder / f"{number}.parquet")
    return judge_rows(rules.claims[claim], rules, contexts(read(folder, {"snl", "deepreduce"}), rules.judging))


LOSE = {"White": 0.0, "Black": -0.05, "Others": -0.1}
WIN = {"White": 0.0, "Black": 0.05, "Others": 0.1}
