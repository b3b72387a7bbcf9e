// Checks of a page's layout and colours, each of which returns a list of what is wrong.

function describe(e) {
  return `${e.tagName}.${e.getAttribute("class") ?? ""}#${e.id} ${e.textContent.trim().slice(0, 30)}`;
}

function overlaps() {
  const found = [];
  const check = (elements, slack) => {
    const boxes = elements.map((e) => [e, e.getBoundingClientRect()]).filter(([, b]) => b.width && b.height);
    boxes.forEach(([first, a], i) => boxes.slice(i + 1).forEach(([second, b]) => {
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > slack && y > slack) found.push(`${describe(first)} overlaps ${describe(second)}`);
    }));
  };
  const isInFlow = (e) => (
    e.checkVisibility() && !["absolute", "fixed", "sticky"].includes(getComputedStyle(e).position)
  );
  const parents = "body, header, main, section, figure, .figures, form, ul, nav, #sliders, #finder";
  for (const parent of document.querySelectorAll(parents)) check([...parent.children].filter(isInFlow), 0.5);
  for (const svg of document.querySelectorAll(".plot svg")) {
    const isShown = (text) => text.textContent && getComputedStyle(text).opacity !== "0";
    const texts = [...svg.querySelectorAll("text")].filter(isShown);
    check(texts, 1);
    const frame = svg.getBoundingClientRect();
    for (const text of texts) {
      const box = text.getBoundingClientRect();
      const isInside = box.left > frame.left - 1 && box.right < frame.right + 1 && box.bottom < frame.bottom + 1;
      if (!isInside) found.push(`${describe(text)} is cut off`);
    }
  }
  const width = document.documentElement.clientWidth;
  for (const e of document.querySelectorAll("body *")) {
    const scrolls = e.parentElement.closest(".scroll, pre, .plot, #legend") || e.matches(".skip");
    if (scrolls || !e.checkVisibility()) continue;
    if (e.getBoundingClientRect().right > width + 0.5) found.push(`${describe(e)} overflows`);
  }
  for (const table of document.querySelectorAll("section > .scroll")) {
    if (width >= 800 && table.scrollWidth > table.clientWidth) found.push(`${table.ariaLabel} is cut off`);
  }
  if (document.documentElement.scrollWidth > width) found.push("the page scrolls sideways");
  return found;
}

// Texts whose contrast with their background is below 4.5, the limit of WCAG 2.1, level AA.
function lowContrasts() {
  const parse = (colour) => (colour.match(/[\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const blend = ([r, g, b, a = 1], paper) => [r, g, b].map((c, i) => c * a + paper[i] * (1 - a));
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = (rgb) => rgb.reduce((sum, c, i) => sum + linear(c / 255) * [0.2126, 0.7152, 0.0722][i], 0);
  // A label of a cell stands on the last rectangle that contains its middle.
  const cell = (text) => {
    const {left, right, top, bottom} = text.getBoundingClientRect();
    const [x, y] = [(left + right) / 2, (top + bottom) / 2];
    const contains = ({left, right, top, bottom}) => left <= x && x <= right && top <= y && y <= bottom;
    return [...text.ownerSVGElement.querySelectorAll(".mark-rect path")]
      .filter((path) => contains(path.getBoundingClientRect()) && getComputedStyle(path).opacity > 0.5)
      .map((path) => parse(getComputedStyle(path).fill))
      .filter((colour) => (colour[3] ?? 1) > 0.5)
      .at(-1);
  };
  const background = (e) => {
    const colour = e.ownerSVGElement && cell(e);
    if (colour) return colour.slice(0, 3);
    for (let at = e; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if ((colour[3] ?? 1) > 0.99) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const e = node.parentElement;
    if (!node.textContent.trim() || e.closest("script, style, .skip") || !e.checkVisibility()) continue;
    const style = getComputedStyle(e);
    const paper = background(e);
    const ink = blend(parse(e.closest(".plot svg") ? style.fill : style.color), paper);
    const [dark, light] = [luminance(ink), luminance(paper)].sort((a, b) => a - b);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${describe(e)}`);
  }
  return found;
}
