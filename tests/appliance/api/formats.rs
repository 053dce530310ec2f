//! Paths, bodies and response formats.

use crate::support::fixture::{Appliance, poll};
use crate::support::http::{Answer, encode, request};

const ADD: &str = "/api_v3/service/shortlink_shortlink/action/add";
const URL: &str = "https://example.com/a?b=c&d=e";

#[test]
fn each_format_has_its_content_type_and_shape() {
    let appliance = Appliance::start();
    let ping = |query: &str| appliance.get_admin(&format!("/api_v3/service/system/action/ping{query}"));
    for (query, content_type, body) in [
        ("?format=1", "application/json", "true"),
        ("?format=3", "text/plain; charset=utf-8", "b:1;"),
        (
            "?format=9&callback=jQuery1_2.f",
            "application/javascript; charset=utf-8",
            "jQuery1_2.f(true);",
        ),
    ] {
        let answer = ping(query);
        assert_eq!((answer.header("content-type"), answer.text()), (content_type, body));
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    for query in ["", "?format=2", "?format="] {
        let answer = ping(query);
        assert_eq!(answer.header("content-type"), "text/xml; charset=utf-8");
        let (head, tail) = answer.text().split_once("<result>1</result><executionTime>").unwrap();
        assert_eq!(head, "<?xml version=\"1.0\" encoding=\"utf-8\"?><xml>");
        tail.strip_suffix("</executionTime></xml>")
            .unwrap()
            .parse::<f64>()
            .unwrap();
    }
    for (query, code) in [
        ("?format=4", "UNKNOWN_RESPONSE_FORMAT"),
        ("?format=json", "UNKNOWN_RESPONSE_FORMAT"),
        ("?format=9", "MISSING_MANDATORY_PARAMETER"),
        ("?format=9&callback=alert(1)", "INVALID_PARAMETER_VALUE"),
        ("?format=9&callback=", "INVALID_PARAMETER_VALUE"),
    ] {
        let answer = ping(query);
        assert_eq!(answer.header("x-kaltura"), format!("error-{code}"), "{query}");
        assert!(answer.text().contains(&format!("<code>{code}</code>")), "{query}");
    }
    assert_eq!(ping("?format=9&callback=a.b").header("x-kaltura"), "");
}

#[test]
fn null_is_an_empty_xml_element_unless_ignored() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let id = appliance.add(&ks, &[]);
    let get = |more: &str| {
        let target = format!(
            "/api_v3/service/shortlink_shortlink/action/get/id/{id}?ks={}{more}",
            encode(&ks)
        );
        appliance.get_admin(&target).text().to_owned()
    };
    assert!(get("").contains("<expiresAt></expiresAt>"));
    for yes in ["1", "true"] {
        assert!(!get(&format!("&ignoreNull={yes}")).contains("expiresAt"));
    }
    assert!(get("&ignoreNull=0").contains("<expiresAt></expiresAt>"));
    assert!(!get("&format=1").contains("expiresAt"));
    assert!(!get("&format=3").contains("expiresAt"));
}

#[test]
fn exception_has_one_shape_per_format() {
    let appliance = Appliance::start();
    let get = |query: &str| {
        appliance.get_admin(&format!(
            "/api_v3/service/shortlink_shortlink/action/get/id/none{query}"
        ))
    };
    let message = "Missing KS, session not established";
    let json = format!(
        "{{\"code\":\"MISSING_KS\",\"message\":\"{message}\",\"objectType\":\"KalturaAPIException\",\"args\":[]}}"
    );
    assert_eq!(get("?format=1").text(), json);
    assert_eq!(get("?format=9&callback=f").text(), format!("f({json});"));
    let xml = format!(
        "<xml><result><error><code>MISSING_KS</code><message>{message}</message>\
         <objectType>KalturaAPIException</objectType><args></args></error></result><executionTime>"
    );
    assert!(get("").text().contains(&xml), "{}", get("").text());
    let answer = get("?format=3");
    assert!(answer.text().starts_with("a:4:{s:4:\"code\";s:10:\"MISSING_KS\";"));
    assert_eq!(answer.header("x-kaltura"), "error-MISSING_KS");
    assert_eq!(
        answer.header("x-kaltura-app"),
        format!("exiting on error MISSING_KS - {message}")
    );
    assert_eq!(answer.status, 200);
}

