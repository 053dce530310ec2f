// Imports and exports as an administrator does: what a file would do is shown before it does it.
import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import { after, test } from 'node:test';
import { add, adminKs, as, call, closeBrowser, PLAIN, stored, TRUSTED } from './browser.mjs';

after(closeBrowser);

const FIELDS = ['id', 'systemName', 'fullUrl', 'name'];

/** A file of links in a format, and the number of the line that each has. */
const FORMATS = {
  csv: {
    mimeType: 'text/csv',
    line: (position) => position + 2,
    text: (links) => [FIELDS, ...links.map((link) => FIELDS.map((field) => link[field]))]
      .map((values) => values.map((value) => `"${value.replaceAll('"', '""')}"`).join(',')).join('\r\n'),
  },
  jsonl: {
    mimeType: 'application/x-ndjson',
    line: (position) => position + 1,
    text: (links) => links.map((link) => JSON.stringify(link)).join('\n'),
  },
};

/** How many of these links there are. */
async function count(ids) {
  const found = await call('shortlink_shortlink', 'list', { ks: adminKs, 'filter[idIn]': ids.join(',') });
  return found.totalCount;
}

/** The number that a report has for these words. */
const reported = (page, words) => page.getByRole('term').filter({ hasText: new RegExp(`^${words}$`) })
  .locator('xpath=following-sibling::dd[1]').innerText();

async function choose(page, file) {
  await page.getByLabel('File').setInputFiles(file);
}

async function drop(page, { name, mimeType, buffer }) {
  const dataTransfer = await page.evaluateHandle(([text, fileName, type]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([text], fileName, { type }));
    return transfer;
  }, [buffer.toString(), name, mimeType]);
  await page.getByText('or drop it here').dispatchEvent('drop', { dataTransfer });
  assert.equal(await page.getByLabel('File').evaluate((input) => input.files[0].name), name);
}

async function importFile(person, format, run, give) {
  const { page } = person;
  const { mimeType, line, text } = FORMATS[format];
  const id = (number) => `${run}${format.slice(0, 3)}${number}`.padEnd(8, '0');
  const links = [1, 2].map((number) => ({
    id: id(number), systemName: 'IMPORTED', fullUrl: `https://www.example.com/${number}`, name: `<b>${format}</b> ${number}`,
  }));
  const ids = links.map((link) => link.id);
  const refused = { id: id(3), systemName: 'IMPORTED', fullUrl: 'javascript:alert(1)', name: 'Refused' };
  const file = { name: `<i>links</i>.${format}`, mimeType, buffer: Buffer.from(text([...links, refused])) };
  const check = async (more = () => {}) => {
    await person.open('transfer');
    await more();
    await give(page, file);
    await person.press('Check the file');
    await page.getByText('Nothing has been imported yet.').waitFor();
  };

  // First, what it would do; whoever cancels has imported nothing.
  await check();
  await person.sees(`Import ${file.name}`, '1 line is refused, and you chose to import nothing then.', 'Refused lines');
  await page.getByRole('row').filter({ hasText: `Line ${line(2)}` }).filter({ hasText: 'fullUrl: ' }).waitFor();
  assert.equal(await page.getByRole('cell', { name: /^Line/ }).count(), 1);
  assert.deepEqual([await reported(page, 'Added'), await reported(page, 'Refused'), await count(ids)], ['2', '1', 0]);
  await person.press('Cancel');
  await person.sees('Import and export');
  assert.equal(await count(ids), 0);

  // Then the same in earnest.
  await check();
  await person.press('Leave out 1 line, import 2 links');
  await page.getByText('The file is imported.').waitFor();
  await page.getByRole('row').filter({ hasText: `Line ${line(2)}` }).waitFor();
  assert.deepEqual([await reported(page, 'Added'), await count([...ids, refused.id])], ['2', 2]);
  assert.equal((await stored(ids[0])).name, links[0].name);

  // Again, it changes nothing.
  await check(() => page.getByLabel('Leave the line out and import the rest').check());
  await person.sees('There is nothing to import in this file.');
  assert.deepEqual([await reported(page, 'Added'), await reported(page, 'Unchanged')], ['0', '2']);
  assert.equal(await page.getByRole('button', { name: /import/i }).count(), 0);
  // A file that waits counts among the few that a partner may have.
  await person.press('Cancel');
}

async function refuseFile(person) {
  const { page } = person;
  await person.open('transfer');
  await choose(page, { name: 'links.csv', mimeType: 'text/csv', buffer: Buffer.from('id,systemName,fullUrl,colour\n') });
  await person.press('Check the file');
  await page.getByText('Not imported: ').waitFor();
  await person.sees('line 1 names "colour"; known are ');
  await person.choose('Choose another file');
  await person.sees('Import and export');
}

async function exportFiles(person, run) {
  const { page } = person;
  const name = `${run}, "quoted"\n=1+1`;
  const id = await add({ name: name.replace('\n', ' '), fullUrl: 'https://www.example.com/"exported"' });
  for (const [button, extension] of [['Download CSV', 'csv'], ['Download JSON Lines', 'jsonl']]) {
    await person.open('transfer');
    const begun = page.waitForEvent('download');
    await page.getByRole('button', { name: button }).click();
    const file = await begun;
    assert.match(file.suggestedFilename(), new RegExp(`\\.${extension}$`));
    const lines = (await fs.readFile(await file.path(), 'utf8')).trim().split(/\r?\n/);
    const line = lines.find((text) => text.includes(id));
    assert.ok(line, `no ${id} in ${lines.length} lines`);
    if (extension === 'jsonl') assert.equal(JSON.parse(line).name, name.replace('\n', ' '));
    else assert.ok(line.includes('""exported""'), line);
  }
}

for (const [what, origin, options, give] of [
  ['dropped', TRUSTED, {}, drop],
  ['chosen without a script', PLAIN, { javaScriptEnabled: false }, choose],
]) {
  test(`a file is ${what}, checked and imported`, as(origin, options, async (person) => {
    await person.signInByLink(`importer-${what.length}`, true);
    for (const format of ['csv', 'jsonl']) await importFile(person, format, what[0], give);
    await refuseFile(person);
    await exportFiles(person, what);
  }));
}
