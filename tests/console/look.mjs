// Looks at a page as everybody sees it, and leaves screenshots for people to look at.
import path from 'node:path';
import axe from 'axe-core';
import { SCREENSHOTS } from './browser.mjs';

/** In light and in dark, and in every width. */
const VIEWS = [
  ['wide', 'light', { width: 1280, height: 800 }],
  ['wide', 'dark', { width: 1280, height: 800 }],
  ['phone', 'dark', { width: 375, height: 740 }],
  // What is left of a window of 1280 × 800 at 200 %.
  ['zoomed', 'light', { width: 640, height: 400 }],
];

/** A context in which a pixel of the page is two by two of the screen, as at 200 %. */
export const SHARP = { deviceScaleFactor: 2 };

async function findings(page) {
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  const bad = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
  return bad.flatMap(({ id, help, nodes }) => nodes.map((node) => `${id}: ${help}: ${node.html}`));
}

/** What one cannot see whole, and cannot scroll to. Runs in the page. */
function cutOff() {
  const isVisible = (element) => {
    const { width, height, right, bottom } = element.getBoundingClientRect();
    // What is for screen readers alone is a pixel wide, or beyond the beginning of the page.
    return element.checkVisibility({ visibilityProperty: true }) && width > 1 && height > 1 && right > 0 && bottom > -scrollY;
  };
  const scrolls = (element) => element && (/auto|scroll/.test(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
  const cut = [];
  for (const element of document.body.querySelectorAll('*')) {
    if (element.closest('svg, select, datalist') || !isVisible(element)) continue;
    const { left, right } = element.getBoundingClientRect();
    if ((left < 0 || right > innerWidth + 1) && !scrolls(element.parentElement)) cut.push(['beyond the edge', element]);
    const style = getComputedStyle(element);
    const hides = (overflow) => /hidden|clip/.test(overflow);
    const isFull = hides(style.overflowX) && element.scrollWidth > element.clientWidth + 1
      || hides(style.overflowY) && element.scrollHeight > element.clientHeight + 1;
    // A text that ends in dots says all of it when it is pointed at.
    if (isFull && !element.matches('input') && !element.title) cut.push(['cut off', element]);
  }
  return cut.map(([what, element]) => `${what}: ${element.outerHTML.slice(0, 160)}`);
}

/** Looks at a page in every way, and collects what is wrong. */
export async function examine(page, name, problems) {
  await page.evaluate(axe.source);
  for (const [view, colorScheme, size] of VIEWS) {
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: path.join(SCREENSHOTS, `${name}-${view}-${colorScheme}.png`), fullPage: true });
    const wrong = [...await findings(page), ...await page.evaluate(cutOff)];
    const excess = await page.evaluate(() => document.scrollingElement.scrollWidth - window.innerWidth);
    if (excess > 0) wrong.push(`${excess} pixels too wide`);
    problems.push(...wrong.map((what) => `${name}, ${view}, ${colorScheme}: ${what}`));
  }
}
