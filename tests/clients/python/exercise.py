"""Drives a running tinyd with KalturaApiClient, the client that Kaltura publishes for Python.

The client posts JSON in which every value is a string, asks for XML (format 2) and reads the answer with
lxml. One line is printed for each step that held; the first thing that does not hold ends the run.
"""

import os
import secrets
import sys
import time
from urllib.parse import urljoin

import requests
from KalturaClient import KalturaClient, KalturaConfiguration
from KalturaClient.exceptions import KalturaClientException, KalturaException
from KalturaClient.Plugins.Core import KalturaFilterPager, KalturaSessionType
from KalturaClient.Plugins.ShortLink import (
    KalturaShortLink, KalturaShortLinkFilter, KalturaShortLinkOrderBy, KalturaShortLinkStatus)

ADMIN_URL = os.environ["TINYD_ADMIN_URL"].rstrip("/")
PUBLIC_URL = os.environ["TINYD_PUBLIC_URL"].rstrip("/")
PARTNER_ID = int(os.environ["TINYD_PARTNER_ID"])
ADMIN_SECRET = os.environ["TINYD_ADMIN_SECRET"]
USER_SECRET = os.environ["TINYD_USER_SECRET"]

# Runs share a server, so everything that a run creates or counts carries a name of its own.
RUN = secrets.token_hex(6)
# The client escapes this to ASCII, and what lies outside the basic plane to a surrogate pair.
NAME = "Übung – 日本 🔗 <&\"'>"
GOTO_PATH = "/api_v3/service/shortlink_shortlink/action/goto/id/"


class Mismatch(Exception):
    """What came is not what was expected."""


def check(what, expected, actual):
    if expected != actual:
        raise Mismatch(f"{what}: expected {expected!r}, got {actual!r}")


def check_that(what, holds, actual):
    if not holds:
        raise Mismatch(f"{what}: got {actual!r}")


def expect_error(what, code, call):
    """The client must raise its own exception class, with the server's code in it."""
    try:
        answer = call()
    except KalturaException as error:
        check(f"{what}, code", code, error.code)
        check_that(f"{what}, message is not empty", error.message != "", error.message)
    else:
        raise Mismatch(f"{what}: expected KalturaException {code}, got {answer!r}")


def new_client(ks=None):
    client = KalturaClient(KalturaConfiguration(ADMIN_URL))
    if ks is not None:
        client.setKs(ks)
    return client


def started_client(secret, user, type_):
    ks = new_client().session.start(secret, user, type_, PARTNER_ID, 3600, "disableentitlement")
    check_that("session.start gives a KS", isinstance(ks, str) and len(ks) > 20, ks)
    return new_client(ks)


def links_of(client):
    # A plugin and its service bear the same name.
    return client.shortLink.shortLink


def fetch(url):
    return requests.get(url, allow_redirects=False, timeout=30)


def add_and_get(links):
    link = KalturaShortLink(
        systemName=f"PY-{RUN}", fullUrl=f"https://example.com/watch?run={RUN}&part=1", name=NAME)
    added = links.add(link)
    check_that("id has 4 to 20 characters", 4 <= len(added.id) <= 20, added.id)
    check("partnerId", PARTNER_ID, added.partnerId)
    check("owner is the user of the KS", f"boss-{RUN}", added.userId)
    check("name", NAME, added.name)
    check("fullUrl", link.fullUrl, added.fullUrl)
    check("status", KalturaShortLinkStatus.ENABLED, added.status.getValue())
    # An absent or empty element is how a field that is null reaches this client in XML.
    check_that("expiresAt is null", added.expiresAt in (None, NotImplemented), added.expiresAt)
    check_that("createdAt is now", abs(added.createdAt - time.time()) < 120, added.createdAt)
    got = links.get(added.id)
    check("status by get", added.status.getValue(), got.status.getValue())
    # Statuses are objects without equality; all else must be the same.
    check("get gives what add gave", {**vars(added), "status": None}, {**vars(got), "status": None})
    return added


