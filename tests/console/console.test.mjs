// Goes through the console as people do: with a pointer, by keyboard, with and without a script.
import assert from 'node:assert/strict';
import fs from 'node:fs/promises';
import http from 'node:http';
import { after, test } from 'node:test';
import jsqr from 'jsqr';
import { PNG } from 'pngjs';
import { as, closeBrowser, follow, Person, PLAIN, SHORT_URL_BASE, stored, TRUSTED, unwatched } from './browser.mjs';

after(closeBrowser);

const unix = (time) => Date.parse(time) / 1000;

function decode(png) {
  const { data, width, height } = PNG.sync.read(png);
  const code = jsqr(new Uint8ClampedArray(data), width, height);
  assert.ok(code, `no code in ${width} × ${height} pixels`);
  return { text: code.data, width };
}

/** What has been copied: a person pastes it somewhere. */
async function pasted(person) {
  const page = await person.context.newPage();
  await page.goto(`${person.origin}/console/links/new`);
  await page.getByLabel('Name').first().press('Control+V');
  const value = await page.getByLabel('Name').first().inputValue();
  await page.close();
  return value;
}

async function download(person, button) {
  const begun = person.page.waitForEvent('download');
  await person.page.getByRole('button', { name: button, exact: true }).click();
  const file = await begun;
  return { name: file.suggestedFilename(), body: await fs.readFile(await file.path()) };
}

async function drawn(svg) {
  const other = await Person.at('null');
  await other.page.setContent(svg);
  const png = await other.page.locator('svg').screenshot();
  await other.leave();
  return png;
}

/** All that one does with a link, with or without a script. */
async function useLink(person, user) {
  const { page } = person;
  await person.signInByLink(user);
  await person.sees('My links', 'You have no links yet.', user);
  await person.choose('Make your first link');
  await page.getByLabel('Destination').fill('https://www.example.com/video?a=1&b=2');
  await page.getByLabel('Name').first().fill('Lecture 1');
  await person.press('Create');
  await person.sees('Link created.', 'Lecture 1', 'Works', 'Anyone with this link can open it', 'www.example.com');
  const id = person.linkId();
  assert.equal(await follow(id), 'https://www.example.com/video?a=1&b=2');
  const shortUrl = `${SHORT_URL_BASE}/tiny/${id}`;
  assert.equal(await page.getByLabel('Link', { exact: true }).inputValue(), shortUrl);

  // Codes, on the page and as files.
  assert.equal(decode(await page.locator('.qr svg').screenshot()).text, shortUrl);
  const png = await download(person, 'PNG');
  assert.equal(png.name, `${id}.png`);
  assert.equal(decode(png.body).text, shortUrl);
  await page.getByLabel('Size').fill('1024');
  await page.getByLabel('Error correction').selectOption('H');
  const large = decode((await download(person, 'PNG')).body);
  assert.equal(large.text, shortUrl);
  assert.ok(large.width >= 1024, `${large.width} pixels`);
  const svg = await download(person, 'SVG');
  assert.equal(svg.name, `${id}.svg`);
  assert.equal(decode(await drawn(svg.body.toString())).text, shortUrl);

  const mail = new URL(await page.getByRole('link', { name: 'Send by mail' }).getAttribute('href'));
  assert.equal(mail.protocol, 'mailto:');
  assert.deepEqual([...mail.searchParams], [['subject', 'Lecture 1'], ['body', shortUrl]]);

  // A change takes effect at once.
  await person.choose('Edit');
  await person.sees('A change takes effect at once, for everybody who has the link.');
  await page.getByLabel('Destination').fill('https://www.example.com/other');
  await person.press('Save');
  await person.sees('The change takes effect at once.', 'https://www.example.com/other');
  assert.equal(await follow(id), 'https://www.example.com/other');
  await person.press('Switch off');
  await person.sees('It stopped working at once.', 'Switched off');
  assert.equal(await follow(id), 404);
  await person.press('Switch on');
  await person.sees('It works at once.');
  assert.equal(await follow(id), 'https://www.example.com/other');
  await person.press('Delete');
  await person.sees('deleted. It stopped working at once.');
  assert.ok(await follow(id) >= 400);
  await person.press('Undo');
  await person.sees('Link restored. It works again.');
  assert.equal(await follow(id), 'https://www.example.com/other');
  await person.choose('My links');
  await person.sees('Lecture 1', shortUrl, 'www.example.com', '1 link');

  // What leaked is revoked, and the rest stays.
  await person.choose('Lecture 1');
  await page.getByLabel('The old link stops working for good').check();
  await person.press('Make a new ID');
  await person.sees('The old one stopped working for good.', 'Lecture 1');
  const renewed = person.linkId();
  assert.deepEqual([await follow(id), await follow(renewed)], [410, 'https://www.example.com/other']);
  await person.open(`links/${id}`);
  await person.sees('This one never works again.');

  // Playback times make another link.
  await person.choose('New link');
  await page.getByLabel('Destination').fill('https://www.youtube.com/embed/abc');
  await person.press('Create');
  await page.getByLabel('Start at', { exact: true }).fill('1:30');
  await page.getByLabel('End at').fill('2:45');
  await person.sees('Viewers can still watch the rest.');
  await person.press('Make a link with these times');
  await person.sees('Link created.', '(1:30–2:45)');
  assert.equal(await follow(person.linkId()), 'https://www.youtube.com/embed/abc?start=90&end=165');

  // A preset.
  await person.choose('New link');
  await page.getByLabel('Destination').fill('https://www.example.com/week');
  await page.getByLabel('For a time').check();
  await page.getByLabel('or for').selectOption('7 days');
  const before = Math.floor(Date.now() / 1000);
  await person.press('Create');
  const { startsAt, expiresAt } = await stored(person.linkId());
  assert.equal(startsAt, undefined);
  assert.ok(expiresAt >= before + 604_800 && expiresAt <= Date.now() / 1000 + 604_800, `${expiresAt}`);
  await person.sees('Works until');

  await person.press('Sign out');
  await person.sees('Sign in', 'Secret');
  await person.open('links');
  await person.sees('Sign in', 'Secret');
  await person.seesNot('Lecture 1');
}

