// A browser whose pages fail a test at any error, and a person who uses it.
import assert from 'node:assert/strict';
import { chromium } from 'playwright-core';

function setting(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

export const ADMIN_URL = setting('TINYD_ADMIN_URL');
export const PUBLIC_URL = setting('TINYD_PUBLIC_URL');
/** What the short URLs begin with. */
export const SHORT_URL_BASE = setting('TINYD_SHORT_URL_BASE');
export const SCREENSHOTS = setting('TINYD_SCREENSHOTS');
export const PARTNER = setting('TINYD_PARTNER_ID');
export const ADMIN_SECRET = setting('TINYD_ADMIN_SECRET');
const USER_SECRET = setting('TINYD_USER_SECRET');
/** Appliances of organisations: their name and accent, and where they listen. */
export const BRANDED = JSON.parse(setting('TINYD_BRANDED'));
const port = new URL(ADMIN_URL).port;

/** An origin that browsers trust like https, and one that they do not. */
export const TRUSTED = `http://localhost:${port}`;
export const PLAIN = `http://${setting('TINYD_CONSOLE_HOST')}:${port}`;

const launched = chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  // Containers run this as root, under which Chromium has no sandbox; the rest keeps it off the network.
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync',
    `--host-resolver-rules=MAP ${new URL(PLAIN).hostname} 127.0.0.1, MAP evil.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1`],
});

export async function closeBrowser() {
  await (await launched).close();
}

/** Calls the API. */
export async function call(service, action, params) {
  const response = await fetch(`${ADMIN_URL}/api_v3/service/${service}/action/${action}`, {
    method: 'POST',
    body: new URLSearchParams({ format: 1, ...params }),
  });
  const result = await response.json();
  assert.notEqual(result?.objectType, 'KalturaAPIException', JSON.stringify(result));
  return result;
}

export const adminKs = await call('session', 'start', {
  partnerId: PARTNER, secret: ADMIN_SECRET, userId: 'admin', type: 2,
});

/** The link with this id, with times in unix seconds. */
export const stored = (id) => call('shortlink_shortlink', 'get', { ks: adminKs, id, withStartsAt: 1 });

/** Makes a link without the console; returns its id. */
export async function add(fields) {
  const named = Object.entries({ systemName: 'NAME', fullUrl: 'https://www.example.com/', ...fields });
  const params = Object.fromEntries(named.map(([name, value]) => [`shortLink[${name}]`, value]));
  return (await call('shortlink_shortlink', 'add', { ks: adminKs, ...params })).id;
}

/** Where a short link leads; its status where it leads nowhere. */
export async function follow(id) {
  const response = await fetch(`${PUBLIC_URL}/api_v3/service/shortlink_shortlink/action/goto/id/${id}`,
    { redirect: 'manual' });
  return response.headers.get('location') ?? response.status;
}

/** A context in which anything may go wrong. */
export const unwatched = async (options) => (await launched).newContext(options);

/** A person at a browser of their own. Options are those of a context of Playwright. */
export class Person {
  #errors = [];
  #expected = [];

  static async at(origin, options = {}) {
    const context = await (await launched).newContext({ locale: 'en-US', timezoneId: 'UTC', ...options });
    context.setDefaultTimeout(15_000);
    const person = new Person();
    Object.assign(person, { origin, context, page: await context.newPage() });
    person.#watch();
    return person;
  }

  #watch() {
    const { context, page } = this;
    const fail = (text) => {
      if (!this.#expected.some((pattern) => pattern.test(text))) this.#errors.push(`${page.url()}: ${text}`);
    };
    page.on('pageerror', (error) => fail(`script: ${error}`));
    page.on('dialog', (dialog) => { fail(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) fail(`console: ${message.text()}`);
    });
    context.on('requestfailed', (request) => {
      const { errorText } = request.failure();
      // A download ends the navigation that began it, and leaving a page ends what its script asks for.
      const isDownload = /\/(qr\.(png|svg)|export|audit\.jsonl)\b/.test(request.url());
      const isEnded = errorText === 'net::ERR_ABORTED' && (isDownload || request.resourceType() === 'fetch');
      if (!isEnded) fail(`failed: ${request.url()} ${errorText}`);
    });
    context.on('request', (request) => {
      const { protocol, origin } = new URL(request.url());
      if (protocol !== 'data:' && origin !== this.origin) fail(`another origin: ${request.url()}`);
    });
    context.on('response', (response) => {
      if (response.status() >= 400) fail(`status ${response.status()}: ${response.url()}`);
    });
  }

  /** Lets pages answer with this status. */
  expectStatus(status) {
    this.#expected.push(new RegExp(`^status ${status}:`), new RegExp(`the server responded with a status of ${status}`));
  }

  /** Opens a page of the console. */
  async open(path) {
    const url = `${this.origin}/console/${path}`;
    await this.page.goto(url);
    await this.#arrive();
  }

  /** Waits until no page goes on by itself. */
  async #arrive() {
    await this.page.locator('meta[http-equiv=refresh][content^="0;"]').waitFor({ state: 'detached' });
    await this.page.waitForLoadState('load');
  }

  /** Makes a link that signs in once; returns its path. */
  async signInLink(user, isAdmin = false) {
    return (await call('tinyd', 'signInLink', { ks: adminKs, userId: user, type: isAdmin ? 2 : 0 })).path;
  }

  /** Signs in with a link, by its button. */
  async signInByLink(user, isAdmin = false) {
    await this.open(await this.signInLink(user, isAdmin));
    await this.press(`Sign in as ${user}`);
  }

  /** Signs in with a secret. */
  async signIn(user, isAdmin = false, secret = isAdmin ? ADMIN_SECRET : USER_SECRET) {
    await this.page.getByLabel('Partner ID').fill(PARTNER);
    await this.page.getByLabel('User').fill(user);
    await this.page.getByLabel('Secret').fill(secret);
    await this.press('Sign in');
  }

  /** Does something that leads to another page. */
  async go(act) {
    const loaded = this.page.waitForEvent('load');
    await act();
    await loaded;
    await this.#arrive();
  }

  /** Presses a button that leads to another page. */
  async press(name) {
    await this.go(() => this.page.getByRole('button', { name, exact: true }).click());
  }

  /** Follows a link of the page. */
  async choose(name) {
    await this.go(() => this.page.getByRole('link', { name, exact: true }).first().click());
  }

  /** The text of the page, without what is hidden. */
  text() {
    return this.page.locator('body').innerText();
  }

  async sees(...texts) {
    const text = await this.text();
    for (const expected of texts) assert.ok(text.includes(expected), `no ${JSON.stringify(expected)} in:\n${text}`);
  }

  async seesNot(...texts) {
    const text = await this.text();
    for (const other of texts) assert.ok(!text.includes(other), `${JSON.stringify(other)} in:\n${text}`);
  }

  /** The id of the link whose page this is. */
  linkId() {
    return /\/links\/([^/?]+)/.exec(this.page.url())[1];
  }

  async leave() {
    await this.context.close();
    assert.deepEqual([...new Set(this.#errors)], []);
  }
}

/** Runs a test for a person who must leave without an error. */
export function as(origin, options, test) {
  return async () => {
    const person = await Person.at(origin, options);
    await test(person);
    await person.leave();
  };
}
