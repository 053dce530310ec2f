// What runs inside the browser: Kaltura's TypeScript client, unchanged, against a tinyd of another origin.
// Chromium therefore asks by preflight before each kind of call. Types are stripped by esbuild, not checked.
import { KalturaAPIException, KalturaBrowserHttpClient, KalturaMultiRequest } from 'kaltura-typescript-client';
import { KalturaFilterPager } from 'kaltura-typescript-client/types/KalturaFilterPager';
import { KalturaSessionType } from 'kaltura-typescript-client/types/KalturaSessionType';
import { KalturaShortLink } from 'kaltura-typescript-client/types/KalturaShortLink';
import { KalturaShortLinkFilter } from 'kaltura-typescript-client/types/KalturaShortLinkFilter';
import { KalturaShortLinkOrderBy } from 'kaltura-typescript-client/types/KalturaShortLinkOrderBy';
import { KalturaShortLinkStatus } from 'kaltura-typescript-client/types/KalturaShortLinkStatus';
import { SessionEndAction } from 'kaltura-typescript-client/types/SessionEndAction';
import { SessionStartAction } from 'kaltura-typescript-client/types/SessionStartAction';
import { ShortLinkAddAction } from 'kaltura-typescript-client/types/ShortLinkAddAction';
import { ShortLinkDeleteAction } from 'kaltura-typescript-client/types/ShortLinkDeleteAction';
import { ShortLinkGetAction } from 'kaltura-typescript-client/types/ShortLinkGetAction';
import { ShortLinkListAction } from 'kaltura-typescript-client/types/ShortLinkListAction';
import { ShortLinkUpdateAction } from 'kaltura-typescript-client/types/ShortLinkUpdateAction';
import { SystemPingAction } from 'kaltura-typescript-client/types/SystemPingAction';

interface Settings {
  adminUrl: string;
  partnerId: number;
  adminSecret: string;
  userSecret: string;
  run: string;
  landingUrl: string;
}

const NAME = 'Übung – 日本 🔗 <&"\'>';
const seconds = (date: Date) => date.getTime() / 1000;
const idsOf = (answer) => answer.objects.map((link) => link.id);
const sorted = (values) => [...values].sort((a, b) => (a < b ? -1 : Number(a > b)));
// The driver prints what is logged with this prefix.
const ok = (step: string) => console.log(`ok ${step}`);

function check(what: string, expected: unknown, actual: unknown) {
  const [wanted, got] = [JSON.stringify(expected), JSON.stringify(actual)];
  if (wanted !== got) throw new Error(`${what}: expected ${wanted}, got ${got}`);
}

// A rejected request must bring the client's own exception class, with the server's code in it.
async function expectError(what: string, code: string, request: Promise<unknown>) {
  const error = await request.then((result) => check(what, code, result), (reason) => reason);
  check(`${what}, class`, true, error instanceof KalturaAPIException);
  check(`${what}, code`, code, error.code);
}

function newClient(settings: Settings, ks?: string) {
  const client = new KalturaBrowserHttpClient({ endpointUrl: settings.adminUrl, clientTag: 'tinyd-test' });
  if (ks !== undefined) client.ks = ks;
  return client;
}

async function startedClient(settings: Settings, secret: string, userId: string, type: KalturaSessionType) {
  const { partnerId } = settings;
  const ks = await newClient(settings).request(new SessionStartAction({ secret, userId, type, partnerId }));
  return newClient(settings, ks);
}

