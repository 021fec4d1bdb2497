"""How options are typed: a value that an option does not take is refused by name before any work begins."""

import pytest

from linfair.cli.main import main, parse

WHOLE = ["0", "-1", "1.5", "1_0", "0x10", "nan", "inf", "1e3", "9" * 100, "\uff11\uff12", "٣", "1,2", "two"]
FLOATS = ["nan", "-inf", "1e999", "0.1_5", "9" * 100, "-1", "0,5", "\uff10.5", "5%", "[0.5"]
LISTS = [
    "0.5,,",
    ",0.5",
    "[0.5",
    "0.5]",
    "0.1_5",
    "nan",
    "0.5,inf",
    "0.5;0.2",
    "0.5,0.5",
    "0.2,0.5",
    "0",
    "1",
    "-0.5",
    "0.5,½",
]
OPTIONS = {
    "linearize": {"--width": WHOLE, "--min-images": WHOLE, "--seed": WHOLE[1:], "--budgets": LISTS},
    "diagnose --teacher t --mask m": {"--batch-size": WHOLE},
    "mitigate --teacher t --mask m": {"--judge-from": WHOLE, "--significance": FLOATS, "--mu": [*LISTS[:7], "0.1,0.1"]},
    "audit": {
        "--size": WHOLE,
        "--lr": FLOATS,
        "--rtt": FLOATS,
        "--mean": LISTS[:7],
        "--max-accuracy-loss": FLOATS,
        "--tolerance": FLOATS,
    },
    "data describe digits": {"--seed": WHOLE[1:], "--min-images": WHOLE},
    "study run fig06 --out o": {"--jobs": WHOLE, "--threads": WHOLE, "--seeds": WHOLE, "--minutes": FLOATS},
    "study table fig06 --out o": {"--seeds": WHOLE},
}
CASES = [(words, name, value) for words, all in OPTIONS.items() for name, values in all.items() for value in values]


def refusal(words, capsys) -> str:
    """What is said of a request that is refused; nothing else is."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("linfair: ") and err.count("\n") == 1
    return err


@pytest.mark.parametrize(("words", "name", "value"), CASES)
def test_what_is_no_number_of_an_option_is_refused_with_both(words, name, value, capsys) -> None:
    said = refusal([*words.split(), f"{name}={value}"], capsys)
    assert name in said and (value in said or value.replace("-0.5", "[-0.5]") in said or "[" in said)


def test_what_is_within_the_limits_is_taken() -> None:
    words = ["study", "run", "fig06", "--out", "o", "--jobs", "2", "--minutes", "1e1", "--seeds", " 3 "]
    known = parse(words)[1].arguments
    assert (known["jobs"], known["minutes"], known["which"].seeds) == (2, 10.0, 3)
    assert parse(["linearize", "--budgets", "0.5, .2,5e-2"])[1].arguments["budgets"] == (0.5, 0.2, 0.05)


@pytest.mark.parametrize("value", ["", "  ", "None", "null", "a\0b"])
@pytest.mark.parametrize(
    "words", ["linearize --data", "audit --teacher", "data fetch", "notebook run --profile", "audit -p"]
)
def test_a_word_that_is_no_value_is_never_taken_for_a_missing_one(words: str, value: str, capsys) -> None:
    assert words.split()[-1] in refusal([*words.split(), value], capsys)
    option = words.split()[-1]
    if option.startswith("--"):
        assert option in refusal([*words.split()[:-1], f"{option}={value}"], capsys)


@pytest.mark.parametrize(
    ("arms", "words"),
    [
        ("group_dro,group_dro", "twice"),
        ("lagrangian(mu=0.1),lagrangian( mu = 1e-1 )", "twice"),
        ("lagrangian(mu=0.1", "'lagrangian(mu=0.1' is not an arm"),
        ("lagrangian(mu=0.0_1)", "is not an arm"),
        ("lagrangian(mu=" + "9" * 100 + ")", "mu takes a finite number"),
        ("group_dro,,lagrangian", "''"),
        (",", "''"),
        ("lagrangian(mu=" + "-" * 5000 + "1)", "is not an arm"),
    ],
)
def test_arms_are_arms_and_each_is_named_once(arms: str, words: str, capsys) -> None:
    said = refusal(["mitigate", "--teacher", "t", "--mask", "m", "--arms", arms], capsys)
    assert "--arms" in said and words in said


def test_a_percentage_and_a_count_suggest_the_share(capsys) -> None:
    """Oracle: the count of units of an MLP of two layers of 8 is 16."""
    assert "0.2" in refusal(["linearize", "--budgets", "20"], capsys)
    words = ["linearize", "--network", "mlp", "--width", "8", "--data", "digits", "--budgets"]
    assert "the 16 ReLUs" in refusal([*words, "400"], capsys)
    words[4] = "128"
    assert "128 of the 256 ReLUs of the network are the share 0.5" in refusal([*words, "128"], capsys)
