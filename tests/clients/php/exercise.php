<?php
// Drives a running tinyd as Kaltura's PHP client does: a JSON POST with format 3, answered by PHP's own
// serialize(). It needs nothing but PHP itself; HTTP goes through stream contexts, as it does in that client
// where curl is missing. One line is printed for each step that held.
declare(strict_types=1);

// unserialize() finds these by the names in the answer. A property that is not declared here is deprecated
// in PHP, and so an error below: objectType and other strays do not pass unseen.
class KalturaShortLink
{
    public $id, $createdAt, $updatedAt, $expiresAt, $partnerId, $userId, $name, $systemName, $fullUrl, $uniqueId, $status;
}

class KalturaShortLinkListResponse
{
    public $objects, $totalCount;
}

class ApiException extends Exception
{
    public function __construct(public readonly array $answer)
    {
        parent::__construct("$answer[code]: $answer[message]");
    }
}

set_error_handler(function (int $level, string $message, string $file, int $line): never {
    throw new ErrorException($message, 0, $level, $file, $line);
});

function setting(string $name): string
{
    return getenv($name) ?: throw new RuntimeException("$name is not set");
}

define('ADMIN_URL', rtrim(setting('TINYD_ADMIN_URL'), '/'));
define('PUBLIC_URL', rtrim(setting('TINYD_PUBLIC_URL'), '/'));
define('PARTNER_ID', (int) setting('TINYD_PARTNER_ID'));
define('ADMIN_SECRET', setting('TINYD_ADMIN_SECRET'));
// Runs share a server, so everything that a run creates or counts carries a name of its own.
define('RUN', bin2hex(random_bytes(6)));
const NAME = "Übung – 日本 🔗 <&\"'>";
const GOTO_PATH = '/api_v3/service/shortlink_shortlink/action/goto/id/';

function check(string $what, mixed $expected, mixed $actual): void
{
    if ($expected !== $actual) {
        $show = fn (mixed $value): string => var_export($value, true);
        throw new UnexpectedValueException("$what: expected {$show($expected)}, got {$show($actual)}");
    }
}

/** @return array{int, array<string, string>, string} status, headers by lower-case name, body */
function http(string $url, ?string $json = null): array
{
    $options = ['follow_location' => 0, 'ignore_errors' => true, 'timeout' => 30];
    if ($json !== null) {
        $options += ['method' => 'POST', 'header' => 'Content-Type: application/json', 'content' => $json];
    }
    $stream = fopen($url, 'rb', false, stream_context_create(['http' => $options]));
    $lines = stream_get_meta_data($stream)['wrapper_data'];
    $headers = [];
    foreach (array_slice($lines, 1) as $line) {
        [$name, $value] = explode(':', $line, 2);
        $headers[strtolower($name)] = trim($value);
    }
    return [(int) explode(' ', $lines[0])[1], $headers, stream_get_contents($stream)];
}

/** Sends what the client sends: scalars as strings but for booleans, unset values left out. */
function request(string $path, array $parameters, ?string $ks): mixed
{
    $parameters = ['format' => '3', 'ignoreNull' => true, 'clientTag' => 'php5:test', 'apiVersion' => '21.20.0']
        + $parameters + ($ks === null ? [] : ['ks' => $ks]);
    $parameters['kalsig'] = md5(json_encode($parameters));
    [$status, $headers, $body] = http(ADMIN_URL . "/api_v3/service/$path", json_encode($parameters));
    check("status of $path", 200, $status);
    check("type of $path", 'text/plain', strtolower(explode(';', $headers['content-type'])[0]));
    $result = unserialize($body, ['allowed_classes' => [KalturaShortLink::class, KalturaShortLinkListResponse::class]]);
    if (!str_contains($body, 'O:')) {
        // Without objects PHP must write it again byte for byte, which also rules out anything behind it.
        check("answer of $path", serialize($result), $body);
    }
    return $result;
}

function call(string $service, string $action, array $parameters, ?string $ks): mixed
{
    $result = request("$service/action/$action", $parameters, $ks);
    // This is how the client tells an exception from a result.
    if (is_array($result) && isset($result['message']) && isset($result['code'])) {
        throw new ApiException($result);
    }
    return $result;
}