async function listing(client, group: string) {
  const far = Math.floor(Date.now() / 1000) + 100_000;
  const made = [];
  for (const [n, expiresAt] of [far + 30, far + 10, undefined, far + 40, far + 20].entries()) {
    const shortLink = new KalturaShortLink({ systemName: group, fullUrl: `https://example.com/${n}`, expiresAt });
    made.push(await client.request(new ShortLinkAddAction({ shortLink })));
  }
  const ids = made.map((link) => link.id);
  const page = (filters = {}, pager?) => client.request(new ShortLinkListAction({
    filter: new KalturaShortLinkFilter({ systemNameEqual: group, ...filters }), pager,
  }));
  const checkIds = async (filters, expected) => {
    const answer = await page(filters);
    const what = `list with ${JSON.stringify(filters)}`;
    check(what, [expected.length, sorted(expected)], [answer.totalCount, sorted(idsOf(answer))]);
  };

  await checkIds({}, ids);
  await checkIds({ idIn: `${ids[1]},${ids[2]}` }, ids.slice(1, 3));
  const shortLink = new KalturaShortLink({ status: KalturaShortLinkStatus.disabled });
  await client.request(new ShortLinkUpdateAction({ id: ids[4], shortLink }));
  await checkIds({ statusEqual: KalturaShortLinkStatus.disabled }, ids.slice(4));
  await checkIds({ statusEqual: KalturaShortLinkStatus.enabled }, ids.slice(0, 4));
  const times = sorted(made.map((link) => seconds(link.createdAt)));
  const at = (second: number) => new Date(second * 1000);
  await checkIds({ createdAtGreaterThanOrEqual: at(times[0]), createdAtLessThanOrEqual: at(times[4]) }, ids);
  await checkIds({ createdAtGreaterThanOrEqual: at(times[4] + 1) }, []);
  await checkIds({ createdAtLessThanOrEqual: at(times[0] - 1) }, []);
  ok('list filters');

  const seen = [];
  for (const [pageIndex, size] of [[1, 2], [2, 2], [3, 1], [4, 0]]) {
    const answer = await page({}, new KalturaFilterPager({ pageSize: 2, pageIndex }));
    check(`page ${pageIndex}`, [5, size], [answer.totalCount, answer.objects.length]);
    seen.push(...idsOf(answer));
  }
  check('the pages together', sorted(ids), sorted(seen));
  ok('list paging');

  // All five may fall within one second, so only expiresAt orders them strictly; never comes last either way.
  const ordered = (orderBy) => page({ orderBy: orderBy.toString() });
  const created = async (orderBy) => (await ordered(orderBy)).objects.map((link) => seconds(link.createdAt));
  const rising = await created(KalturaShortLinkOrderBy.createdAtAsc);
  check('+createdAt rises', sorted(rising), rising);
  const falling = await created(KalturaShortLinkOrderBy.createdAtDesc);
  check('-createdAt falls', sorted(falling).reverse(), falling);
  const places = (...order: number[]) => order.map((n) => ids[n]);
  check('+expiresAt', places(1, 4, 0, 3, 2), idsOf(await ordered(KalturaShortLinkOrderBy.expiresAtAsc)));
  check('-expiresAt', places(3, 0, 4, 1, 2), idsOf(await ordered(KalturaShortLinkOrderBy.expiresAtDesc)));
  ok('list ordering');
}

async function updateAndClear(client, added) {
  const update = (data) =>
    client.request(new ShortLinkUpdateAction({ id: added.id, shortLink: new KalturaShortLink(data) }));
  const updated = await update({ systemName: `${added.systemName}-2`, expiresAt: Math.floor(Date.now() / 1000) + 9000 });
  check('update changes what is given', `${added.systemName}-2`, updated.systemName);
  check('update leaves what is absent', [NAME, added.fullUrl], [updated.name, updated.fullUrl]);
  check('updatedAt does not go back', true, updated.updatedAt >= added.updatedAt);
  ok('update');

  // This client sends a null as name__null.
  await update({ name: null, expiresAt: null });
  const cleared = await client.request(new ShortLinkGetAction({ id: added.id }));
  check('cleared', [undefined, undefined, added.fullUrl], [cleared.name, cleared.expiresAt, cleared.fullUrl]);
  ok('clear');
}

async function multirequest(client, run: string) {
  const shortLink = new KalturaShortLink({ systemName: `TS-MULTI-${run}`, fullUrl: 'https://example.com/multi' });
  // setDependency counts calls from 0, and sends references that count from 1.
  const [added, got, listed] = await client.multiRequest(new KalturaMultiRequest(
    new ShortLinkAddAction({ shortLink }),
    new ShortLinkGetAction({ id: '' }).setDependency(['id', 0, 'id']),
    new ShortLinkListAction({ filter: new KalturaShortLinkFilter().setDependency(['idIn', 1, 'id']) }),
  ));
  check('errors of the multirequest', [null, null, null], [added, got, listed].map(({ error }) => error ?? null));
  check('get by reference', added.result, got.result);
  check('list by reference', [1, [added.result.id]], [listed.result.totalCount, idsOf(listed.result)]);
  ok('multirequest');

  const answer = await client.multiRequest(new KalturaMultiRequest(
    new ShortLinkGetAction({ id: added.result.id }),
    new ShortLinkGetAction({ id: 'nosuchlink0000' }),
    new ShortLinkDeleteAction({ id: added.result.id }),
  ));
  const [before, failed, after] = answer;
  check('hasErrors', true, answer.hasErrors());
  check('the call before', added.result.id, before.result?.id);
  check('an exception in its place', true, failed.error instanceof KalturaAPIException);
  check('its code', 'INVALID_OBJECT_ID', failed.error.code);
  check('the call after', KalturaShortLinkStatus.deleted, after.result?.status);
  ok('multirequest with a failing call');
}

