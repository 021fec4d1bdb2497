"""The paper's propositions as code: each with its statement, its assumptions and a check that could fail.

Section 4 of Das et al. (ICML 2024) argues: fewer ReLUs, fewer linear pieces; fewer pieces, a worse boundary; a worse
boundary, a loss that differs by group. One statement a module: `approximation` (Prop. 4.1), `pieces` and `networks`
(Prop. 4.2, Fig. 10).
"""
