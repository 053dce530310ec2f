//! Several calls in one request.

use serde_json::{Value, json};

use crate::support::fixture::{Appliance, code};
use crate::support::http::{Answer, request};

fn send(appliance: &Appliance, body: &Value) -> Answer {
    let headers = [("Content-Type", "application/json")];
    request(
        &appliance.admin,
        "POST",
        "/api_v3/service/multirequest",
        &headers,
        body.to_string().as_bytes(),
    )
}

fn add(name: &str) -> Value {
    json!({
        "service": "shortlink_shortlink", "action": "add",
        "shortLink": { "systemName": name, "fullUrl": "https://example.com/" },
    })
}

#[test]
fn results_are_in_order_and_can_be_referenced() {
    let appliance = Appliance::start();
    for first in [0, 1] {
        let call = |number: usize| (first + number).to_string();
        let body = json!({
            "format": 1, "ks": "{1:result}", "clientTag": "test", "partnerId": 1234567,
            call(0): {
                "service": "session", "action": "start", "secret": crate::support::fixture::ADMIN_SECRET,
                "type": 2, "userId": "me",
            },
            call(1): add("FIRST"),
            call(2): { "service": "shortlink_shortlink", "action": "get", "id": "{2:result:id}" },
            call(3): {
                "service": "shortlink_shortlink", "action": "update", "id": "{3:result:id}",
                "shortLink": { "fullUrl": "https://example.com/{2:result:id}/{2:result:status}" },
            },
            call(4): { "service": "shortlink_shortlink", "action": "list", "filter": { "idEqual": "{2:result:id}" } },
            call(5): { "service": "shortlink_shortlink", "action": "delete", "id": "{5:result:objects:0:id}" },
        });
        let answer = send(&appliance, &body);
        let results = answer.json();
        let id = results[1]["id"].as_str().unwrap_or_else(|| panic!("{results}"));
        assert!(results[0].is_string());
        assert_eq!(results[2], results[1]);
        assert_eq!(results[3]["fullUrl"], format!("https://example.com/{id}/2"));
        assert_eq!(
            (&results[4]["totalCount"], &results[4]["objects"][0]),
            (&json!(1), &results[3])
        );
        assert_eq!((&results[5]["id"], &results[5]["status"]), (&json!(id), &json!(3)));
        assert_eq!(results.as_array().unwrap().len(), 6);
        assert_eq!(answer.header("x-kaltura"), "");
    }
}

#[test]
fn failed_call_does_not_stop_later_calls() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let body = json!({
        "format": 1, "ks": ks,
        "1": add("FIRST"),
        "2": { "service": "shortlink_shortlink", "action": "get", "id": "none" },
        "3": { "service": "shortlink_shortlink", "action": "get", "id": "{2:result:id}" },
        "4": { "service": "shortlink_shortlink", "action": "get", "id": "{9:result:id}" },
        "5": { "service": "shortlink_shortlink", "action": "get", "id": "{1:result:id}" },
        "6": { "service": "multirequest" },
        "7": { "action": "ping" },
        "8": { "service": "shortlink_shortlink", "action": "list", "ks": "own" },
        "10": { "service": "system", "action": "ping" },
    });
    let results = send(&appliance, &body).json();
    let codes: Vec<_> = results.as_array().unwrap().iter().map(code).collect();
    let expected = [
        "",
        "INVALID_OBJECT_ID",
        "INVALID_PARAMETER_VALUE",
        "INVALID_PARAMETER_VALUE",
        "",
        "SERVICE_DOES_NOT_EXISTS",
        "SERVICE_NOT_SPECIFIED",
        "INVALID_KS",
    ];
    assert_eq!(codes, expected);
    assert_eq!(results[4], results[0]);
}

#[test]
fn form_groups_calls_and_xml_lists_items() {
    let appliance = Appliance::start();
    let body = b"1:service=system&1:action=ping&2[service]=system&2[action]=nothing&3:service=system&3:action=ping";
    let answer = request(
        &appliance.admin,
        "POST",
        "/api_v3/index.php?service=multirequest",
        &[],
        body,
    );
    let error = "<item><error><code>ACTION_DOES_NOT_EXISTS</code>";
    assert!(
        answer.text().contains(&format!("<result><item>1</item>{error}")),
        "{}",
        answer.text()
    );
    assert!(
        answer.text().contains("</error></item><item>1</item></result>"),
        "{}",
        answer.text()
    );
    let answer = request(
        &appliance.admin,
        "POST",
        "/api_v3/service/multirequest?format=3",
        &[],
        body,
    );
    assert!(answer.text().starts_with("a:3:{i:0;b:1;i:1;a:4:{"), "{}", answer.text());
    assert!(answer.text().ends_with("}i:2;b:1;}"), "{}", answer.text());
    assert_eq!(
        appliance.get_admin("/api_v3/service/multirequest?format=1").text(),
        "[]"
    );
}

