// Three guided stories of four scenes. A scene is a state of the page and a sentence about what it shows, in its numbers.

const cut = (how, mode = "tune", steps = 0) => ({ how, keep: 16, draw: 0, bits: 0, mode, mu: 10, steps });
const base = { boundary: "wave", share: 10, seed: 2, painted: [], steps: 400, rounds: [] };

/** `text` takes each group's accuracy now, as text. */
export const STORIES = [
  {
    title: "Remove the right ReLUs",
    scenes: [
      {
        state: base,
        text: (now) => `All 32 ReLUs are in. Few points are orange, and the network is right on ${now.minority} of them. Next: take 16 away at random.`,
      },
      {
        state: { ...base, rounds: [cut("random")] },
        text: (now) => `The boundary has lost bends that it needed. The minority falls to ${now.minority}. Next: train the weights again.`,
      },
      {
        state: { ...base, rounds: [cut("random", "tune", 200)] },
        text: (now) => `Fine-tuning brings the majority back to ${now.majority}. The minority stays at ${now.minority}: it pays for the ReLUs. Next: other 16.`,
      },
      {
        state: { ...base, rounds: [cut("importance", "tune", 200)] },
        text: (now) => `These 16 are the ones that the loss feels most. With them the minority is at ${now.minority}. It matters which ReLUs go, not only how many.`,
      },
    ],
  },
  {
    title: "Make the minority larger",
    scenes: [
      {
        state: { ...base, rounds: [cut("random", "tune", 200)] },
        text: (now) => `Ten per cent of the points are the minority's. With 16 random ReLUs it is at ${now.minority}, the majority at ${now.majority}. Next: a minority of 25 %.`,
      },
      {
        state: { ...base, share: 25, rounds: [cut("random", "tune", 200)] },
        text: (now) => `The curve and the ReLUs are the same, only the shares differ. The minority is at ${now.minority} now. Next: as many points of each group.`,
      },
      {
        state: { ...base, share: 50, rounds: [cut("random", "tune", 200)] },
        text: (now) => `With equal groups both lose alike: ${now.majority} and ${now.minority}. It is the small number that makes a group pay. Next: 2 %.`,
      },
      {
        state: { ...base, share: 2, rounds: [cut("random", "tune", 200)] },
        text: (now) => `Twenty points are too few to hold a bend. The minority falls to ${now.minority}, and the majority is at ${now.majority}.`,
      },
    ],
  },
  {
    title: "Repair it",
    scenes: [
      {
        state: base,
        text: (now) => `This network has all its ReLUs: majority ${now.majority}, minority ${now.minority}. Next: take 16 away at random and fine-tune.`,
      },
      {
        state: { ...base, rounds: [cut("random", "tune", 200)] },
        text: (now) => `The minority is left at ${now.minority}. Next: fine-tune with the penalty of the paper's Algorithm 1 instead.`,
      },
      {
        state: { ...base, rounds: [cut("random", "repair", 200)] },
        text: (now) => `The penalty grows while a group's loss is off the mean. The minority rises to ${now.minority}, the majority pays: ${now.majority}. Next: both cures.`,
      },
      {
        state: { ...base, rounds: [cut("importance", "repair", 200)] },
        text: (now) => `With the right 16 ReLUs the repair costs little: majority ${now.majority}, minority ${now.minority}. Choosing well comes first.`,
      },
    ],
  },
];
