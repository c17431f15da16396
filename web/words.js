// What the page says of an answer, for people who do not know the model.

const SPACE = "\u00a0"; // does not break

/** "flagged", "not flagged", or why there is no call: "unlike" the training images, or "nothing found". */
export function callOf({ threshold, rare, leastFound }, { probability, typicality, found }) {
  if (typicality < Math.fround(rare)) return "unlike";
  if (found < leastFound) return "nothing found";
  return probability >= threshold ? "flagged" : "not flagged";
}

export const CALLS = { // as predict.py says them
  flagged: "flagged for review",
  "not flagged": "not flagged",
  unlike: "unlike the training images",
  "nothing found": "no lesion found",
};
export const isCall = (call) => call === "flagged" || call === "not flagged";

/** The share of malignant images that a model's probabilities assume; undefined where its file does not say. */
export function ownShare({ chosenOn: { n, malignant, prevalence } }) {
  return malignant > 0 && malignant < n ? (prevalence ?? malignant / n) : undefined;
}

/** A probability where another share of images is malignant: the odds are multiplied by the ratio of the odds of both
 *  shares (Elkan, IJCAI 2001). */
export function corrected(probability, from, to) {
  if (from === undefined) return probability;
  const odds = (share) => share / (1 - share);
  const shifted = (odds(probability) * odds(to)) / odds(from);
  return Number.isFinite(shifted) ? shifted / (1 + shifted) : 1; // of a probability of 1
}

export function percent(probability) {
  if (probability < 0.01) return `less than 1${SPACE}%`;
  if (probability > 0.99) return `more than 99${SPACE}%`;
  return `${Math.round(100 * probability)}${SPACE}%`;
}

/** Small shares are counted in 1000, others in 100. */
const baseOf = (share) => (share > 0 && share < 0.01 ? 1000 : 100);

/** “30 of 100”; of small shares “7 of 1000”. */
const outOf = (share) => `${Math.round(baseOf(share) * share)} of ${baseOf(share)}`;

export function headline(call) {
  return { flagged: "Flagged for review.", "not flagged": "Not flagged." }[call] ?? "No answer.";
}

/** The sentence after the headline. share: of the patients who have cancer; undefined where it is not known. */
export function estimate(call, probability, share) {
  if (call === "unlike") {
    return "This image is unlike the images that the model learned from. Check that it is a single breast-ultrasound " +
      "image without text over the tissue.";
  }
  if (call === "nothing found") {
    return "The model found no lesion in this image. That does not mean that there is none. If you see one, mark it in " +
      "the picture: click on it, or draw a rectangle around it.";
  }
  const among = share === undefined
    ? "if cancer is as common among your patients as in the model’s own images"
    : `if about ${outOf(share)} of your patients have cancer`;
  return `Estimated probability of malignancy ${percent(probability)}, ${among}.`;
}

export function meaning(call) {
  if (call === "flagged") {
    return "Flagged means: someone trained in breast ultrasound should look at this image again. It does not mean cancer.";
  }
  return call === "not flagged" ? "Not flagged does not mean that there is no cancer." : "";
}

/** A share of images that went wrong, with its interval. right: the share that went well. */
function wrong(right, interval) {
  const ends = interval.map((rate) => Math.round(baseOf(1 - right) * (1 - rate))).reverse().join(" to ");
  const limits = interval.includes(null) ? "" : ` (95${SPACE}% interval ${ends})`;
  return [outOf(1 - right), limits];
}

/** How often the model is wrong on images that chose nothing. */
export function rates({ achieved: [all, ...each], chosenOn }) {
  if (!all || all.recall === null || all.specificity === null) {
    return "How often the model is wrong at a hospital that it has not seen is not known. It can miss more cancers there.";
  }
  const [missed, missedLimits] = wrong(all.recall, all.recall_ci95);
  const [alarms, alarmLimits] = wrong(all.specificity, all.specificity_ci95);
  const fitted = chosenOn.on === "calibration";
  const learned = fitted ? "At the hospital that the file was fitted to" : "At the hospitals that it learned from";
  const where = chosenOn.hospital_left_out ? "At hospitals that it had not seen" : learned;
  const [malignant, other] = chosenOn.unit === "patient" ? ["patients with cancer", "other patients"] : ["malignant images", "other images"];
  const worst = Math.min(...each.map(({ recall }) => recall ?? 1));
  const last = chosenOn.hospital_left_out
    ? each.length > 1 && `At the worst of these ${each.length} hospitals it missed ${outOf(1 - worst)}.`
    : `At ${fitted ? "another hospital" : "a hospital that it has not seen"}, it can be wrong more often.`;
  const sentences = [
    `${where}, the model missed ${missed} ${malignant}${missedLimits}.`,
    `It flagged ${alarms} ${other} by mistake${alarmLimits}.`,
    last,
  ];
  return sentences.filter(Boolean).join(" ");
}

export const isSynthetic = ({ props }) => props.dataset.startsWith("PHANTOM");

/** Why an answer means nothing, or "". generated: whether the image is a phantom. */
export function caution(model, generated) {
  if (generated === isSynthetic(model)) return "";
  if (generated) return "This picture is a phantom: generated, not ultrasound. The answer means nothing.";
  return "The model has only seen generated pictures. Its answer means nothing for ultrasound.";
}

/** What of the picture was looked at. share: of the picture that lies in the window. */
export function looked({ view, size }, share) {
  const rest = percent(1 - share);
  if (share > 0.999) return `The model looked at the whole picture, at ${size}×${size} points.`;
  if (view !== "lesion") return `The model did not look outside the square: ${rest} of the picture.`;
  return `The model looked closely at the square, and at the whole picture only coarsely: ${rest} of it lies outside the square.`;
}

const HOSPITALS = { breast: "BrEaST (Poland)", busbra: "BUS-BRA (Brazil)", busi: "BUSI (Egypt)" };

/** The data sets of a model, by the names that people know. */
const hospitals = (dataset) => dataset.split(" + ").map((name) => HOSPITALS[name] ?? name).join(", ");

const LOOKS_AT = {
  square: "the square in the middle of an image",
  frame: "the whole image",
  lesion: "the surroundings of a lesion, which it finds or you mark",
};

export function about({ name, props, view, size }) {
  return `${name}: ${props.intended_use}. It looks at ${LOOKS_AT[view]}, at ${size}×${size} points. It learned from ${hospitals(props.dataset)}.`;
}
