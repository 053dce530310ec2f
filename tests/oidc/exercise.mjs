// Signs in to the console with an OpenID provider, in Chromium.
//
// Prints the provider's issuer and the URL of the console as JSON, then reads the address of tinyd's admin listener.
// The console's URL is that of a proxy here, because tinyd knows its own port only when it runs. The provider is at
// `localhost` and the console at `127.0.0.1`: two sites, as in life.

import assert from 'node:assert/strict';
import http from 'node:http';
import readline from 'node:readline';
import axe from 'axe-core';
import { Provider } from 'oidc-provider';
import { chromium } from 'playwright-core';

const listening = (server, host) =>
  new Promise((resolve) => server.listen(0, host, () => resolve(server.address().port)));

// The proxy.
let admin;
/** What the proxy adds to each request. */
let added = {};
const proxy = http.createServer((request, response) => {
  const { hostname, port } = new URL(admin);
  const headers = { ...request.headers, ...added };
  const forwarded = http.request({ hostname, port, method: request.method, path: request.url, headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.rawHeaders);
    answer.pipe(response);
  });
  forwarded.on('error', () => response.destroy());
  request.pipe(forwarded);
});
const consoleUrl = `http://127.0.0.1:${await listening(proxy, '127.0.0.1')}/console`;

// The provider.
const ACCOUNTS = {
  anna: { groups: ['staff', 'link-admins'], email_verified: true },
  ben: { groups: ['staff'], email_verified: true },
  mallory: { groups: ['link-admins'], email_verified: false },
  eve: { groups: ['guests'], email_verified: true },
};
let handle;
const providerServer = http.createServer((request, response) => handle(request, response));
const issuer = `http://localhost:${await listening(providerServer, 'localhost')}`;
const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'tinyd',
      client_secret: 'a secret of the client, 0123456789',
      redirect_uris: [`${consoleUrl}/sign-in/callback`],
      post_logout_redirect_uris: [`${consoleUrl}/sign-in`],
    },
  ],
  pkce: { required: () => true },
  claims: { openid: ['sub'], email: ['email', 'email_verified'], groups: ['groups'] },
  scopes: ['openid', 'email', 'groups'],
  cookies: { keys: ['key of the cookies of a test'] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: `id-of-${id}`, email: `${id}@example.com`, ...ACCOUNTS[id] }),
  }),
});
handle = provider.callback();

console.log(JSON.stringify({ issuer, console: consoleUrl }));
admin = await new Promise((resolve) => readline.createInterface({ input: process.stdin }).once('line', resolve));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox'],
});

/** A page of a new browser profile, with what it must not do. A refusal has a status of 400 or more. */
async function visitor() {
  const context = await browser.newContext();
  const page = await context.newPage();
  const complaints = [];
  page.on('console', (message) => {
    const isRefusal = /the server responded with a status of 403/.test(message.text());
    if (message.type() === 'error' && page.url().startsWith(consoleUrl) && !isRefusal) complaints.push(message.text());
  });
  context.on('request', (request) => {
    const { protocol, origin } = new URL(request.url());
    const isKnown = protocol === 'data:' || [issuer, new URL(consoleUrl).origin].includes(origin);
    // The provider's own pages have fonts from elsewhere.
    if (!isKnown && request.frame().url().startsWith(consoleUrl)) complaints.push(`another origin: ${request.url()}`);
  });
  return { context, page, complaints };
}

/** Looks at a page of the console in light and dark, on a phone and at 200 %. */
async function examine(page, complaints) {
  assert.ok(page.url().startsWith(consoleUrl), page.url());
  await page.evaluate(axe.source);
  for (const [colorScheme, width] of [['light', 1280], ['dark', 375], ['light', 640]]) {
    await page.setViewportSize({ width, height: 400 });
    await page.emulateMedia({ colorScheme });
    const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
    const bad = violations.filter(({ impact }) => ['serious', 'critical'].includes(impact));
    complaints.push(...bad.flatMap(({ help, nodes }) => nodes.map((node) => `${page.url()}: ${help}: ${node.html}`)));
    const excess = await page.evaluate(() => document.scrollingElement.scrollWidth - window.innerWidth);
    if (excess > 0) complaints.push(`${page.url()}: ${excess} pixels too wide`);
  }
}