test('a person makes, shares, changes and deletes a link', as(TRUSTED, {}, (person) => useLink(person, 'jane')));

test('everything works without a script', as(PLAIN, { javaScriptEnabled: false }, async (person) => {
  await useLink(person, 'no-script');
  const { page } = person;
  await person.signInByLink('no-script');
  await person.choose('New link');
  await page.getByLabel('Destination').fill('https://www.example.com/');
  await page.getByLabel('For a time').check();
  await person.sees('Times are in UTC.');
  await page.getByLabel('Works from').fill('2099-01-15T09:00');
  await page.getByLabel('Works until').fill('2099-07-15T09:00');
  await person.press('Create');
  const { startsAt, expiresAt } = await stored(person.linkId());
  assert.deepEqual([startsAt, expiresAt], [unix('2099-01-15T09:00Z'), unix('2099-07-15T09:00Z')]);
  await person.sees('Opens on 15 Jan 2099, 09:00 UTC', '15 Jul 2099, 09:00 UTC');
  // What only a script can do is not there.
  for (const name of ['Copy', 'Share…']) assert.equal(await page.getByRole('button', { name }).isVisible(), false);
}));

test('times are those of the visitor', as(TRUSTED, { timezoneId: 'America/New_York' }, async (person) => {
  const { page } = person;
  await person.signInByLink('new-yorker');
  await person.choose('New link');
  await page.getByLabel('Destination').fill('https://www.example.com/');
  await page.getByLabel('For a time').check();
  await person.sees('Times are in your time zone, America/New_York.');
  // One in winter, one in summer.
  await page.getByLabel('Works from').fill('2027-01-15T09:00');
  await page.getByLabel('Works until').fill('2027-07-15T09:00');
  const enters = async () => [await page.getByLabel('Works from').inputValue(),
    await page.getByLabel('Works until').inputValue()];

  // An error of another field leaves them as they were entered.
  await page.getByLabel('Destination').fill('ftp://www.example.com/');
  person.expectStatus(422);
  await person.press('Create');
  await person.sees('Nothing was saved yet');
  assert.deepEqual(await enters(), ['2027-01-15T09:00', '2027-07-15T09:00']);

  // So does going back to the form.
  await person.open('links/new');
  await page.getByLabel('Destination').fill('https://www.example.com/');
  await page.getByLabel('For a time').check();
  await page.getByLabel('Works from').fill('2027-01-15T09:00');
  await page.getByLabel('Works until').fill('2027-07-15T09:00');
  await person.choose('Cancel');
  await page.goBack();
  assert.deepEqual(await enters(), ['2027-01-15T09:00', '2027-07-15T09:00']);

  await page.getByLabel('Destination').fill('https://www.example.com/');
  await page.getByLabel('For a time').check();
  await page.getByLabel('Works from').fill('2027-01-15T09:00');
  await page.getByLabel('Works until').fill('2027-07-15T09:00');
  await person.press('Create');
  const id = person.linkId();
  const times = async () => {
    const { startsAt, expiresAt } = await stored(id);
    return [startsAt, expiresAt];
  };
  const expected = [unix('2027-01-15T14:00Z'), unix('2027-07-15T13:00Z')];
  assert.deepEqual(await times(), expected);
  await person.sees('Opens on Jan 15, 2027, 9:00 AM', 'Jul 15, 2027, 9:00 AM');
  await person.choose('My links');
  await person.sees('Opens on Jan 15, 2027, 9:00 AM');

  // Saving what the form shows changes nothing; a change moves what was changed only.
  await person.open(`links/${id}/edit`);
  assert.deepEqual(await enters(), ['2027-01-15T09:00', '2027-07-15T09:00']);
  await person.press('Save');
  assert.deepEqual(await times(), expected);
  await person.choose('Edit');
  await page.getByLabel('Works until').fill('2027-07-15T10:00');
  await person.press('Save');
  assert.deepEqual(await times(), [expected[0], unix('2027-07-15T14:00Z')]);
  await person.choose('Edit');
  await page.getByLabel('Always').check();
  await person.press('Save');
  assert.deepEqual(await times(), [undefined, undefined]);
}));

