// Reads the audit log as an administrator does.
import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import { after, test } from 'node:test';
import { add, adminKs, as, call, closeBrowser, Person, PLAIN, TRUSTED } from './browser.mjs';

after(closeBrowser);

/** The lines of the log that are shown, without the time. */
const entries = async (page) => {
  const rows = await page.getByRole('row').filter({ has: page.getByRole('cell') }).all();
  return Promise.all(rows.map(async (row) => (await row.getByRole('cell').allInnerTexts()).slice(1)));
};

/** Makes a link, changes and deletes it; returns its id. */
async function history(origin, user) {
  const author = await Person.at(origin);
  await author.signInByLink(user);
  await author.choose('New link');
  await author.page.getByLabel('Destination').fill('https://www.example.com/before');
  await author.press('Create');
  const id = author.linkId();
  await author.choose('Edit');
  await author.page.getByLabel('Destination').fill('https://www.example.com/after');
  await author.press('Save');
  await author.press('Delete');
  await author.leave();
  return id;
}

async function readLog(person, run) {
  const { page } = person;
  const user = `author-${run} <b>`;
  const id = await history(person.origin, user);
  const show = async (fields) => {
    await person.choose('Audit log');
    for (const [label, value] of Object.entries(fields)) {
      const field = page.getByLabel(label);
      if (label === 'What') await field.selectOption(value);
      else await field.fill(value);
    }
    await person.press('Show');
    return entries(page);
  };
  await person.signInByLink(`auditor-${run}`, true);

  // The newest first: who, how, what, which link, from what to what.
  const all = await show({ 'By user': user });
  assert.deepEqual(all.map(([, what, link]) => [what, link]), [['Deleted', id], ['Changed', id], ['Made', id]]);
  for (const [who] of all) assert.deepEqual(who.split(/\s*\n\s*/), [user, 'console']);
  assert.match(all[1][3], /fullUrl\s+https:\/\/www\.example\.com\/before\s+https:\/\/www\.example\.com\/after/);
  assert.deepEqual(await show({ 'Link ID': id }), all);
  assert.deepEqual(await show({ 'By user': user, What: 'Changed' }), [all[1]]);
  assert.deepEqual(await show({ 'Link ID': id, What: 'Restored' }), []);
  await person.sees('No entry fits.');

  // The same as a file.
  await show({ 'By user': user });
  const begun = page.waitForEvent('download');
  await page.getByRole('link', { name: 'Export as JSON Lines' }).click();
  const file = await begun;
  assert.equal(file.suggestedFilename(), 'audit.jsonl');
  const lines = (await fs.readFile(await file.path(), 'utf8')).trim().split('\n').map((line) => JSON.parse(line));
  assert.deepEqual(lines.map((line) => [line.action, line.id]).sort(), [['add', id], ['delete', id], ['update', id]]);
  const { old, new: now } = lines.find((line) => line.action === 'update').changes.fullUrl;
  assert.deepEqual([old, now], ['https://www.example.com/before', 'https://www.example.com/after']);

  await person.choose(id);
  await person.sees('This link is deleted.');
}

test('an administrator reads and exports the audit log', as(TRUSTED, {}, (person) => readLog(person, 'scripted')));

test('the audit log needs no script', as(PLAIN, { javaScriptEnabled: false }, (person) => readLog(person, 'plain')));

test('the audit log goes on with older entries', as(TRUSTED, {}, async (person) => {
  const { page } = person;
  const id = await add({ name: 'Version 0' });
  for (let version = 1; version <= 51; version += 1) {
    await call('shortlink_shortlink', 'update', { ks: adminKs, id, 'shortLink[name]': `Version ${version}` });
  }
  await person.signInByLink('archivist', true);
  await person.open(`audit?id=${id}`);
  const newer = await entries(page);
  assert.equal(newer.length, 50);
  assert.match(newer[0][3], /Version 50\s+Version 51/);
  await person.choose('Older entries');
  const older = await entries(page);
  assert.deepEqual(older.map(([, what]) => what), ['Changed', 'Made']);
  assert.match(older[0][3], /Version 0\s+Version 1/);
  assert.equal(await page.getByRole('link', { name: 'Older entries' }).count(), 0);
}));
