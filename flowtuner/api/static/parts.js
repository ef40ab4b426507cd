// Small pieces of the page. Text from runs is only ever set as text.

export const find = (id) => document.getElementById(id);

export function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

export function number(value, digits = 4) {
  return typeof value === "number" ? Number(value.toPrecision(digits)).toString() : "";
}

export function duration(seconds) {
  if (typeof seconds !== "number") return "";
  const minutes = Math.round(seconds / 60);
  if (minutes < 1) return `${Math.round(seconds)} s`;
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [800, 240];
const SMOOTHING = 0.9;

// The loss as it was, and smoothed; `points` are [step, loss].
export function drawCurve(svg, points) {
  const clean = points.filter(([, loss]) => Number.isFinite(loss));
  svg.replaceChildren();
  if (!clean.length) return "";
  const losses = clean.map(([, loss]) => loss);
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  const [first, last] = [clean[0][0], clean.at(-1)[0]];
  const x = (step) => ((step - first) / (last - first || 1)) * WIDTH;
  const y = (loss) => HEIGHT - 6 - ((loss - low) / (high - low || 1)) * (HEIGHT - 12);
  const path = (kind, pairs) => {
    const element = document.createElementNS(SVG, "path");
    element.setAttribute("class", kind);
    element.setAttribute("d", pairs.map(([a, b], place) => `${place ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join(""));
    svg.append(element);
  };
  path("raw", clean);
  let mean = losses[0];
  path("smooth", clean.map(([step, loss]) => [step, (mean = SMOOTHING * mean + (1 - SMOOTHING) * loss)]));
  return `steps ${first} to ${last}, loss ${number(low)} to ${number(high)}, now ${number(losses.at(-1))}`;
}