for (const [what, origin] of [['an origin that browsers trust', TRUSTED], ['plain http', PLAIN]]) {
  test(`a link is copied on ${what}`, as(origin, {}, async (person) => {
    const { page } = person;
    await person.context.grantPermissions(origin === TRUSTED ? ['clipboard-read', 'clipboard-write'] : []);
    await person.signInByLink('copyist');
    assert.equal(await page.evaluate(() => window.isSecureContext), origin === TRUSTED);
    await person.open('links/new');
    await page.getByLabel('Destination').fill(`https://www.example.com/${origin}`);
    await person.press('Create');
    const shortUrl = `${SHORT_URL_BASE}/tiny/${person.linkId()}`;
    await page.getByRole('button', { name: 'Copy', exact: true }).click();
    await page.getByRole('button', { name: 'Copied ✓' }).waitFor();
    assert.equal(await page.getByRole('status').last().textContent(), 'Link copied');
    assert.equal(await pasted(person), shortUrl);
    // The list has the same button.
    await person.choose('My links');
    await page.getByRole('button', { name: `Copy ${shortUrl}` }).click();
    await page.locator('button', { hasText: 'Copied ✓' }).waitFor();
    assert.equal(await pasted(person), shortUrl);
  }));
}

test('a link is handed to the share sheet of the device', as(TRUSTED, {}, async (person) => {
  const { page } = person;
  await person.signInByLink('sharer');
  await person.open('links/new');
  await page.getByLabel('Destination').fill('https://www.example.com/');
  await page.getByLabel('Name').first().fill('Talk & "more"');
  await page.evaluate(() => { delete Navigator.prototype.share; });
  await person.press('Create');
  await page.addInitScript(() => {
    navigator.share = async (data) => { window.shared = data; throw new DOMException('Cancelled', 'AbortError'); };
  });
  await page.reload();
  await page.getByRole('button', { name: 'Share…' }).click();
  assert.deepEqual(await page.evaluate(() => window.shared),
    { title: 'Talk & "more"', url: `${SHORT_URL_BASE}/tiny/${person.linkId()}` });
}));

