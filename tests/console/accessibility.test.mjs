// Every page for everybody: axe-core finds nothing serious, in light and dark, on a phone and at 200 % zoom.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { add, adminKs, as, call, closeBrowser, TRUSTED } from './browser.mjs';
import { examine, SHARP } from './look.mjs';

after(closeBrowser);

/** What strangers may write. */
const HOSTILE = '"><script>alert(1)</script>\u202egpj.exe';
const LONG = 'Antidisestablishmentarianism'.repeat(2);

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

test('every page is for everybody', as(TRUSTED, SHARP, async (person) => {
  const { page } = person;
  const problems = [];
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
    ['audit-log', 'audit'],
    ['audit-log-of-a-link', `audit?id=${ids.hostile}`],
    ['audit-log-none', 'audit?user=nobody-at-all'],
  ]) {
    await person.open(where);
    await look(name);
  }
  await person.open('transfer');
  await page.getByLabel('File').setInputFiles(importFile('everybody'));
  await person.press('Check the file');
  await page.getByText('Nothing has been imported yet.').waitFor();
  await look('import-checked');
  await person.press('Leave out 1 line, import 1 link');
  await page.getByText('The file is imported.').waitFor();
  await look('import-done');
  await person.open('transfer');
  await page.getByLabel('File').setInputFiles({ name: 'links.csv', mimeType: 'text/csv', buffer: Buffer.from(`${HOSTILE},id`) });
  await person.press('Check the file');
  await page.getByText('Not imported: ').waitFor();
  await look('import-failed');
  await person.open('all?owner=everybody');
  await page.getByLabel('that this filter finds').check();
  await person.press('Switch off');
  await look('change-many');
  await person.go(() => page.getByRole('button', { name: /^Switch off \d+ links$/ }).click());
  await page.getByText('Done. ').waitFor();
  await look('change-many-done');
  await person.open('jobs');
  await look('jobs');
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