async function signInAtProvider(page, account) {
  await page.fill('input[name=login]', account);
  await page.fill('input[name=password]', 'any');
  await page.click('button[type=submit]');
  await page.getByRole('button', { name: 'Continue' }).click();
}

const start = (page) => page.getByRole('link', { name: 'Sign in with your account' }).click();

// An administrator signs in, and comes to the page that they wanted.
{
  const { context, page, complaints } = await visitor();
  await page.goto(`${consoleUrl}/links/new`);
  assert.equal(new URL(page.url()).pathname, '/console/sign-in');
  await examine(page, complaints);
  await page.getByText("Sign in with a partner's secret").click();
  await examine(page, complaints);
  await start(page);
  assert.equal(new URL(page.url()).origin, issuer);
  await signInAtProvider(page, 'anna');
  await page.waitForURL(`${consoleUrl}/links/new`);
  const account = await page.locator('.account').innerText();
  assert.match(account, /anna@example\.com\s+administrator/);
  await examine(page, complaints);
  const cookies = await context.cookies(consoleUrl);
  const session = cookies.find((cookie) => cookie.name === 'tinyd');
  assert.equal(session.sameSite, 'Strict');
  assert.equal(session.httpOnly, true);
  assert.equal(cookies.find((cookie) => cookie.name === 'tinyd-sign-in'), undefined);

  // Signing out ends the session here and at the provider.
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.waitForURL(`${issuer}/session/end?**`);
  await page.getByRole('button', { name: 'Yes, sign me out' }).click();
  await page.getByRole('link', { name: 'Sign in with your account' }).waitFor();
  await context.addCookies([session]);
  await page.goto(`${consoleUrl}/links`);
  assert.equal(new URL(page.url()).pathname, '/console/sign-in', 'a copy of the cookie is of no use');
  await start(page);
  assert.equal(await page.locator('input[name=login]').count(), 1, 'the provider asks again');
  assert.deepEqual(complaints, []);
  await context.close();
}

// A user is no administrator.
{
  const { context, page, complaints } = await visitor();
  await page.goto(`${consoleUrl}/`);
  await start(page);
  await signInAtProvider(page, 'ben');
  await page.waitForURL(`${consoleUrl}/links`);
  const account = await page.locator('.account').innerText();
  assert.match(account, /ben@example\.com/);
  assert.doesNotMatch(account, /administrator/);
  assert.deepEqual(complaints, []);
  await context.close();
}

// Who has no verified address, or is in none of the groups, is nobody.
for (const [account, reason] of [
  ['mallory', 'has not verified your mail address'],
  ['eve', 'is in none of the groups'],
]) {
  const { context, page, complaints } = await visitor();
  await page.goto(`${consoleUrl}/`);
  await start(page);
  await signInAtProvider(page, account);
  await page.getByText(reason).waitFor();
  await examine(page, complaints);
  await page.goto(`${consoleUrl}/links`);
  assert.equal(new URL(page.url()).pathname, '/console/sign-in');
  assert.deepEqual(complaints, []);
  await context.close();
}

// Without a script, all of it works the same.
{
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = await context.newPage();
  await page.goto(`${consoleUrl}/`);
  await start(page);
  await signInAtProvider(page, 'ben');
  await page.waitForURL(`${consoleUrl}/links`);
  await context.close();
}

// Who declines is told so, and can try again.
{
  const { context, page, complaints } = await visitor();
  await page.goto(`${consoleUrl}/`);
  await start(page);
  await page.getByRole('link', { name: 'Cancel' }).click();
  await page.getByText('The sign-in service says:').waitFor();
  await page.getByRole('link', { name: 'Sign in' }).waitFor();
  await examine(page, complaints);
  assert.deepEqual(complaints, []);
  await context.close();
}

await browser.close();
proxy.closeAllConnections();
providerServer.closeAllConnections();
proxy.close();
providerServer.close();
console.log('done');
process.exit(0);