def listing(links):
    """Five links of one systemName. All may fall within one second, so only expiresAt orders them strictly."""
    group = f"PY-GROUP-{RUN}"
    far = int(time.time()) + 100_000
    expiries = [far + 30, far + 10, NotImplemented, far + 40, far + 20]
    made = [
        links.add(KalturaShortLink(systemName=group, fullUrl=f"https://example.com/{n}", expiresAt=expiry))
        for n, expiry in enumerate(expiries)
    ]
    ids = [link.id for link in made]

    def page(pager=NotImplemented, **filters):
        return links.list(KalturaShortLinkFilter(systemNameEqual=group, **filters), pager)

    def check_ids(what, expected, answer):
        check(f"{what}, totalCount", len(expected), answer.totalCount)
        check(what, sorted(expected), sorted(link.id for link in answer.objects))

    check_ids("systemNameEqual", ids, page())
    check_ids("idIn", ids[1:3], page(idIn=f"{ids[1]}, {ids[2]}"))
    links.update(ids[4], KalturaShortLink(status=KalturaShortLinkStatus.DISABLED))
    check_ids("statusEqual 1", ids[4:], page(statusEqual=KalturaShortLinkStatus.DISABLED))
    check_ids("statusEqual 2", ids[:4], page(statusEqual=KalturaShortLinkStatus.ENABLED))
    first, last = min(m.createdAt for m in made), max(m.createdAt for m in made)
    check_ids("createdAt range", ids, page(createdAtGreaterThanOrEqual=first, createdAtLessThanOrEqual=last))
    check_ids("createdAt after the last", [], page(createdAtGreaterThanOrEqual=last + 1))
    check_ids("createdAt before the first", [], page(createdAtLessThanOrEqual=first - 1))
    print("ok list filters")

    seen = []
    for index, size in ((1, 2), (2, 2), (3, 1), (4, 0)):
        answer = page(KalturaFilterPager(pageSize=2, pageIndex=index))
        check(f"page {index}, totalCount", 5, answer.totalCount)
        check(f"page {index}, objects", size, len(answer.objects))
        seen += [link.id for link in answer.objects]
    check("the pages together", sorted(ids), sorted(seen))
    print("ok list paging")

    rising = [link.createdAt for link in page(orderBy=KalturaShortLinkOrderBy.CREATED_AT_ASC).objects]
    check("+createdAt rises", sorted(rising), rising)
    falling = [link.createdAt for link in page(orderBy=KalturaShortLinkOrderBy.CREATED_AT_DESC).objects]
    check("-createdAt falls", sorted(falling, reverse=True), falling)
    # A link that never expires comes last either way.
    by_expiry = [ids[1], ids[4], ids[0], ids[3], ids[2]]
    rising = [link.id for link in page(orderBy=KalturaShortLinkOrderBy.EXPIRES_AT_ASC).objects]
    check("+expiresAt", by_expiry, rising)
    falling = [link.id for link in page(orderBy=KalturaShortLinkOrderBy.EXPIRES_AT_DESC).objects]
    check("-expiresAt", [*reversed(by_expiry[:4]), ids[2]], falling)
    print("ok list ordering")


def update_and_clear(links, added):
    new_url = f"https://example.com/elsewhere?run={RUN}"
    updated = links.update(added.id, KalturaShortLink(fullUrl=new_url, expiresAt=int(time.time()) + 9000))
    check("update changes what is given", new_url, updated.fullUrl)
    check("update leaves what is absent", (NAME, added.systemName), (updated.name, updated.systemName))
    check_that("updatedAt does not go back", updated.updatedAt >= added.updatedAt, updated.updatedAt)
    print("ok update")

    # None is this client's null: it travels as name__null and expiresAt__null.
    links.update(added.id, KalturaShortLink(name=None, expiresAt=None))
    cleared = links.get(added.id)
    check_that("name is cleared", cleared.name in ("", NotImplemented), cleared.name)
    check_that("expiresAt is cleared", cleared.expiresAt in (None, NotImplemented), cleared.expiresAt)
    check("clearing leaves the rest", new_url, cleared.fullUrl)
    return cleared


def goto(links, link):
    # goto() sends nothing: it makes a URL, with the KS, the format and a signature among its parameters.
    for url in (
        links.goto(link.id),
        ADMIN_URL + GOTO_PATH + link.id,
        PUBLIC_URL + GOTO_PATH + link.id,
        f"{PUBLIC_URL}/api_v3/index.php?service=shortLink_shortLink&action=goto&id={link.id}",
    ):
        answer = fetch(url)
        check(f"GET {url}", (302, link.fullUrl), (answer.status_code, answer.headers.get("Location")))
    tiny = f"{PUBLIC_URL}/tiny/{link.id}"
    answer = fetch(tiny)
    check(f"GET {tiny}", 301, answer.status_code)
    check("where /tiny leads", PUBLIC_URL + GOTO_PATH + link.id, urljoin(tiny, answer.headers["Location"]))


def disable_and_delete(links, link):
    disabled = links.update(link.id, KalturaShortLink(status=KalturaShortLinkStatus.DISABLED))
    check("status", KalturaShortLinkStatus.DISABLED, disabled.status.getValue())
    answer = fetch(PUBLIC_URL + GOTO_PATH + link.id)
    got = (answer.status_code, answer.headers.get("X-Kaltura"))
    check("goto of a disabled link", (404, "error-INVALID_SHORT_LINK"), got)
    print("ok disable")
    check("status", KalturaShortLinkStatus.DELETED, links.delete(link.id).status.getValue())
    expect_error("get of a deleted link", "INVALID_OBJECT_ID", lambda: links.get(link.id))


