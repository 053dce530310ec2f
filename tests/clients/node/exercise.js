// Drives a running tinyd with kaltura-client, the client that Kaltura publishes for Node.js, and with the
// JSONP calls of Kaltura's management console. The client posts JSON, asks for JSON (format 1), and takes
// any other status than 2xx for a broken connection. One line is printed for each step that held.
'use strict';

const crypto = require('node:crypto');
const assert = require('node:assert/strict');
const vm = require('node:vm');
const kaltura = require('kaltura-client');

const { shortLink: links, session, system } = kaltura.services;
const { ShortLink, ShortLinkFilter, FilterPager } = kaltura.objects;
const { SessionType, ShortLinkStatus, ShortLinkOrderBy } = kaltura.enums;

function setting(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

const ADMIN_URL = setting('TINYD_ADMIN_URL').replace(/\/$/, '');
const PUBLIC_URL = setting('TINYD_PUBLIC_URL').replace(/\/$/, '');
const PARTNER_ID = Number(setting('TINYD_PARTNER_ID'));
const ADMIN_SECRET = setting('TINYD_ADMIN_SECRET');
const USER_SECRET = setting('TINYD_USER_SECRET');

// Runs share a server, so everything that a run creates or counts carries a name of its own.
const RUN = crypto.randomBytes(6).toString('hex');
const NAME = 'Übung – 日本 🔗 <&"\'>';
const GOTO_PATH = '/api_v3/service/shortlink_shortlink/action/goto/id/';
const now = () => Math.floor(Date.now() / 1000);

function newClient(ks) {
  const config = new kaltura.Configuration();
  config.serviceUrl = ADMIN_URL;
  // With the client's own logger every request would be printed, secrets and all.
  config.setLogger(null);
  const client = new kaltura.Client(config);
  return ks === undefined ? client : client.setKs(ks);
}

async function startedClient(secret, user, type) {
  const ks = await session.start(secret, user, type, PARTNER_ID, 3600).execute(newClient());
  assert.equal(typeof ks, 'string', 'session.start gives a bare string');
  return newClient(ks);
}

// The client has no exception class: a promise is rejected with the object that the server sent.
async function expectError(what, code, promise) {
  const error = await promise.then(
    (result) => assert.fail(`${what}: expected ${code}, got ${JSON.stringify(result)}`),
    (reason) => reason);
  if (error instanceof assert.AssertionError) throw error;
  assert.equal(error.code, code, `${what}: code of ${error.message}`);
  assert.equal(error.objectType, 'KalturaAPIException', what);
  return error;
}

const fetchOnce = (url) => fetch(url, { redirect: 'manual' });
const sorted = (values) => [...values].sort();

async function addAndGet(client) {
  const fullUrl = `https://example.com/watch?run=${RUN}&part=1`;
  const added = await links.add(new ShortLink({ systemName: `NODE-${RUN}`, fullUrl, name: NAME })).execute(client);
  assert.match(added.id, /^[0-9a-z]{4,20}$/);
  assert.ok(Math.abs(added.createdAt - now()) < 120, `createdAt is now, got ${added.createdAt}`);
  // The whole answer, so that types and the absence of null fields are held as well.
  assert.deepEqual(added, {
    id: added.id, createdAt: added.createdAt, updatedAt: added.createdAt, partnerId: PARTNER_ID,
    userId: `boss-${RUN}`, name: NAME, systemName: `NODE-${RUN}`, fullUrl,
    status: ShortLinkStatus.ENABLED, objectType: 'KalturaShortLink',
  });
  assert.deepEqual(await links.get(added.id).execute(client), added, 'get gives what add gave');
  return added;
}

// Five links of one systemName. All may fall within one second, so only expiresAt orders them strictly.
async function listing(client) {
  const group = `NODE-GROUP-${RUN}`;
  const far = now() + 100_000;
  const made = [];
  for (const [n, expiresAt] of [far + 30, far + 10, undefined, far + 40, far + 20].entries()) {
    const link = new ShortLink({ systemName: group, fullUrl: `https://example.com/${n}`, expiresAt });
    made.push(await links.add(link).execute(client));
  }
  const ids = made.map((link) => link.id);
  const page = (filters = {}, pager = null) =>
    links.listAction(new ShortLinkFilter({ systemNameEqual: group, ...filters }), pager).execute(client);
  const checkIds = async (filters, expected) => {
    const answer = await page(filters);
    const what = JSON.stringify(filters);
    assert.equal(answer.objectType, 'KalturaShortLinkListResponse');
    assert.equal(answer.totalCount, expected.length, `totalCount with ${what}`);
    assert.deepEqual(sorted(answer.objects.map((link) => link.id)), sorted(expected), what);
  };

  await checkIds({}, ids);
  await checkIds({ idIn: `${ids[1]},${ids[2]}` }, ids.slice(1, 3));
  await links.update(ids[4], new ShortLink({ status: ShortLinkStatus.DISABLED })).execute(client);
  await checkIds({ statusEqual: ShortLinkStatus.DISABLED }, ids.slice(4));
  await checkIds({ statusEqual: ShortLinkStatus.ENABLED }, ids.slice(0, 4));
  const times = sorted(made.map((link) => link.createdAt));
  await checkIds({ createdAtGreaterThanOrEqual: times[0], createdAtLessThanOrEqual: times[4] }, ids);
  await checkIds({ createdAtGreaterThanOrEqual: times[4] + 1 }, []);
  await checkIds({ createdAtLessThanOrEqual: times[0] - 1 }, []);
  console.log('ok list filters');

  const seen = [];
  for (const [pageIndex, size] of [[1, 2], [2, 2], [3, 1], [4, 0]]) {
    const answer = await page({}, new FilterPager({ pageSize: 2, pageIndex }));
    assert.equal(answer.totalCount, 5, `totalCount on page ${pageIndex}`);
    assert.equal(answer.objects.length, size, `objects on page ${pageIndex}`);
    seen.push(...answer.objects.map((link) => link.id));
  }
  assert.deepEqual(sorted(seen), sorted(ids), 'the pages together');
  console.log('ok list paging');

  const column = async (orderBy, field) => (await page({ orderBy })).objects.map((link) => link[field]);
  const rising = await column(ShortLinkOrderBy.CREATED_AT_ASC, 'createdAt');
  assert.deepEqual(rising, sorted(rising), '+createdAt rises');
  const falling = await column(ShortLinkOrderBy.CREATED_AT_DESC, 'createdAt');
  assert.deepEqual(falling, sorted(falling).reverse(), '-createdAt falls');
  // A link that never expires comes last either way.
  const order = (...places) => places.map((n) => ids[n]);
  assert.deepEqual(await column(ShortLinkOrderBy.EXPIRES_AT_ASC, 'id'), order(1, 4, 0, 3, 2), '+expiresAt');
  assert.deepEqual(await column(ShortLinkOrderBy.EXPIRES_AT_DESC, 'id'), order(3, 0, 4, 1, 2), '-expiresAt');
  console.log('ok list ordering');
}

async function updateAndClear(client, added) {
  const fullUrl = `https://example.com/elsewhere?run=${RUN}`;
  const updated = await links.update(added.id, new ShortLink({ fullUrl, expiresAt: now() + 9000 })).execute(client);
  assert.equal(updated.fullUrl, fullUrl, 'update changes what is given');
  assert.equal(updated.name, NAME, 'update leaves what is absent');
  assert.ok(updated.updatedAt >= added.updatedAt, 'updatedAt does not go back');

  // The client drops every null before it sends, so a null given to it changes nothing.
  const untouched = await links.update(added.id, new ShortLink({ name: null })).execute(client);
  assert.equal(untouched.name, NAME, 'a null that is never sent');
  console.log('ok update');

  // It has no word for clearing a field either, but it passes on whatever fields its objects have.
  const clearing = new ShortLink({ name__null: '', expiresAt__null: '' });
  const cleared = await links.update(added.id, clearing).execute(client);
  assert.ok(!('name' in cleared) && !('expiresAt' in cleared), `cleared: got ${JSON.stringify(cleared)}`);
  assert.equal(cleared.fullUrl, fullUrl, 'clearing leaves the rest');
  return cleared;
}

async function goto(link) {
  const index = `/api_v3/index.php?service=shortLink_shortLink&action=goto&id=${link.id}`;
  for (const url of [ADMIN_URL, PUBLIC_URL].flatMap((base) => [base + GOTO_PATH + link.id, base + index])) {
    const answer = await fetchOnce(url);
    assert.deepEqual([answer.status, answer.headers.get('location')], [302, link.fullUrl], url);
  }
  const tiny = `${PUBLIC_URL}/tiny/${link.id}`;
  const answer = await fetchOnce(tiny);
  assert.equal(answer.status, 301, tiny);
  assert.equal(new URL(answer.headers.get('location'), tiny).href, PUBLIC_URL + GOTO_PATH + link.id, tiny);
}

async function errors(client) {
  const short = new ShortLink({ systemName: `NODE-${RUN}`, fullUrl: 'http://a' });
  const error = await expectError('a short fullUrl', 'PROPERTY_VALIDATION_MIN_LENGTH', links.add(short).execute(client));
  assert.equal(error.args.PROP_NAME, 'KalturaShortLink::fullUrl');
  assert.equal(String(error.args.MIN_LEN), '10');
  await expectError('an unknown id', 'INVALID_OBJECT_ID', links.get('nosuchlink0000').execute(client));
  const bare = await expectError('no KS', 'MISSING_KS', links.listAction().execute(newClient()));
  assert.deepEqual(bare.args, [], 'args are an empty array where there are none');
}

async function multirequest(client) {
  const link = new ShortLink({ systemName: `NODE-MULTI-${RUN}`, fullUrl: 'https://example.com/multi' });
  // References count executed calls from 1, though the client numbers its calls from 0.
  const [added, got, listed] = await links.add(link)
    .add(links.get('{1:result:id}'))
    .add(links.listAction(new ShortLinkFilter({ idIn: '{2:result:id}' })))
    .execute(client);
  assert.deepEqual(got, added, 'get by reference');
  assert.deepEqual([listed.totalCount, listed.objects], [1, [added]], 'list by reference');
  console.log('ok multirequest');

  const [before, failed, after] = await links.get(added.id)
    .add(links.get('nosuchlink0000'))
    .add(links.deleteAction(added.id))
    .execute(client);
  assert.deepEqual([before?.id, failed?.code, after?.status],
    [added.id, 'INVALID_OBJECT_ID', ShortLinkStatus.DELETED], 'an exception in its place, and calls around it');
}

// The console loads its answers as scripts. vm gives the script a global of its own, as a page would.
async function jsonp(ks) {
  const call = async (action, parameters) => {
    const callback = `jQuery1910${RUN.replace(/\D/g, '')}_${Date.now()}`;
    const query = new URLSearchParams({
      service: 'shortlink_shortlink', action, kalsig: crypto.randomBytes(16).toString('hex'), format: '9',
      ...(ks ? { ks } : {}), ...parameters, callback, _: String(Date.now()),
    });
    const answer = await fetchOnce(`${ADMIN_URL}/api_v3/index.php?${query}`);
    assert.equal(answer.status, 200);
    assert.match(answer.headers.get('content-type'), /^application\/javascript/);
    let received;
    vm.runInNewContext(await answer.text(), { [callback]: (value) => { received = JSON.stringify(value); } });
    return JSON.parse(received ?? assert.fail('the callback was not called'));
  };
  const preview = {
    'shortLink:objectType': 'KalturaShortLink', 'shortLink:systemName': `KMC-PREVIEW-${RUN}`,
    'shortLink:fullUrl': `https://example.com/index.php/extwidget/preview/${RUN}?a=b&c=d`, 'shortLink:name': NAME,
  };
  const added = await call('add', preview);
  assert.equal(added.fullUrl, preview['shortLink:fullUrl']);
  assert.equal(added.name, NAME);
  assert.deepEqual(await call('get', { id: added.id }), added);
  assert.equal((await call('get', { id: 'nosuchlink0000' })).code, 'INVALID_OBJECT_ID');
}

async function sessionEnd(link) {
  const leaver = await startedClient(ADMIN_SECRET, `leaver-${RUN}`, SessionType.ADMIN);
  assert.equal((await links.get(link.id).execute(leaver)).id, link.id);
  assert.equal(await session.end().execute(leaver), null, 'session.end gives null');
  await expectError('after session.end', 'INVALID_KS', links.get(link.id).execute(leaver));
}

async function userSession(foreign) {
  const client = await startedClient(USER_SECRET, `user-${RUN}`, SessionType.USER);
  const own = await links.add(new ShortLink({ systemName: `NODE-${RUN}`, fullUrl: 'https://example.com/own' })).execute(client);
  assert.equal(own.userId, `user-${RUN}`);
  const seen = await links.listAction().execute(client);
  assert.deepEqual([seen.totalCount, seen.objects], [1, [own]], 'a user sees its own links only');
  await expectError('another\'s link', 'INVALID_OBJECT_ID', links.get(foreign.id).execute(client));
  await expectError('another\'s list', 'CANNOT_RETRIEVE_ANOTHER_USERS_SHORT_LINK',
    links.listAction(new ShortLinkFilter({ userIdEqual: foreign.userId })).execute(client));
}

async function disableAndDelete(client, link) {
  const disabled = await links.update(link.id, new ShortLink({ status: ShortLinkStatus.DISABLED })).execute(client);
  assert.equal(disabled.status, ShortLinkStatus.DISABLED);
  const answer = await fetchOnce(PUBLIC_URL + GOTO_PATH + link.id);
  assert.deepEqual([answer.status, answer.headers.get('x-kaltura')], [404, 'error-INVALID_SHORT_LINK']);
  console.log('ok disable');
  assert.equal((await links.deleteAction(link.id).execute(client)).status, ShortLinkStatus.DELETED);
  await expectError('get of a deleted link', 'INVALID_OBJECT_ID', links.get(link.id).execute(client));
}

async function main() {
  const client = await startedClient(ADMIN_SECRET, `boss-${RUN}`, SessionType.ADMIN);
  console.log('ok session start');
  assert.equal(await system.ping().execute(client), true);
  console.log('ok system');
  const added = await addAndGet(client);
  console.log('ok add and get');
  await listing(client);
  const link = await updateAndClear(client, added);
  console.log('ok clear');
  await goto(link);
  console.log('ok goto');
  await errors(client);
  console.log('ok errors');
  await multirequest(client);
  console.log('ok multirequest with a failing call');
  await jsonp(client.getKs());
  console.log('ok JSONP');
  await sessionEnd(link);
  console.log('ok session end');
  await userSession(link);
  console.log('ok user session');
  await disableAndDelete(client, link);
  console.log('ok delete');
}

main().catch((error) => {
  // What axios throws carries the whole request, KS and all; its message and the answer say enough.
  console.log('FAILED', error.isAxiosError ? [error.message, error.response?.data] : error);
  process.exitCode = 1;
});
