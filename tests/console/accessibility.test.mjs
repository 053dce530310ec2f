// Every page for everybody: axe-core finds nothing serious, in light and dark, on a phone and at 200 % zoom; and
// everything works by keyboard alone. Leaves screenshots for people to look at.
import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import path from 'node:path';
import { after, test } from 'node:test';
import axe from 'axe-core';
import { add, adminKs, as, call, closeBrowser, follow, PLAIN, SCREENSHOTS, SHORT_URL_BASE, TRUSTED } from './browser.mjs';

after(closeBrowser);

/** What strangers may write. */
const HOSTILE = '"><script>alert(1)</script>\u202egpj.exe';
const LONG = 'Antidisestablishmentarianism'.repeat(2);

/** In light and in dark, and in every width. */
const VIEWS = [
  ['wide', 'light', { width: 1280, height: 800 }],
  ['phone', 'dark', { width: 375, height: 740 }],
  // What is left of a window of 1280 × 800 at 200 %.
  ['zoomed', 'light', { width: 640, height: 400 }],
];

async function findings(page) {
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  const bad = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
  return bad.flatMap(({ id, help, nodes }) => nodes.map((node) => `${id}: ${help}: ${node.html}`));
}

/** Looks at a page in every way, and collects what is wrong. */
async function examine(page, name, problems) {
  await page.evaluate(axe.source);
  for (const [view, colorScheme, size] of VIEWS) {
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: path.join(SCREENSHOTS, `${name}-${view}-${colorScheme}.png`), fullPage: true });
    for (const finding of await findings(page)) problems.push(`${name}, ${view}, ${colorScheme}: ${finding}`);
    const excess = await page.evaluate(() => document.scrollingElement.scrollWidth - window.innerWidth);
    if (excess > 0) problems.push(`${name}, ${view}: ${excess} pixels too wide`);
  }
}

/** Links in every state, and with every kind of text. */
async function links(userId) {
  const now = Math.floor(Date.now() / 1000);
  const make = (name, fields = {}) => add({ userId, name, ...fields });
  const ids = {
    works: await make('Lecture 1', { fullUrl: 'https://www.example.com/media/lecture-1?a=1&b=2' }),
    until: await make('Lecture 2', { expiresAt: now + 86_400 }),
    opens: await make('Lecture 3', { startsAt: now + 86_400, expiresAt: now + 2 * 86_400 }),
    expired: await make('Lecture 4', { expiresAt: now - 86_400 }),
    off: await make('Lecture 5', { status: 1 }),
    deleted: await make('Lecture 6'),
    unnamed: await add({ userId }),
    hostile: await make(HOSTILE, { fullUrl: `https://www.k\u0430ltura.com/${encodeURIComponent(HOSTILE)}`, uniqueId: HOSTILE }),
    long: await make(LONG, { fullUrl: `https://${'long.'.repeat(20)}example.com/${'x'.repeat(500)}`, systemName: LONG }),
    hebrew: await make('הרצאה ראשונה', { fullUrl: 'https://www.youtube.com/watch?v=abc' }),
  };
  await call('shortlink_shortlink', 'delete', { ks: adminKs, id: ids.deleted });
  return ids;
}

test('every page is for everybody', as(TRUSTED, {}, async (person) => {
  const { page } = person;
  const problems = [];
  await fs.rm(SCREENSHOTS, { recursive: true, force: true });
  for (const status of [403, 404, 410, 422]) person.expectStatus(status);
  const look = (name) => examine(page, name, problems);

  await person.open('sign-in');
  await look('sign-in');
  await person.signIn('jane', false, 'guessed');
  await look('sign-in-refused');
  await person.open('sign-in/link/used');
  await look('sign-in-link-used');
  await person.open(await person.signInLink('everybody'));
  await look('sign-in-link');
  await person.press('Sign in as everybody');
  await look('my-links-empty');

  const ids = await links('everybody');
  for (const [name, where] of [
    ['my-links', 'links'],
    ['my-links-deleted', 'links?state=deleted'],
    ['undo', `links?deleted=${ids.deleted}`],
    ['link', `links/${ids.works}?done=created`],
    ['link-opens', `links/${ids.opens}`],
    ['link-expired', `links/${ids.expired}`],
    ['link-off', `links/${ids.off}`],
    ['link-deleted', `links/${ids.deleted}`],
    ['link-hostile', `links/${ids.hostile}`],
    ['link-long', `links/${ids.long}`],
    ['link-hebrew', `links/${ids.hebrew}`],
    ['edit-hostile', `links/${ids.hostile}/edit`],
    ['new-link', 'links/new'],
    ['not-found', 'nowhere'],
  ]) {
    await person.open(where);
    await look(name);
  }
  await person.open('links/new');
  await page.getByLabel('Destination').fill('ftp://www.example.com/');
  await page.getByLabel('For a time').check();
  await page.getByLabel('Works from').fill('2027-07-15T09:00');
  await page.getByLabel('Works until').fill('2027-01-15T09:00');
  await page.getByText('More', { exact: true }).click();
  await person.press('Create');
  await look('new-link-refused');
  await person.press('Sign out');

  await person.signIn('admin', true);
  for (const [name, where] of [
    ['all-links', 'all'],
    ['all-links-filtered', 'all?owner=everybody&unused=1&state=works'],
    ['all-links-none', 'all?q=none-has-this-name'],
    ['clicks', 'clicks'],
    ['user', 'users/everybody'],
    ['health', 'health'],
    ['import-and-export', 'transfer'],
  ]) {
    await person.open(where);
    await look(name);
  }
  await page.getByLabel('File').setInputFiles(importFile('everybody'));
  await person.press('Check the file');
  await page.getByText('Nothing has been imported yet.').waitFor();
  await look('import-checked');
  await person.open('all?owner=everybody');
  await page.getByLabel('that this filter finds').check();
  await person.press('Switch off');
  await look('change-many');
  await person.go(() => page.getByRole('button', { name: /^Switch off \d+ links$/ }).click());
  await page.getByText('Done: ').waitFor();
  await look('change-many-done');
  assert.deepEqual(problems, []);
}));