// Returns the links that the driver then follows in the address bar.
async function exercise(settings: Settings) {
  const { run, landingUrl } = settings;
  const client = await startedClient(settings, settings.adminSecret, `boss-${run}`, KalturaSessionType.admin);
  ok('session start');
  check('ping', true, await client.request(new SystemPingAction()));
  ok('system');

  const shortLink = new KalturaShortLink({ systemName: `TS-${run}`, fullUrl: landingUrl, name: NAME });
  const added = await client.request(new ShortLinkAddAction({ shortLink }));
  check('add', [NAME, landingUrl, `TS-${run}`, `boss-${run}`, settings.partnerId, KalturaShortLinkStatus.enabled],
    [added.name, added.fullUrl, added.systemName, added.userId, added.partnerId, added.status]);
  check('createdAt is now', true, Math.abs(added.createdAt.getTime() - Date.now()) < 120_000);
  check('get gives what add gave', added, await client.request(new ShortLinkGetAction({ id: added.id })));
  ok('add and get');

  await listing(client, `TS-GROUP-${run}`);
  await updateAndClear(client, added);

  const tooShort = new KalturaShortLink({ systemName: `TS-${run}`, fullUrl: 'http://a' });
  await expectError('a short fullUrl', 'PROPERTY_VALIDATION_MIN_LENGTH',
    client.request(new ShortLinkAddAction({ shortLink: tooShort })));
  await expectError('an unknown id', 'INVALID_OBJECT_ID', client.request(new ShortLinkGetAction({ id: 'nosuchlink0000' })));
  await expectError('no KS', 'MISSING_KS', newClient(settings).request(new ShortLinkListAction()));
  ok('errors');

  await multirequest(client, run);

  const leaver = await startedClient(settings, settings.adminSecret, `leaver-${run}`, KalturaSessionType.admin);
  check('before session.end', added.id, (await leaver.request(new ShortLinkGetAction({ id: added.id }))).id);
  check('session.end', null, await leaver.request(new SessionEndAction()));
  await expectError('after session.end', 'INVALID_KS', leaver.request(new ShortLinkGetAction({ id: added.id })));
  ok('session end');

  const user = await startedClient(settings, settings.userSecret, `user-${run}`, KalturaSessionType.user);
  const ownLink = new KalturaShortLink({ systemName: `TS-${run}`, fullUrl: 'https://example.com/own' });
  const own = await user.request(new ShortLinkAddAction({ shortLink: ownLink }));
  const seen = await user.request(new ShortLinkListAction());
  check('a user sees its own links only', [1, [own.id]], [seen.totalCount, idsOf(seen)]);
  await expectError('another\'s link', 'INVALID_OBJECT_ID', user.request(new ShortLinkGetAction({ id: added.id })));
  ok('user session');

  const disabling = new KalturaShortLink({ status: KalturaShortLinkStatus.disabled });
  const disabled = await client.request(new ShortLinkUpdateAction({ id: own.id, shortLink: disabling }));
  check('disabled', KalturaShortLinkStatus.disabled, disabled.status);
  const doomed = await client.request(new ShortLinkAddAction({ shortLink: ownLink }));
  const deleted = await client.request(new ShortLinkDeleteAction({ id: doomed.id }));
  check('delete', KalturaShortLinkStatus.deleted, deleted.status);
  await expectError('get of a deleted link', 'INVALID_OBJECT_ID', client.request(new ShortLinkGetAction({ id: doomed.id })));
  ok('delete');
  return { live: added.id, disabled: own.id };
}

// The client's exception is not an Error, and would reach the driver without its words.
(globalThis as any).exercise = (settings: Settings) => exercise(settings).catch((reason) => {
  throw reason instanceof KalturaAPIException ? new Error(`unexpected ${reason.code}: ${reason.message}`) : reason;
});
