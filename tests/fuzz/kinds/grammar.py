"""Every option of every command with values that it does not take."""

from collections.abc import Iterator

from kinds.case import BYTES, ESCAPE, HUNDRED, LONG, NOWHERE, Case, shown
from kinds.commands import RIGHT, options
from kinds.places import OUTPUTS

LISTS = {"comma": ",", "two commas": "0.5,,", "hole": "0.5,,0.2", "open": "[0.5", "closed": "0.5]", "round": "(0.5,0.2"}
LISTS |= {"blank": "0.5 0.2", "semicolon": "0.5;0.2", "underscore": "0.1_5", "nan": "nan", "among": "0.5,nan"}
LISTS |= {"infinite": "inf", "word": "0.5,abc", "colour": f"0.5,{ESCAPE}", "hundred digits": HUNDRED}
VALUES = {
    "int": {"word": "abc", "nan": "nan", "infinite": "inf", "half": "1.5", "underscore": "1_0", "negative": "-1"},
    "float": {"word": "abc", "nan": "nan", "infinite": "-inf", "huge": "1e999", "comma": "1,5", "underscore": "0.1_5"},
    "floats": LISTS,
    "choice": {"none": "None", "number": "0", "other case": "CPU", "word": "abc"},
    "switch": {"maybe": "maybe", "number": "2", "empty": "", "colour": ESCAPE},
    "text": {},
    "texts": {},
}
VALUES["int"] |= {"hundred digits": HUNDRED, "two": "1,2", "fraction": "1/2"}
VALUES["float"] |= {"hundred digits": HUNDRED, "negative": "-1", "per cent": "5%", "open": "[0.5"}
SOME = {  # of options that say more than their type
    "--width": {"zero": "0", "large": "1000000000"},
    "--batch-size": {"zero": "0"},
    "--seeds": {"zero": "0"},
    "--shadows": {"zero": "0", "large": "1000", "too few": "2"},
    "--size": {"zero": "0", "large": "1000000"},
    "--jobs": {"zero": "0"},
    "--threads": {"zero": "0", "large": "1000000000"},
    "--minutes": {"zero": "0"},
    "--budgets": {"count": "20", "units": "9830", "twice": "0.5,0.5", "rising": "0.2,0.5", "zero": "0", "one": "1"},
    "--mu": {"negative": "-0.1", "twice": "0.1,0.1"},
    "--std": {"zero": "0,0,0", "negative": "1,1,-1", "two": "1,1"},
    "--mean": {"two": "1,1"},
    "--arms": {"unknown": "lagrangain", "twice": "group_dro,group_dro", "open": "lagrangian(mu=0.1", "code": "a(b=c())"}
    | {
        "same": "lagrangian(mu=0.1),lagrangian(mu=0.10)",
        "nan": "lagrangian(mu=nan)",
        "huge": f"lagrangian(mu={HUNDRED})",
    }
    | {
        "deep": "lagrangian(mu=" + "(" * 3000 + ")" * 3000 + ")",
        "keyword": "group_dro(x=1)",
        "comma": ",,",
        "text": "''",
    },
    "--merge": {"one": "a", "plus": "+", "pluses": "a++b", "twice": "a+a", "unknown": "dim+dark", "equals": "="},
    "--rule": {
        "unknown": "dpsgd",
        "open": "dp_sgd(epsilon=3",
        "code": "dp_sgd(epsilon=c())",
        "nan": "dp_sgd(epsilon=nan)",
    }
    | {"zero": "dp_sgd(epsilon=0)", "keyword": "sgd(epsilon=1)", "deep": "dp_sgd(epsilon=" + "(" * 3000},
    "--epsilon": {"zero": "0", "tiny": "1e-9"},
    "--delta": {"zero": "0", "one": "1", "all": "0.5"},
    "--method": {"unknown": "snll", "list": "snl,random", "options": "snl(x=1)"},
    "--split": {"unknown": "tset", "several": "train,val"},
    "--repair-at": {"other": "0.3", "count": "20"},
    "--max-accuracy-loss": {"large": "101"},
    "--tolerance": {"large": "101"},
    "--significance": {"large": "2"},
    "--lr": {"zero": "0", "large": "100"},
    "--bandwidth": {"zero": "0"},
    "--model": {"no function": "IN/mymodel.py", "no file": "IN/mine.py:build", "empty": ":", "module": "os:system"},
    "--data": {"misspelt": "digts", "no folder": "folder:IN/nothing", "no path": "folder:", "other": "cifar11"},
    "--teacher": {"no file": "IN/nothing.safetensors", "folder": "IN/"},
    "--mask": {"no file": "IN/nothing.mask.safetensors", "folder": "IN/"},
    "--weights": {"no file": "IN/nothing.safetensors", "folder": "IN/", "address": "https://127.0.0.1/w.safetensors"},
    "-p": {
        "unknown": "relu=1",
        "nothing": "relu_budget",
        "no name": "=1",
        "twice": "n_seeds=2",
        "nan": "relu_budget=nan",
    }
    | {
        "hole": "budgets=0.5,,",
        "huge": f"n_seeds={HUNDRED}",
        "negative": "n_seeds=-2",
        "quote": "device=cpu'",
        "fact": "n_seeds=True",
    }
    | {"code": "n_seeds=__import__('os').getpid()", "deep": "n_seeds=" + "(" * 500, "open": "budgets=[0.5"},
}
ANSWERED = {("study show", "--out"), ("study status", "--out"), ("data status", "--root")}
"""Folders that may not be there yet."""


def cases() -> Iterator[Case]:
    """A case for each option and each of its values."""
    for number, (command, option, takes) in enumerate(options()):
        values = VALUES[takes] | (
            {} if takes == "switch" else {"empty": ""} if (command, option) in OUTPUTS else NOWHERE
        )
        turn = [
            name for place, name in enumerate(values) if (place + number) % 3 == 0
        ]  # all of them over three options
        for name, value in ({name: values[name] for name in turn} | SOME.get(option, {})).items():
            yield case(command, option, name, value)
    for command in RIGHT:
        for name, more in {"unknown option": "--nothing", "colour": ESCAPE, "long": LONG, "bytes": BYTES}.items():
            yield Case(
                "words", f"{command}, {name}", (*command.split(), *RIGHT[command], more), (shown(more), "nothing")
            )


def case(command: str, option: str, name: str, value: str) -> Case:
    """Words that are right but for this value; a positional is replaced, of another option the last counts."""
    words = [*command.split(), *RIGHT[command]]
    if not option.startswith("-"):
        words[len(command.split())] = value
    else:
        words += [f"{option}={value}"]
    said = (
        shown(value.rpartition("IN/")[2] or value.replace("IN/", "/in")).rpartition("=")[2][:20] or "''",
        option,
        option.strip("-"),
    )
    twice = ("-p=n_seeds=2",) if option == "-p" and name == "twice" else ()
    codes = (0, 2) if (command, option) in ANSWERED else (2,)
    return Case("options", f"{command} {option}, {name}", (*words, *twice), said, codes=codes)