function links(string $action, array $parameters, ?string $ks): KalturaShortLink|KalturaShortLinkListResponse
{
    $types = ['shortLink' => 'KalturaShortLink', 'filter' => 'KalturaShortLinkFilter', 'pager' => 'KalturaFilterPager'];
    foreach (array_intersect_key($types, $parameters) as $name => $type) {
        $parameters[$name] = ['objectType' => $type] + $parameters[$name];
    }
    return call('shortlink_shortlink', $action, $parameters, $ks);
}

function expectError(string $what, string $code, callable $call): array
{
    try {
        $answer = $call();
    } catch (ApiException $exception) {
        check("$what, fields", ['code', 'message', 'objectType', 'args'], array_keys($exception->answer));
        check("$what, code", $code, $exception->answer['code']);
        check("$what, type", 'KalturaAPIException', $exception->answer['objectType']);
        return $exception->answer['args'];
    }
    throw new UnexpectedValueException("$what: expected $code, got " . var_export($answer, true));
}

function start(string $secret, string $user, int $type): string
{
    $parameters = ['secret' => $secret, 'userId' => $user, 'type' => (string) $type, 'partnerId' => (string) PARTNER_ID];
    $ks = call('session', 'start', $parameters + ['expiry' => '3600'], null);
    check('session.start gives a string', true, is_string($ks) && strlen($ks) > 20);
    return $ks;
}

function ids(KalturaShortLinkListResponse $answer): array
{
    check('objects are a list', true, array_is_list($answer->objects));
    return array_map(fn (KalturaShortLink $link): string => $link->id, $answer->objects);
}

function sorted(array $values): array
{
    sort($values);
    return $values;
}

function listing(string $ks): void
{
    $group = 'PHP-GROUP-' . RUN;
    $far = time() + 100_000;
    $made = [];
    foreach ([$far + 30, $far + 10, 0, $far + 40, $far + 20] as $n => $expiry) {
        $link = ['systemName' => $group, 'fullUrl' => "https://example.com/$n", 'expiresAt' => (string) $expiry];
        $made[] = links('add', ['shortLink' => $link], $ks);
    }
    $id = array_column($made, 'id');
    check('expiresAt is an int', $far + 30, $made[0]->expiresAt);
    check('expiresAt 0 is never', null, $made[2]->expiresAt);
    $page = fn (array $filter = [], array $pager = ['pageSize' => '30']): KalturaShortLinkListResponse =>
        links('list', ['filter' => ['systemNameEqual' => $group] + $filter, 'pager' => $pager], $ks);
    $checkIds = function (array $filter, array $expected) use ($page): void {
        $answer = $page($filter);
        $got = [$answer->totalCount, sorted(ids($answer))];
        check('list with ' . json_encode($filter), [count($expected), sorted($expected)], $got);
    };

    $checkIds([], $id);
    $checkIds(['idIn' => "$id[1],$id[2]"], [$id[1], $id[2]]);
    links('update', ['id' => $id[4], 'shortLink' => ['status' => '1']], $ks);
    $checkIds(['statusEqual' => '1'], [$id[4]]);
    $times = sorted(array_column($made, 'createdAt'));
    $range = ['createdAtGreaterThanOrEqual' => (string) $times[0], 'createdAtLessThanOrEqual' => (string) $times[4]];
    $checkIds($range, $id);
    $checkIds(['createdAtGreaterThanOrEqual' => (string) ($times[4] + 1)], []);
    echo "ok list filters\n";

    $seen = [];
    foreach ([1 => 2, 2 => 2, 3 => 1, 4 => 0] as $index => $size) {
        $answer = $page([], ['pageSize' => '2', 'pageIndex' => (string) $index]);
        check("page $index", [5, $size], [$answer->totalCount, count($answer->objects)]);
        $seen = [...$seen, ...ids($answer)];
    }
    check('the pages together', sorted($id), sorted($seen));
    echo "ok list paging\n";

    $rising = array_column($page(['orderBy' => '+createdAt'])->objects, 'createdAt');
    check('+createdAt rises', sorted($rising), $rising);
    $falling = array_column($page(['orderBy' => '-createdAt'])->objects, 'createdAt');
    check('-createdAt falls', array_reverse(sorted($falling)), $falling);
    // All five may fall within one second, so only expiresAt orders them strictly; never comes last either way.
    check('+expiresAt', [$id[1], $id[4], $id[0], $id[3], $id[2]], ids($page(['orderBy' => '+expiresAt'])));
    check('-expiresAt', [$id[3], $id[0], $id[4], $id[1], $id[2]], ids($page(['orderBy' => '-expiresAt'])));
    echo "ok list ordering\n";
}