#[test]
fn call_can_be_spelled_in_many_ways() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let form = [("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")];
    let json = [("Content-Type", "application/json; charset=utf-8")];
    let multipart = [("Content-Type", "multipart/form-data; boundary=xyz")];
    let part = |name: &str, value: &str| {
        format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let (ks_, url) = (encode(&ks), encode(URL));
    let post = |target: &str, headers: &[(&str, &str)], body: String| {
        request(&appliance.admin, "POST", target, headers, body.as_bytes())
    };
    let get = |target: String| appliance.get_admin(&target);
    let object =
        format!(r#"{{"shortLink":{{"systemName":"NAME","fullUrl":"{URL}","name":null}},"ks":"{ks}","format":1}}"#);
    let answers: Vec<Answer> = vec![
        post(
            ADD,
            &form,
            format!("ks={ks_}&format=1&shortLink[systemName]=NAME&shortLink[fullUrl]={url}"),
        ),
        post(
            ADD,
            &form,
            format!("ks={ks_}&format=1&shortLink:systemName=NAME&shortLink%3AfullUrl={url}"),
        ),
        post(
            ADD,
            &form,
            format!("ks={ks_}&format=1&shortLink%5BsystemName%5D=NAME&shortLink%5BfullUrl%5D={url}\r\n"),
        ),
        post(ADD, &json, object.clone()),
        post(
            ADD,
            &multipart,
            [
                part("ks", &ks),
                part("format", "1"),
                part("shortLink[systemName]", "NAME"),
                part("shortLink:fullUrl", URL),
                "--xyz--\r\n".to_owned(),
            ]
            .concat(),
        ),
        post(ADD, &multipart, format!("{}--xyz--\r\n", part("json", &object))),
        post(
            "/api_v3/index.php?service=shortlink_shortlink&action=add&format=1",
            &json,
            object.clone(),
        ),
        post(
            "/api_v3/",
            &form,
            format!(
                "service=shortLink_shortLink&action=ADD&ks={ks_}&format=1&\
                 shortLink[systemName]=NAME&shortLink[fullUrl]={url}"
            ),
        ),
        // Precedence: path, query, body.
        post(
            &format!("{ADD}/format/1/shortLink:systemName/NAME?format=3&shortLink:systemName=QUERY"),
            &form,
            format!("format=2&ks={ks_}&shortLink:systemName=BODY&shortLink[fullUrl]={url}"),
        ),
        get(format!(
            "{ADD}?ks={ks_}&format=1&shortLink[systemName]=NAME&shortLink[fullUrl]={url}"
        )),
        get(format!(
            "{ADD}/format/1/ks/{ks_}/shortLink:systemName/NAME/shortLink:fullUrl/{url}"
        )),
        get(format!(
            "/api_v3/index.php?service=shortlink_shortlink&action=add&kalsig=0&ks={ks_}&shortLink%3AsystemName=NAME\
             &shortLink%3AfullUrl={url}&format=1&clientTag=kmc&ignoreNull=1&partnerId=1234567&_=1778429631000"
        )),
    ];
    for (number, answer) in answers.iter().enumerate() {
        let link = answer.json();
        assert_eq!(
            (&link["systemName"], &link["fullUrl"]),
            (&"NAME".into(), &URL.into()),
            "number {number}: {link}"
        );
    }
}

#[test]
fn browsers_may_call_from_any_origin() {
    let appliance = Appliance::start();
    let headers = [
        ("Origin", "https://kmc.example.com"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type"),
    ];
    let preflight = request(&appliance.admin, "OPTIONS", ADD, &headers, b"");
    assert_eq!(preflight.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "POST, GET, HEAD, OPTIONS"),
        (
            "access-control-allow-headers",
            "Origin, X-Requested-With, Content-Type, Accept, Range, Cache-Control",
        ),
        ("access-control-max-age", "86400"),
    ] {
        assert_eq!(preflight.header(name), value);
    }
    let answer = request(&appliance.admin, "POST", ADD, &headers[..1], b"format=1");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
}

#[test]
fn head_to_the_api_is_get_without_a_body() {
    let appliance = Appliance::start();
    for target in [
        "/api_v3/service/system/action/ping?format=1",
        "/healthz",
        "/robots.txt",
        "/nothing",
    ] {
        let (get, head) = (
            appliance.get_admin(target),
            request(&appliance.admin, "HEAD", target, &[], b""),
        );
        assert_eq!(get.status, head.status);
        assert_eq!(get.header("content-length"), head.header("content-length"));
        assert_eq!(get.header("content-type"), head.header("content-type"));
    }
}

#[test]
fn unsupported_api_method_is_answered_with_allow() {
    let appliance = Appliance::start();
    for method in ["PUT", "DELETE", "PATCH", "TRACE"] {
        let answer = request(&appliance.admin, method, ADD, &[], b"");
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, "POST, GET, HEAD, OPTIONS")
        );
    }
    assert_eq!(
        request(&appliance.admin, "POST", "/readyz", &[], b"").header("allow"),
        "GET, HEAD, OPTIONS"
    );
}

#[test]
fn unknown_service_or_action_is_named() {
    let appliance = Appliance::start();
    for (target, code, message) in [
        (
            "/api_v3/?format=1",
            "SERVICE_NOT_SPECIFIED",
            "Service name was not specified, please specify one",
        ),
        (
            "/api_v3/service/system?format=1",
            "ACTION_NOT_SPECIFIED",
            "Action name was not specified, please specify one",
        ),
        (
            "/api_v3/service/media/action/list?format=1",
            "SERVICE_DOES_NOT_EXISTS",
            "Service \"media\" does not exists",
        ),
        (
            "/api_v3/service/System/action/Reboot?format=1",
            "ACTION_DOES_NOT_EXISTS",
            "Action \"Reboot\" does not exists for service \"System\"",
        ),
    ] {
        let exception = appliance.get_admin(target).json();
        assert_eq!(
            (&exception["code"], &exception["message"]),
            (&code.into(), &message.into())
        );
    }
}

#[test]
fn readiness_shows_the_state_of_the_store() {
    let appliance = Appliance::start();
    assert_eq!(appliance.get_admin("/healthz").text(), "ok\n");
    poll("the verification", || {
        appliance.get_admin("/readyz").json()["store"]["verified"].is_i64()
    });
    let ready = appliance.get_admin("/readyz");
    let verified = ready.json()["store"]["verified"].clone();
    let expected = serde_json::json!({
        "ready": true,
        "map": { "loaded": true, "links": 0, "damaged": 0, "stored": 0 },
        "store": { "acceptingWrites": true, "reason": null, "verified": verified, "problems": 0 },
    });
    assert_eq!((ready.status, ready.json()), (200, expected));
}