def errors(links):
    short = KalturaShortLink(systemName=f"PY-{RUN}", fullUrl="http://a")
    expect_error("a short fullUrl", "PROPERTY_VALIDATION_MIN_LENGTH", lambda: links.add(short))
    expect_error("an unknown id", "INVALID_OBJECT_ID", lambda: links.get("nosuchlink0000"))
    expect_error("no KS", "MISSING_KS", lambda: links_of(new_client()).list())


def multirequest(client):
    links = links_of(client)
    client.startMultiRequest()
    # While calls are queued, each gives a stand-in; its attributes turn into "{1:result:id}".
    added = links.add(KalturaShortLink(systemName=f"PY-MULTI-{RUN}", fullUrl="https://example.com/multi"))
    links.get(added.id)
    links.list(KalturaShortLinkFilter(idIn=added.id))
    results = client.doMultiRequest()
    types = ["KalturaShortLink", "KalturaShortLink", "KalturaShortLinkListResponse"]
    check("types of the results", types, [type(result).__name__ for result in results])
    first, second, third = results
    check("get by reference", first.id, second.id)
    check("list by reference", (1, first.id), (third.totalCount, third.objects[0].id))
    print("ok multirequest")

    client.startMultiRequest()
    links.get(first.id)
    links.get("nosuchlink0000")
    links.delete(first.id)
    results = client.doMultiRequest()
    types = ["KalturaShortLink", "KalturaException", "KalturaShortLink"]
    check("types around a failing call", types, [type(result).__name__ for result in results])
    before, failed, after = results
    check("the call before", first.id, before.id)
    check("the failing call", "INVALID_OBJECT_ID", failed.code)
    check("the call after", KalturaShortLinkStatus.DELETED, after.status.getValue())


def sessions(link):
    for mint in (KalturaClient.generateSession, KalturaClient.generateSessionV2):
        ks = mint(ADMIN_SECRET, "minter", KalturaSessionType.ADMIN, PARTNER_ID, 3600, "disableentitlement")
        check(f"a KS from {mint.__name__}", link.id, links_of(new_client(ks)).get(link.id).id)
        forged = mint(ADMIN_SECRET + "x", "minter", KalturaSessionType.ADMIN, PARTNER_ID)
        expect_error("a forged KS", "INVALID_KS", lambda: links_of(new_client(forged)).get(link.id))
        print(f"ok {mint.__name__}")

    leaver = started_client(ADMIN_SECRET, f"leaver-{RUN}", KalturaSessionType.ADMIN)
    check("before session.end", link.id, links_of(leaver).get(link.id).id)
    leaver.session.end()
    expect_error("after session.end", "INVALID_KS", lambda: links_of(leaver).get(link.id))
    print("ok session end")


def user_session(foreign):
    user = f"user-{RUN}"
    links = links_of(started_client(USER_SECRET, user, KalturaSessionType.USER))
    own = links.add(KalturaShortLink(systemName=f"PY-{RUN}", fullUrl="https://example.com/own"))
    check("owner", user, own.userId)
    seen = links.list()
    check("a user sees its own links only", (1, [own.id]), (seen.totalCount, [x.id for x in seen.objects]))
    expect_error("another's link", "INVALID_OBJECT_ID", lambda: links.get(foreign.id))
    expect_error("another's list", "CANNOT_RETRIEVE_ANOTHER_USERS_SHORT_LINK",
                 lambda: links.list(KalturaShortLinkFilter(userIdEqual=foreign.userId)))


def main():
    client = started_client(ADMIN_SECRET, f"boss-{RUN}", KalturaSessionType.ADMIN)
    links = links_of(client)
    print("ok session start")
    check("system.ping", True, client.system.ping())
    check_that("system.getTime is now", abs(client.system.getTime() - time.time()) < 120, "another time")
    print("ok system")
    added = add_and_get(links)
    print("ok add and get")
    listing(links)
    cleared = update_and_clear(links, added)
    print("ok clear")
    goto(links, cleared)
    print("ok goto")
    errors(links)
    print("ok errors")
    multirequest(client)
    print("ok multirequest with a failing call")
    sessions(cleared)
    user_session(cleared)
    print("ok user session")
    disable_and_delete(links, cleared)
    print("ok delete")


if __name__ == "__main__":
    try:
        main()
    except (Mismatch, KalturaException, KalturaClientException) as failure:
        print(f"FAILED {type(failure).__name__}: {failure}")
        sys.exit(1)