#[test]
fn redirect_ends_a_multirequest_and_is_its_response() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let body = json!({
        "format": 1, "ks": ks,
        "1": add("FIRST"),
        "2": { "service": "shortlink_shortlink", "action": "goto", "id": "{1:result:id}" },
        "3": add("NEVER"),
    });
    let answer = send(&appliance, &body);
    assert_eq!(
        (answer.status, answer.header("location")),
        (302, "https://example.com/")
    );
    assert_eq!(appliance.list(&ks, &[("filter[systemNameEqual]", "NEVER")]).1, 0);
}

#[test]
fn too_many_calls_are_rejected_before_any_runs() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let mut body = json!({ "format": 1, "ks": ks });
    for number in 1..=201 {
        body[number.to_string()] = add("MANY");
    }
    let exception = send(&appliance, &body).json();
    assert_eq!(code(&exception), "INVALID_PARAMETER_VALUE");
    assert_eq!(exception["args"]["REASON"], "a multirequest has at most 200 calls");
    assert_eq!(appliance.list(&ks, &[]).1, 0);
}

/// Regression: repeated references to a long result turned a small request into hundreds of megabytes.
#[test]
fn size_of_references_and_results_is_limited() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let long = format!("https://example.com/{}", "x".repeat(8_000));
    let mut first = add("LONG");
    first["shortLink"]["fullUrl"] = json!(long);
    let reference = "{1:result:fullUrl}";
    let body = json!({
        "format": 1, "ks": ks, "1": first,
        "2": { "service": "shortlink_shortlink", "action": "get", "id": reference.repeat(10_000) },
        "3": { "service": "system", "action": "ping", "a": reference, "b": reference },
    });
    let answer = send(&appliance, &body);
    assert!(answer.body.len() < 300_000, "{} bytes", answer.body.len());
    let results = answer.json();
    assert_eq!(code(&results[1]), "INVALID_PARAMETER_VALUE");
    assert_eq!(results[2], true);

    // The same with many parameters; later calls within the limits still run.
    let mut spread = json!({ "service": "system", "action": "ping" });
    for number in 0..200 {
        spread[format!("p{number}")] = json!(reference);
    }
    let body = json!({
        "format": 1, "ks": ks, "1": first, "2": spread,
        "3": { "service": "system", "action": "ping" },
    });
    let results = send(&appliance, &body).json();
    assert_eq!(
        (code(&results[1]), &results[2]),
        ("INVALID_PARAMETER_VALUE", &json!(true))
    );

    let mut many = json!({ "format": 1, "ks": ks });
    for number in 1..=200 {
        many[number.to_string()] = first.clone();
    }
    assert_eq!(send(&appliance, &many).status, 413, "it is over the limit of a body");
    for start in [0, 100] {
        let mut some = json!({ "format": 1, "ks": ks });
        for number in 1..=100 {
            some[number.to_string()] = many[(start + number).to_string()].clone();
        }
        assert_eq!(send(&appliance, &some).status, 200);
    }
    let mut lists = json!({ "format": 1, "ks": ks });
    for number in 1..=100 {
        lists[number.to_string()] =
            json!({ "service": "shortlink_shortlink", "action": "list", "pager": { "pageSize": 500 } });
    }
    let answer = send(&appliance, &lists);
    assert!(answer.body.len() < 40_000_000, "{} bytes", answer.body.len());
    let results = answer.json();
    assert_eq!((code(&results[0]), code(&results[99])), ("", "INVALID_PARAMETER_VALUE"));
}

#[test]
fn failed_redirect_responds_in_the_requested_format() {
    let appliance = Appliance::start();
    let body = json!({ "format": 1, "1": { "service": "shortlink_shortlink", "action": "goto", "id": "zzzzzzzz" } });
    let answer = send(&appliance, &body);
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (404, &json!("INVALID_OBJECT_ID"))
    );
}
