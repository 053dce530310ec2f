// Bundles page.ts with Kaltura's TypeScript client, serves it on a loopback port of its own, and runs it in
// headless Chromium against a running tinyd. The page's origin is not tinyd's, so the browser sends CORS
// preflights; that it did is checked, since otherwise a pass would say nothing about CORS. Afterwards the
// browser follows a short link in its address bar. One line is printed for each step that held.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import http from 'node:http';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';

const GOTO_PATH = '/api_v3/service/shortlink_shortlink/action/goto/id/';
const LANDING_TEXT = 'landed';

function setting(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

async function bundle() {
  const result = await build({
    entryPoints: [fileURLToPath(new URL('page.ts', import.meta.url))],
    bundle: true,
    format: 'iife',
    target: 'es2022',
    write: false,
    // The client is built for a bundler with node's idea of modules; none of its files needs node.
    platform: 'browser',
  });
  return result.outputFiles[0].text;
}

// One origin serves the script's page and the page where the short link lands.
async function serve(script) {
  const server = http.createServer((request, response) => {
    const path = new URL(request.url, 'http://page').pathname;
    const [type, body] = {
      '/': ['text/html', '<!doctype html><meta charset="utf-8"><script src="/page.js"></script>'],
      '/page.js': ['text/javascript', script],
      '/landing': ['text/html', `<!doctype html><title>${LANDING_TEXT}</title>`],
    }[path] ?? ['text/plain', ''];
    response.writeHead(200, { 'Content-Type': `${type}; charset=utf-8` }).end(body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

// The browser's own log of preflights, which the page cannot see. No page sends OPTIONS of itself here.
async function preflightsOf(page) {
  const preflights = [];
  const devtools = await page.context().newCDPSession(page);
  await devtools.send('Network.enable');
  devtools.on('Network.requestWillBeSent', ({ request }) => {
    if (request.method === 'OPTIONS') preflights.push(request.url);
  });
  return preflights;
}

async function follow(page, publicUrl, { live, disabled }, landingUrl) {
  const fetchOnce = (url) => fetch(url, { redirect: 'manual' });
  for (const base of [setting('TINYD_ADMIN_URL').replace(/\/$/, ''), publicUrl]) {
    const answer = await fetchOnce(base + GOTO_PATH + live);
    assert.deepEqual([answer.status, answer.headers.get('location')], [302, landingUrl]);
  }
  const tiny = await fetchOnce(`${publicUrl}/tiny/${live}`);
  assert.equal(tiny.status, 301);
  assert.equal(new URL(tiny.headers.get('location'), publicUrl).href, publicUrl + GOTO_PATH + live);
  console.log('ok goto');

  await page.goto(`${publicUrl}/tiny/${live}`);
  assert.deepEqual([page.url(), await page.title()], [landingUrl, LANDING_TEXT]);
  console.log('ok address bar');

  const refused = await page.goto(`${publicUrl}/tiny/${disabled}`);
  assert.deepEqual([refused.status(), refused.headers()['x-kaltura']], [404, 'error-INVALID_SHORT_LINK']);
  console.log('ok disabled');
}

async function main() {
  const publicUrl = setting('TINYD_PUBLIC_URL').replace(/\/$/, '');
  const settings = {
    adminUrl: setting('TINYD_ADMIN_URL').replace(/\/$/, ''),
    partnerId: Number(setting('TINYD_PARTNER_ID')),
    adminSecret: setting('TINYD_ADMIN_SECRET'),
    userSecret: setting('TINYD_USER_SECRET'),
    run: crypto.randomBytes(6).toString('hex'),
  };
  const server = await serve(await bundle());
  const origin = `http://127.0.0.1:${server.address().port}`;
  settings.landingUrl = `${origin}/landing?run=${settings.run}`;
  assert.notEqual(origin, new URL(settings.adminUrl).origin);

  let browser;
  try {
    browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      // Containers run this as root, under which Chromium has no sandbox; the rest keeps it off the network.
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
        '--disable-background-networking', '--disable-component-update', '--disable-sync'],
    });
    const page = await browser.newPage();
    page.on('console', (message) => { if (message.type() === 'log') console.log(message.text()); });
    const preflights = await preflightsOf(page);
    await page.goto(origin);
    const links = await page.evaluate((given) => globalThis.exercise(given), settings);

    const asked = `${settings.adminUrl}/api_v3/service/shortlink_shortlink/action/add`;
    assert.ok(preflights.includes(asked), `expected a preflight for ${asked}, got ${JSON.stringify(preflights)}`);
    console.log('ok preflight');
    await follow(page, publicUrl, links, settings.landingUrl);
  } finally {
    await browser?.close();
    server.closeAllConnections();
    server.close();
  }
}

main().catch((error) => {
  console.log('FAILED', error);
  process.exitCode = 1;
});
