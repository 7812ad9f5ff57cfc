// The brand's colour, made readable: text on it, and itself as text on a light or a dark ground (WCAG 2.2, 1.4.3).

const LEAST_CONTRAST = 4.6; // AA asks for 4.5; rounding to 8 bits takes a little away

/** Return the custom properties that follow from an accent colour (#rgb or #rrggbb) on the page's ground. */
export function palette(accent, isDark) {
  const colour = parse(accent) ?? parse("#4f46e5");
  const ground = parse(isDark ? "#1b1e29" : "#ffffff");
  const black = [16, 18, 27];
  const white = [255, 255, 255];
  const onAccent = contrast(colour, white) >= LEAST_CONTRAST || contrast(colour, white) >= contrast(colour, black) ? white : black;
  const fill = mixUntil(colour, onAccent === white ? [0, 0, 0] : white, (mixed) => contrast(mixed, onAccent) >= LEAST_CONTRAST);
  const soft = mix(ground, fill, isDark ? 0.24 : 0.09);
  const toText = isDark ? white : [0, 0, 0];
  const link = mixUntil(fill, toText, (mixed) => [ground, soft].every((back) => contrast(mixed, back) >= LEAST_CONTRAST));
  return { "--accent": hex(fill), "--accent-text": hex(onAccent), "--accent-soft": hex(soft), "--link": hex(link) };
}

/** Return [red, green, blue] of #rgb or #rrggbb; null where the text is none. */
export function parse(text) {
  const match = /^#([\da-f]{3}|[\da-f]{6})$/i.exec(String(text ?? "").trim());
  if (!match) return null;
  const digits = match[1].length === 3 ? match[1].replace(/./g, "$&$&") : match[1];
  return [0, 2, 4].map((at) => parseInt(digits.slice(at, at + 2), 16));
}

/** Return WCAG's contrast of two colours, 1 to 21. */
export function contrast(one, other) {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

function luminance(colour) {
  const [red, green, blue] = colour.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function mixUntil(colour, target, isEnough) {
  let step = 0;
  while (step < 25 && !isEnough(mix(colour, target, step / 25))) step += 1;
  return mix(colour, target, step / 25);
}

function mix(one, other, share) {
  return one.map((value, index) => Math.round(value + (other[index] - value) * share));
}

function hex(colour) {
  return `#${colour.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}
