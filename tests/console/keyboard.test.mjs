// Goes through the console by keyboard alone, as a user and as an administrator.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { add, ADMIN_SECRET, as, closeBrowser, follow, PARTNER, PLAIN, SHORT_URL_BASE } from './browser.mjs';

after(closeBrowser);

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
  for (let steps = 0; steps < 60; steps += 1) {
    await tab(page);
    if (await locator.evaluate((element) => element === document.activeElement)) return;
    passed.push(await page.evaluate(() => document.activeElement.outerHTML.slice(0, 80)));
  }
  assert.fail(`no way to ${locator} by keyboard:\n${passed.join('\n')}`);
}

test('a person makes, shares and changes a link by keyboard alone', as(PLAIN, {}, async (person) => {
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

test('an administrator changes many links by keyboard alone', as(PLAIN, {}, async (person) => {
  const { page } = person;
  const button = (name) => page.getByRole('button', { name, exact: true });
  const pressed = (key) => person.go(() => page.keyboard.press(key));
  const ids = [];
  for (const name of ['A', 'B', 'C']) ids.push(await add({ name: `KEYS ${name}`, systemName: 'KEYS', userId: 'keys' }));
  const works = async () => (await Promise.all(ids.map(follow))).map((where) => where === 'https://www.example.com/');

  // With a secret, to the page that was asked for.
  await person.open('all');
  for (const [label, text] of [['Partner ID', PARTNER], ['User', 'keyboard-admin'], ['Secret', ADMIN_SECRET]]) {
    await tabTo(page, page.getByLabel(label, { exact: true }));
    await page.keyboard.type(text);
  }
  await pressed('Enter');
  await tabTo(page, page.getByLabel('Search'));
  await page.keyboard.type('KEYS');
  await pressed('Enter');
  await person.sees('3 links', 'KEYS A', 'KEYS B', 'KEYS C');

  // One that is selected.
  await tabTo(page, page.getByLabel('Select KEYS B'));
  await page.keyboard.press('Space');
  await tabTo(page, button('Switch off'));
  await pressed('Enter');
  await person.sees('Switch off 1 link?');
  await tabTo(page, button('Switch off 1 link'));
  await pressed('Enter');
  await page.getByText('Done. 1 link was switched off.').waitFor();
  assert.deepEqual(await works(), [true, false, true]);
  await tabTo(page, page.getByRole('link', { name: 'Back to the list' }));
  await pressed('Enter');

  // All that the filter finds, after thinking again.
  await tabTo(page, page.getByLabel('The selected links'));
  await page.keyboard.press('ArrowDown');
  assert.equal(await page.getByLabel('All 3 links that this filter finds').isChecked(), true);
  await tabTo(page, button('Delete'));
  await pressed('Space');
  await person.sees('Delete 3 links?');
  await tabTo(page, page.getByRole('link', { name: 'Cancel' }));
  await pressed('Enter');
  assert.deepEqual(await works(), [true, false, true]);
  await tabTo(page, page.getByLabel('The selected links'));
  await page.keyboard.press('ArrowDown');
  await tabTo(page, button('Delete'));
  await pressed('Enter');
  await tabTo(page, button('Delete 3 links'));
  await pressed('Enter');
  await page.getByText('Done. 3 links were deleted.').waitFor();
  assert.deepEqual(await works(), [false, false, false]);
}));