function multirequest(string $ks): void
{
    // The client numbers calls from 0 and puts the KS into each; references count executed calls from 1.
    $call = fn (string $action, array $parameters): array =>
        ['service' => 'shortlink_shortlink', 'action' => $action, 'ks' => $ks] + $parameters;
    $link = ['objectType' => 'KalturaShortLink', 'systemName' => 'PHP-MULTI-' . RUN, 'fullUrl' => 'https://example.com/multi'];
    $results = request('multirequest', [
        '0' => $call('add', ['shortLink' => $link]),
        '1' => $call('get', ['id' => 'nosuchlink0000']),
        '2' => $call('get', ['id' => '{1:result:id}']),
        '3' => $call('list', ['filter' => ['objectType' => 'KalturaShortLinkFilter', 'idIn' => '{3:result:id}']]),
        '4' => ['service' => 'system', 'action' => 'ping'],
    ], null);
    check('results are a list of five', [true, 5], [array_is_list($results), count($results)]);
    [$added, $failed, $got, $listed, $pong] = $results;
    check('an exception in its place', 'INVALID_OBJECT_ID', $failed['code']);
    check('get by reference', (array) $added, (array) $got);
    check('list by reference', [1, [$added->id]], [$listed->totalCount, ids($listed)]);
    check('ping', true, $pong);
    echo "ok multirequest with a failing call\n";
}

/** The client's generateSession: version 1 carries its fields in the open, behind a signature. */
function mintV1(string $user): string
{
    $info = implode(';', [PARTNER_ID, PARTNER_ID, time() + 3600, 2, random_int(0, 32000), $user, '']);
    return base64_encode(sha1(ADMIN_SECRET . $info) . "|$info");
}

/** The client's generateSessionV2: version 2 encrypts them, and its base64 is safe in a URL. */
function mintV2(string $user): string
{
    $body = random_bytes(16) . http_build_query(['disableentitlement' => '', '_e' => time() + 3600, '_t' => 2, '_u' => $user]);
    $plain = sha1($body, true) . $body;
    $plain .= str_repeat("\0", (16 - strlen($plain) % 16) % 16);
    $key = substr(sha1(ADMIN_SECRET, true), 0, 16);
    $cipher = openssl_encrypt($plain, 'aes-128-cbc', $key, OPENSSL_RAW_DATA | OPENSSL_ZERO_PADDING, str_repeat("\0", 16));
    return strtr(base64_encode('v2|' . PARTNER_ID . "|$cipher"), '+/', '-_');
}

