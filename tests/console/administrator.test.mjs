// Goes through the console as an administrator does, with and without a script.
import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import { after, test } from 'node:test';
import { add, as, closeBrowser, follow, PLAIN, SHORT_URL_BASE, stored, TRUSTED } from './browser.mjs';

after(closeBrowser);

/** Changes many links from the list that is shown, and waits for the end. */
async function changeMany(person, action, count, changed = count) {
  const words = `${count} ${count === 1 ? 'link' : 'links'}`;
  await person.press(action);
  const verb = action === 'Change end' ? 'Change the end of' : action;
  await person.sees(`${verb} ${words}?`);
  await person.press(`${verb} ${words}`);
  await person.page.getByText(`Done. ${changed} ${changed === 1 ? 'link was' : 'links were'} `).waitFor();
  await person.choose('Back to the list');
}

async function show(person, fields) {
  const { page } = person;
  await person.open('all');
  await page.getByText('More filters').click();
  for (const [label, value] of Object.entries(fields)) {
    const field = page.getByLabel(label);
    if (value === true) await field.check();
    else if (await field.evaluate((element) => element.tagName) === 'SELECT') await field.selectOption(value);
    else await field.fill(value);
  }
  await person.press('Show');
}

/** The names in the list, in its order. */
const names = (person) => person.page.locator('tbody th a').allInnerTexts();

async function administer(person, run) {
  const { page } = person;
  const [jane, john] = [`jane-${run}`, `john-${run}`];
  const make = (userId, name, more = {}) => add({ userId, name: `${run} ${name}`, systemName: run, ...more });
  const ids = {
    a: await make(jane, 'A', { fullUrl: `https://a.${run}.example.com/` }),
    b: await make(jane, 'B', { fullUrl: 'https://b.example.com/', expiresAt: Math.floor(Date.now() / 1000) - 60 }),
    c: await make(john, 'C'),
    preview: await add({ userId: john, name: `${run} P`, systemName: 'KMC-PREVIEW' }),
  };
  await person.open('all');
  await person.signIn(`admin-${run}`, true);
  await person.sees('All links', 'administrator');

  // Search, filters and order; all of it stands in the URL.
  const named = (...letters) => letters.map((letter) => `${run} ${letter}`);
  for (const [fields, expected] of [
    [{ Search: `${run} a` }, named('A')],
    [{ Search: run }, named('P', 'C', 'B', 'A')],
    [{ Search: `a.${run}.example.com` }, named('A')],
    [{ Search: ids.c }, named('C')],
    [{ Search: `${SHORT_URL_BASE}/tiny/${ids.b}` }, named('B')],
    [{ Search: run, State: 'Expired' }, named('B')],
    [{ Search: run, State: 'Works', Order: 'Oldest first' }, named('A', 'C', 'P')],
    [{ Search: run, Owner: john, 'Without KMC-PREVIEW': true }, named('C')],
    [{ Search: run, 'Never used': true, Owner: jane }, named('B', 'A')],
    [{ Search: run, Date: 'Works until', 'from UTC': '2020-01-01' }, named('B')],
    [{ Search: run, 'from UTC': '2099-01-01' }, []],
  ]) {
    await show(person, fields);
    assert.deepEqual([...await names(person)].sort(), [...expected].sort(), JSON.stringify(fields));
    await page.goto(page.url());
    assert.equal((await names(person)).length, expected.length, page.url());
  }
  await person.sees('No link fits this filter.');
  await show(person, { Search: run });
  await person.choose('Name');
  assert.deepEqual(await names(person), named('A', 'B', 'C', 'P'));
  await person.choose('Name');
  assert.deepEqual(await names(person), named('P', 'C', 'B', 'A'));

  // Some that are selected.
  await show(person, { Search: run, Owner: jane });
  await page.getByLabel(`Select ${run} A`).check();
  await changeMany(person, 'Switch off', 1);
  assert.deepEqual([await follow(ids.a), (await stored(ids.c)).status], [404, 2]);
  assert.deepEqual((await names(person)).length, 2, 'the filter stays');

  // All that a filter finds.
  await page.getByLabel('that this filter finds').check();
  await page.getByLabel('Works', { exact: true }).selectOption('without end');
  await changeMany(person, 'Change end', 2, 1);
  assert.equal((await stored(ids.b)).expiresAt, undefined);
  await page.getByLabel('that this filter finds').check();
  await changeMany(person, 'Delete', 2);
  assert.equal(await follow(ids.b), 410);
  await show(person, { Search: run, Owner: jane, State: 'Deleted' });
  await page.getByLabel('that this filter finds').check();
  await changeMany(person, 'Restore', 2);
  assert.equal(await follow(ids.b), 'https://b.example.com/');

  // The links of a user.
  await show(person, { Search: run, Owner: john });
  await person.choose(john);
  await person.sees(`Links of ${john}`);
  await person.press('Delete all links');
  await person.sees('Delete 2 links?');
  await person.press('Delete 2 links');
  await page.getByText('Done. 2 links were deleted.').waitFor();
  await person.choose('Jobs');
  await person.sees('Delete 2 links', '2 links were deleted.');
  assert.deepEqual([await follow(ids.c), await follow(ids.preview)], [410, 410]);

  // A link of somebody else.
  await person.open(`links/${ids.a}/edit`);
  await page.getByText('More', { exact: true }).click();
  await page.getByLabel('Owner').fill(john);
  await person.press('Save');
  assert.equal((await stored(ids.a)).userId, john);

  // Export, change a line, import.
  await person.choose('Import / export');
  const begun = page.waitForEvent('download');
  await page.getByRole('button', { name: 'Download CSV' }).click();
  const file = await begun;
  const [head, ...lines] = (await fs.readFile(await file.path(), 'utf8')).split(/\r?\n/);
  const line = lines.find((text) => text.includes(ids.a));
  assert.ok(line, `no ${ids.a} among ${lines.length} lines of ${file.suggestedFilename()}`);
  const changed = [head, line.replace(`https://a.${run}.example.com/`, 'https://imported.example.com/'), ''].join('\n');
  await page.getByLabel('Replace the link with the line').check();
  await page.getByLabel('File').setInputFiles({ name: 'links.csv', mimeType: 'text/csv', buffer: Buffer.from(changed) });
  await person.press('Check the file');
  await page.getByText('Nothing has been imported yet.').waitFor();
  assert.equal((await stored(ids.a)).fullUrl, `https://a.${run}.example.com/`);
  await person.press('Import 1 link');
  await page.getByText('The file is imported.').waitFor();
  assert.equal((await stored(ids.a)).fullUrl, 'https://imported.example.com/');

  await person.choose('Clicks');
  await person.sees('Clicks of all links', 'The last 90 days');
  await person.choose('Health');
  await person.sees('Healthy', 'links');
}

