// What strangers write shows as text on every page that shows it, and hosts that look alike are told apart.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { add, as, closeBrowser, TRUSTED } from './browser.mjs';

after(closeBrowser);

/** What is written, and a part of it that shows as it is. */
const TEXTS = [
  ['"><img src=x onerror=alert(1)><script>alert(2)</script>', '"><img src=x onerror=alert(1)><script>alert(2)</script>'],
  ["' autofocus onfocus='alert(1)' x=\"</title></h1><h2>", "' autofocus onfocus='alert(1)' x=\"</title></h1><h2>"],
  ['{{ 7*191 }}${7*191}&lt;&amp;<!--', '{{ 7*191 }}${7*191}&lt;&amp;<!--'],
  // Turns what follows: it would look like "payexe.jpg".
  ['pay\u202egpj.exe\u2066\u200f', 'gpj.exe'],
];

/** Nothing of a stranger is an element, an attribute or a mark that turns letters around. */
async function isText(page, where, expected) {
  const found = await page.evaluate(() => ({
    text: document.body.innerText,
    title: document.title,
    fields: [...document.querySelectorAll('input')].map((input) => input.value).join('\n'),
    elements: document.querySelectorAll('img[src=x], script:not([src]), h2:empty, [onerror], [onfocus], [onmouseover]').length,
  }));
  assert.equal(found.elements, 0, `${where}: an element of a stranger`);
  assert.doesNotMatch(found.text + found.title, /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/u, `${where}: letters are turned`);
  assert.doesNotMatch(found.text, /1337/, where);
  if (expected) assert.ok((found.text + found.fields).includes(expected), `${where}: no ${expected} in:\n${found.text}`);
}

for (const [written, shown] of TEXTS) {
  test(`${JSON.stringify(written)} is text everywhere`, as(TRUSTED, {}, async (person) => {
    const { page } = person;
    for (const status of [400, 403, 404, 410, 422]) person.expectStatus(status);
    const fields = { name: written, systemName: written, userId: written, uniqueId: written.slice(0, 60) };
    const id = await add({ ...fields, fullUrl: `https://www.example.com/${written}` });
    const encoded = encodeURIComponent(written);
    const look = async (path, expected) => {
      await person.open(path);
      await isText(page, path, expected);
    };

    await look(`sign-in?next=${encoded}`);
    await person.signIn(written, false, 'wrong');
    await isText(page, 'sign-in, refused', shown);
    await person.open(await person.signInLink(written, true));
    await isText(page, 'sign-in link', shown);
    await person.go(() => page.getByRole('button', { name: /^Sign in as/ }).click());
    for (const path of ['links', 'all', `links/${id}`, `links/${id}/edit`, `audit?id=${id}`, `all?q=${encoded}`,
      `all?owner=${encoded}`, `users?user=${encoded}`, `audit?user=${encoded}`, 'clicks', 'transfer']) await look(path, shown);
    for (const path of [`links/${encoded}`, encoded, `links?deleted=${encoded}&undo=${encoded}&done=${encoded}`,
      `all?state=${encoded}&from=${encoded}&order=${encoded}&page=${encoded}`, `audit?action=${encoded}&before=${encoded}`,
      `sign-in/link/${encoded}`]) await look(path);

    // In forms that are refused, and in questions.
    await person.open('links/new');
    await page.getByLabel('Destination').fill('https://www.example.com/');
    await page.getByLabel('Destination').evaluate((input, text) => { input.type = 'text'; input.value = text; }, written);
    await page.getByLabel('Name').first().fill(written);
    await person.press('Create');
    await isText(page, 'new, refused', shown);
    await person.open(`all?owner=${encoded}`);
    await page.getByLabel('that this filter finds').check();
    await person.press('Switch off');
    await isText(page, 'change several', shown);
    await person.go(() => page.getByRole('button', { name: /^Switch off \d/ }).click());
    await page.getByText('Done. ').waitFor();
    await isText(page, 'change several, done', shown);

    // In a file: its name, a line that is refused, a link that is made.
    await person.open('transfer');
    const lines = [{ id: written, systemName: 'IMPORTED', fullUrl: 'https://www.example.com/' },
      { id: 'hostile1', systemName: 'IMPORTED', fullUrl: written, name: written }];
    await page.getByLabel('File').setInputFiles({ name: `${written.replaceAll('/', '')}.jsonl`,
      mimeType: 'text/plain', buffer: Buffer.from(lines.map((line) => JSON.stringify(line)).join('\n')) });
    await page.getByLabel('Format').selectOption('JSON Lines');
    await person.press('Check the file');
    await page.getByText('Nothing has been imported yet.').waitFor();
    await isText(page, 'import', shown.slice(0, 7));
    await person.press('Cancel');
    await person.open(`links/${id}`);
    await person.press('Delete');
    await isText(page, 'deleted', shown);
    await person.press('Undo');
    await isText(page, 'restored', shown);
  }));
}

test('a host that looks like another is told apart', as(TRUSTED, {}, async (person) => {
  const { page } = person;
  const userId = 'look-alike';
  await person.signInByLink(userId, true);
  for (const [fullUrl, host] of [
    ['https://www.k\u0430ltura.com/login', 'www.xn--kltura-3nf.com'],
    ['https://www.kaltura.com.evil.test/login', 'www.kaltura.com.evil.test'],
    ['https://evil.test/https://www.kaltura.com/', 'evil.test'],
  ]) {
    const id = await add({ fullUrl, userId, name: `Link to ${host}` });
    for (const path of ['links', `links/${id}`, `all?owner=${userId}`, `audit?id=${id}`]) {
      await person.open(path);
      await person.sees(host);
      await person.seesNot('k\u0430ltura');
    }
  }
}));
