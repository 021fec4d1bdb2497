"""What the columns of the committed tables mean, for the Reference."""

COLUMNS = {
    "budget": "share of ReLUs (of pruners: weights) asked for; 1 for the original network",
    "budget_units": "the same as a count of units",
    "kept": "units that were kept",
    "mask_epochs": "epochs of mask learning up to this budget, the last one perhaps in part",
    "mask_steps": "the same as a count of steps",
    "total": "units of the network, ReLUs or weights",
    "configuration": "stages that DeepReDuce has culled, `1,4` or `1,4+thin`; empty for other methods",
    "start": "where DeepReDuce's students started: the original's weights (teacher) or fresh ones",
    "student_epochs": "epochs of their training",
    "seed": "first random number of everything: sample, split, initial weights, batches",
    "split": "train, val, test (the training's imbalance) or test_balanced",
    "group": "number of the group; in data_counts, what groups are",
    "group_name": "the group's name",
    "role": "majority or minority, by training images",
    "n_train": "training images of the group",
    "n": "distinct items the number rests on",
    "accuracy": "share of the group classified rightly, 0 to 1",
    "low": "lower end of the 95 % interval: Wilson for an accuracy, t over seeds for a mean",
    "high": "upper end of it",
    "base_loss": "last training loss of the original network",
    "risk": "mean cross entropy of the group, nats",
    "excess": "excessive loss R(a): the group's risk less that of the original network, nats",
    "margin": "mean gap between the two largest class probabilities, 0 to 1",
    "churn": "share of the group whose predicted class differs from the original network's",
    "gradient_norm": "norm of the gradient of the group's risk with respect to the weights",
    "gradient_norm_alpha": "the same, the gates' alphas counted as parameters",
    "top_eigenvalue": "algebraically largest eigenvalue of the Hessian of the group's risk",
    "absolute_eigenvalue": "the eigenvalue largest in absolute value",
    "distance": "distance of the weights from the original network's",
    "relative_distance": "the same over the norm of the original network's weights",
    "times": "how often each training image of one group was repeated",
    "upsampled_group": "which group that was",
    "what": "what the group is in this comparison",
    "diverged": "whether training left the finite numbers",
    "multiplier": "the group's multiplier lambda at the end of a Lagrangian fine-tuning",
    "code": "digest of the modules that determined the result",
    "data": "data set",
    "network": "network",
    "width": "channels or units of the first stage; 0 is the paper's",
    "init": "how the original network's weights started: torch's own way or kaiming_normal",
    "base": "what is special about the original network: its mitigation or rule, its norm; empty if nothing is",
    "rule": "the rule of gradients that trained the original network, on the schedule of all rules",
    "epsilon": "what a private rule may spend; inf for a rule that is not private",
    "delta": "at which epsilon is counted; 0 for a rule that is not private",
    "guarantee": "whether the guarantee of privacy holds, or which step ended it; empty where there never was one",
    "method": "linearizer or pruner; original for the original network",
    "arm": "original, plain (linearized and fine-tuned), control (all ReLUs, trained as long), or a mitigation",
    "options": "options of the method that differ from its defaults",
    "selection": "which ReLUs were kept: a method, or a method's mask alone",
    "profile": "settings of training, see the page on studies",
    "precision": "of every training, float32 or bf16; what is measured is in float32",
    "teacher": "digest of the trained original network; arms are compared only within one",
    "device": "where it was computed",
    "torch": "version of torch",
    "linfair": "version of linfair",
    "seconds": "what it cost",
    "seconds_base": "seconds of the original network's training, shared by its arms",
    "seconds_path": "seconds of the mask path, shared by the arms of a method; the control's is its own",
    "seconds_finetune": "seconds of fine-tuning at all budgets",
    "seconds_measure": "seconds of measuring, gradient norms and eigenvalues among them",
    "peak_memory": "peak memory in MiB: of the process, or of tensors on a GPU",
    "multipliers": "the group's Lagrange multiplier (or weight) after each epoch, as JSON; rows of train only",
    "switch": "a disagreement between the paper and its released code",
    "version": "whose version: the paper's, the released code's, or this package's where the paper is silent",
    "quantity": "what was measured",
    "who": "over which images or groups",
    "skew": "share of a class's training images that are in its own domain; 0.5 is no bias",
    "removed": "which training images are left out: nothing, the most exposed, or as many at random",
    "at": "the epoch looked at: before that of the least test loss, at it, or the last",
    "attack": "how members are told apart: loss, lira_online, lira_offline or rmia",
    "shadows": "shadow networks that the attack learns from; for loss, the other networks of the rule",
    "auc": "area under the attack's curve; 0.5 is chance",
    "tpr_1": "share of members found where 1 % of non-members are taken for members",
    "tpr_0.001": "share of members found where 0.1 % of non-members are taken for members",
    "tpr_0.01": "the same where 1 % are",
    "targets": "networks that were attacked",
    "smallest": "members in the smallest cell of a target",
    "change": "what was done to the trained networks: which share of what is kept, and whether they were retrained",
    "worst": "accuracy of the class with the least, mean over networks",
    "relus": "ReLUs that the first of the networks keeps",
    "kb": "thousand bytes sent online for one private answer (Delphi)",
    "online_seconds": "seconds of one private answer over 100 Mbit/s and 50 ms (Delphi)",
    "note": "what limits the row",
    "finding": "whether the interval lies above 0.5 and no cell is too small",
    "mean_bias": "mean over classes of how unevenly a class is predicted in the two domains, 0 to 0.5",
    "score": "harmonic mean of accuracy, 1 - (2 AUC - 1) and 1 - 2 mean bias; the choice is ours",
    "shared": "n_test / n_train, by which intervals over seeds that share data are wider",
    "members": "points that a target was trained on",
    "non_members": "points of the same distribution that it was not trained on",
    "epoch": "epochs that were trained",
    "test_loss": "cross entropy on the natural test",
    "label": "what labels are",
    "group_number": "number of the group",
    "label_number": "number of the label",
    "label_name": "the label's name",
    "source": "where the images come from",
    "source_sha256": "checksum of the source's images and fields",
    "skipped": "files left out",
    "key": "page and name of the number",
    "value": "the number",
    "of": "what n counts",
    "unit": "the number's unit",
    "digits": "decimals shown",
    "settings": "parameters of the notebook that noted it",
}

ENDINGS = {
    "_low": "lower end of the 95 % interval of",
    "_high": "upper end of the 95 % interval of",
    "_residual": "norm of H v - lambda v of",
    "_converged": "whether the solver reached its tolerance for",
}
"""What the end of a name adds to the column without it."""

UNKNOWN = "not explained yet"


def meaning(column: str) -> str:
    """What a column means; of a name with a known ending, in terms of the column without it.

    Args:
        column: The column's name.

    Returns:
        The meaning, or `UNKNOWN` if nobody explained it; a test finds those.

    >>> meaning("risk_low")
    'lower end of the 95 % interval of `risk`'
    """
    if column in COLUMNS:
        return COLUMNS[column]
    for ending, words in ENDINGS.items():
        if column.endswith(ending) and column.removesuffix(ending) in COLUMNS:
            return f"{words} `{column.removesuffix(ending)}`"
    return UNKNOWN