test('an administrator finds and changes links', as(TRUSTED, {}, (person) => administer(person, 'SCRIPTED')));

test('an administrator needs no script',
  as(PLAIN, { javaScriptEnabled: false }, (person) => administer(person, 'PLAIN')));

test('all links of a page are selected at once', as(TRUSTED, {}, async (person) => {
  const ids = [await add({ userId: 'selector' }), await add({ userId: 'selector' })];
  await person.signInByLink('selector');
  await person.page.getByLabel('Select all on this page').check();
  await changeMany(person, 'Switch off', 2);
  for (const id of ids) assert.equal((await stored(id)).status, 1);
}));

test('health keeps itself up to date', as(TRUSTED, {}, async (person) => {
  const { page } = person;
  await page.clock.install();
  await person.signInByLink('operator', true);
  await person.choose('Health');
  await page.getByText('Healthy').waitFor();
  await page.evaluate(() => { document.querySelector('#live').textContent = 'old'; });
  const fetched = page.waitForResponse((response) => response.url().endsWith('/health'));
  await page.clock.runFor(5_000);
  await fetched;
  await page.getByText('Healthy').waitFor();
}));

test('a page is left while it brings itself up to date', as(TRUSTED, {}, async (person) => {
  const { page } = person;
  await page.clock.install();
  await person.signInByLink('operator', true);
  await person.choose('Health');
  await page.route('**/health', () => {});
  const asked = page.waitForRequest((request) => request.url().endsWith('/health'));
  await page.clock.runFor(5_000);
  await asked;
  await person.choose('All links');
}));

test('a user has no pages of administrators', as(TRUSTED, {}, async (person) => {
  person.expectStatus(403);
  await person.signInByLink('just-a-user');
  for (const name of ['All links', 'Clicks', 'Import / export', 'Jobs', 'Audit log', 'Health']) {
    assert.equal(await person.page.getByRole('link', { name, exact: true }).count(), 0);
  }
  for (const path of ['all', 'clicks', 'transfer', 'jobs', 'audit', 'audit.jsonl', 'health', 'users/jane']) {
    await person.open(path);
    await person.sees('administrator');
  }
}));