function main(): void
{
    $ks = start(ADMIN_SECRET, 'boss-' . RUN, 2);
    echo "ok session start\n";
    check('ping', true, call('system', 'ping', [], null));
    check('getTime is now', true, abs(call('system', 'getTime', [], null) - time()) < 120);
    echo "ok system\n";

    $url = 'https://example.com/watch?run=' . RUN . '&part=1';
    $added = links('add', ['shortLink' => ['systemName' => 'PHP-' . RUN, 'fullUrl' => $url, 'name' => NAME]], $ks);
    $expected = ['id' => $added->id, 'createdAt' => $added->createdAt, 'updatedAt' => $added->createdAt,
        'expiresAt' => null, 'partnerId' => PARTNER_ID, 'userId' => 'boss-' . RUN, 'name' => NAME,
        'systemName' => 'PHP-' . RUN, 'fullUrl' => $url, 'uniqueId' => null, 'status' => 2];
    check('add', $expected, (array) $added);
    check('types', [true, true], [is_string($added->id), is_int($added->createdAt)]);
    check('get gives what add gave', $expected, (array) links('get', ['id' => $added->id], $ks));
    echo "ok add and get\n";

    listing($ks);

    $updated = links('update', ['id' => $added->id, 'shortLink' => ['expiresAt' => (string) (time() + 9000)]], $ks);
    check('update leaves what is absent', [NAME, $url], [$updated->name, $updated->fullUrl]);
    // KalturaNull turns into these.
    $nulls = ['name__null' => '', 'expiresAt__null' => ''];
    $cleared = links('update', ['id' => $added->id, 'shortLink' => $nulls], $ks);
    check('cleared', [null, null, $url], [$cleared->name, $cleared->expiresAt, $cleared->fullUrl]);
    echo "ok update and clear\n";

    foreach ([ADMIN_URL, PUBLIC_URL] as $base) {
        [$status, $headers] = http($base . GOTO_PATH . $added->id);
        check("goto at $base", [302, $url], [$status, $headers['location'] ?? null]);
    }
    [$status, $headers] = http(PUBLIC_URL . "/tiny/$added->id");
    check('/tiny', [301, GOTO_PATH . $added->id], [$status, parse_url($headers['location'] ?? '', PHP_URL_PATH)]);
    echo "ok goto\n";

    $short = ['shortLink' => ['systemName' => 'PHP-' . RUN, 'fullUrl' => 'http://a']];
    $args = expectError('a short fullUrl', 'PROPERTY_VALIDATION_MIN_LENGTH', fn () => links('add', $short, $ks));
    check('args', ['KalturaShortLink::fullUrl', '10'], [$args['PROP_NAME'], (string) $args['MIN_LEN']]);
    expectError('an unknown id', 'INVALID_OBJECT_ID', fn () => links('get', ['id' => 'nosuchlink0000'], $ks));
    check('args without any', [], expectError('no KS', 'MISSING_KS', fn () => links('list', [], null)));
    echo "ok errors\n";

    multirequest($ks);
    foreach (['mintV1', 'mintV2'] as $mint) {
        check($mint, $added->id, links('get', ['id' => $added->id], $mint('minter'))->id);
        echo "ok $mint\n";
    }

    $leaver = start(ADMIN_SECRET, 'leaver-' . RUN, 2);
    check('session.end', null, call('session', 'end', [], $leaver));
    expectError('after session.end', 'INVALID_KS', fn () => links('get', ['id' => $added->id], $leaver));
    echo "ok session end\n";

    $user = start(setting('TINYD_USER_SECRET'), 'user-' . RUN, 0);
    $own = links('add', ['shortLink' => ['systemName' => 'PHP-' . RUN, 'fullUrl' => 'https://example.com/own']], $user);
    $seen = links('list', [], $user);
    check('a user sees its own links only', [1, [$own->id]], [$seen->totalCount, ids($seen)]);
    expectError('another\'s link', 'INVALID_OBJECT_ID', fn () => links('get', ['id' => $added->id], $user));
    echo "ok user session\n";

    check('disable', 1, links('update', ['id' => $added->id, 'shortLink' => ['status' => '1']], $ks)->status);
    [$status, $headers] = http(PUBLIC_URL . GOTO_PATH . $added->id);
    check('goto of a disabled link', [404, 'error-INVALID_SHORT_LINK'], [$status, $headers['x-kaltura'] ?? null]);
    echo "ok disable\n";

    check('delete', 3, links('delete', ['id' => $added->id], $ks)->status);
    expectError('get of a deleted link', 'INVALID_OBJECT_ID', fn () => links('get', ['id' => $added->id], $ks));
    echo "ok delete\n";
}

try {
    main();
} catch (Throwable $failure) {
    // Not the whole trace: it would show the arguments, secrets among them.
    echo "FAILED {$failure->getMessage()}\n";
    exit(1);
}