/** A file of which one line is refused. */
function importFile(userId) {
  const lines = [['id', 'systemName', 'fullUrl', 'name', 'userId'],
    ['abcdef01', 'IMPORTED', 'https://www.example.com/1', HOSTILE, userId],
    ['abcdef02', 'IMPORTED', 'javascript:alert(1)', HOSTILE, userId]];
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const text = lines.map((line) => line.map(quoted).join(',')).join('\n');
  return { name: '"><b>links\u202e.csv', mimeType: 'text/csv', buffer: Buffer.from(text) };
}

/** Moves to the next thing by keyboard, which must show where one is. */
async function tab(page) {
  await page.keyboard.press('Tab');
  const state = await page.evaluate(() => {
    const element = document.activeElement;
    if (element === document.body) return null;
    const style = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    return {
      html: element.outerHTML.slice(0, 120),
      isMarked: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
      isInSight: box.right > 0 && box.bottom > 0 && box.left < innerWidth && box.top < innerHeight,
    };
  });
  if (state) assert.deepEqual([state.isMarked, state.isInSight], [true, true], `the focus does not show: ${state.html}`);
}

/** Moves on until a thing has the focus. */
async function tabTo(page, locator) {
  const passed = [];
  for (let steps = 0; steps < 40; steps += 1) {
    await tab(page);
    if (await locator.evaluate((element) => element === document.activeElement)) return;
    passed.push(await page.evaluate(() => document.activeElement.outerHTML.slice(0, 80)));
  }
  assert.fail(`no way to ${locator} by keyboard:\n${passed.join('\n')}`);
}

test('everything works by keyboard alone', as(PLAIN, {}, async (person) => {
  const { page } = person;
  const button = (name) => page.getByRole('button', { name, exact: true });
  const link = (name) => page.getByRole('link', { name, exact: true }).first();
  const pressed = (key) => person.go(() => page.keyboard.press(key));
  await person.open(await person.signInLink('keyboard'));
  assert.equal(await button('Sign in as keyboard').evaluate((element) => element === document.activeElement), true);
  await pressed('Enter');

  // The first stop leads past the navigation.
  await tab(page);
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to content');
  await page.keyboard.press('Enter');
  await tabTo(page, link('Make your first link'));
  await pressed('Enter');

  // A new link begins where one types; an error takes one to its field.
  assert.equal(await page.getByLabel('Destination').evaluate((element) => element === document.activeElement), true);
  await page.keyboard.type('ftp://www.example.com/');
  await tabTo(page, page.getByLabel('Name').first());
  await page.keyboard.type('By keyboard');
  await tabTo(page, page.getByLabel('Always'));
  await page.keyboard.press('ArrowDown');
  assert.equal(await page.getByLabel('For a time').isChecked(), true);
  await tabTo(page, page.getByLabel('or for'));
  await page.keyboard.type('1 day');
  person.expectStatus(422);
  await tabTo(page, button('Create'));
  await pressed('Space');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'errors');
  await tabTo(page, link('Destination'));
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'full_url');
  await page.keyboard.press('Control+A');
  await page.keyboard.type('https://www.example.com/keyboard');
  await pressed('Enter');
  await person.sees('Link created.', 'By keyboard', 'Works until');
  const id = person.linkId();

  await tabTo(page, button('Copy'));
  await page.keyboard.press('Enter');
  await button('Copied ✓').waitFor();
  assert.equal(await button('Copied ✓').evaluate((element) => element === document.activeElement), true);
  await tabTo(page, button('Switch off'));
  await pressed('Enter');
  assert.equal(await follow(id), 404);
  await tabTo(page, button('Switch on'));
  await pressed('Space');
  await tabTo(page, link('Edit'));
  await pressed('Enter');
  await tabTo(page, page.getByText('More', { exact: true }));
  await page.keyboard.press('Enter');
  await tabTo(page, page.getByLabel('System name'));
  await page.keyboard.press('Control+A');
  await page.keyboard.type('KEYBOARD');
  await pressed('Enter');
  await person.sees('The change takes effect at once.', 'KEYBOARD');
  await tabTo(page, button('Delete'));
  await pressed('Enter');
  assert.ok(await follow(id) >= 400);
  await tabTo(page, button('Undo'));
  await pressed('Enter');
  assert.equal(await follow(id), 'https://www.example.com/keyboard');
  await tabTo(page, link('My links'));
  await pressed('Enter');
  await person.sees(`${SHORT_URL_BASE}/tiny/${id}`);
  await tabTo(page, button('Sign out'));
  await pressed('Enter');
  await person.sees('Secret');
}));