test('a sign-in link is spent by its button, once', as(TRUSTED, {}, async (person) => {
  const path = await person.signInLink('once');
  await person.open(path);
  await person.open(path);
  await person.press('Sign in as once');
  await person.sees('My links');
  const thief = await Person.at(TRUSTED);
  thief.expectStatus(410);
  await thief.open(path);
  await thief.sees('This sign-in link is used up', 'Sign in');
  await thief.choose('Sign in');
  await thief.sees('Secret');
  await thief.leave();
}));

test('a page after signing in is the one that was asked for', as(PLAIN, {}, async (person) => {
  await person.open('links/new');
  await person.sees('Secret');
  person.expectStatus(403);
  await person.signIn('jane', false, 'guessed');
  await person.sees('Partner, user or secret are wrong.');
  assert.equal(await person.page.getByLabel('User').inputValue(), 'jane');
  assert.equal(await person.page.getByLabel('Secret').inputValue(), '');
  await person.signIn('jane');
  assert.equal(new URL(person.page.url()).pathname, '/console/links/new');
}));

for (const [what, origin] of [['an origin that browsers trust', TRUSTED], ['plain http', PLAIN]]) {
  for (const javaScriptEnabled of [true, false]) {
    const how = javaScriptEnabled ? 'with' : 'without';
    test(`a link from another site opens on ${what}, ${how} a script`, as(origin, { javaScriptEnabled }, async (person) => {
      await person.signInByLink('follower');
      await person.open('links/new');
      await person.page.getByLabel('Destination').fill('https://www.example.com/');
      await person.press('Create');
      const id = person.linkId();
      const server = http.createServer((_, response) => response.setHeader('Content-Type', 'text/html').end(
        `<!doctype html><title>Chat</title><a href="${origin}/console/links/${id}?a=1">Look</a>`));
      after(() => server.close());
      await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
      const storageState = await person.context.storageState();
      for (const [state, ends] of [[storageState, `/console/links/${id}?a=1`], [undefined, '/console/sign-in']]) {
        const chat = await (await unwatched({ javaScriptEnabled, storageState: state })).newPage();
        await chat.goto(`http://evil.test:${server.address().port}/`);
        await chat.getByRole('link').click();
        await chat.waitForURL((url) => url.href.startsWith(`${origin}${ends}`));
        if (!state) await chat.getByLabel('Secret').waitFor();
        await chat.context().close();
      }
    }));
  }
}

test('other sites cannot frame the console or write to it', as(TRUSTED, {}, async (person) => {
  await person.signInByLink('victim');
  await person.open('links/new');
  const { page } = person;
  await page.getByLabel('Destination').fill('https://www.example.com/');
  await person.press('Create');
  const id = person.linkId();
  // Another site on this machine, in the same browser, with the victim's cookies.
  const site = await (await unwatched({ storageState: await person.context.storageState() })).newPage();
  const server = http.createServer((_, response) => response.setHeader('Content-Type', 'text/html').end(
    `<!doctype html><title>Evil</title><iframe src="${person.origin}/console/links/${id}"></iframe>
    <iframe src="${person.origin}/console/sign-in"></iframe><iframe src="${person.origin}/healthz"></iframe>
    <form method="post" action="${person.origin}/console/links/${id}/delete"><button>Win a prize</button></form>`));
  after(() => server.close());
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  await site.goto(`http://evil.test:${server.address().port}/`);
  const [, list, signIn, health] = site.frames();
  for (const frame of [list, signIn]) await frame.waitForURL('chrome-error://chromewebdata/');
  assert.equal(health.url(), `${person.origin}/healthz`);
  await site.getByRole('button').click();
  await site.getByText('Request from another site').waitFor();
  assert.equal(await follow(id), 'https://www.example.com/');
  await site.context().close();
}));
