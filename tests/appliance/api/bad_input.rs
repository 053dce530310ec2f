//! Invalid input: the response is the documented error, and no link changes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::support::fixture::{Appliance, code};
use crate::support::http::{Answer, exchange, request};

const ADD: &str = "/api_v3/service/shortlink_shortlink/action/add";
const MEBIBYTE: usize = 1024 * 1024;

fn post(appliance: &Appliance, content_type: &str, body: &[u8]) -> Answer {
    let target = format!("{ADD}?format=1");
    request(
        &appliance.admin,
        "POST",
        &target,
        &[("Content-Type", content_type)],
        body,
    )
}

#[test]
fn malformed_body_is_rejected_with_its_reason() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let form = "application/x-www-form-urlencoded";
    let (json, multipart) = ("application/json", "multipart/form-data; boundary=xyz");
    let good = format!("ks={ks}&shortLink[systemName]=NAME&shortLink[fullUrl]=https://example.com/");
    let many = (0..5001).map(|n| format!("&p{n}=x")).collect::<String>();
    let deep_json = format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100));
    let deeper_json = format!("{{\"a\":{}", "[".repeat(100_000));
    let deep_form = format!("{good}&a{}=1", "[b]".repeat(20));
    for (content_type, body, expected, reason) in [
        (
            json,
            "{\"ks\":".as_bytes().to_vec(),
            "INVALID_PARAMETER_VALUE",
            "broken JSON: EOF",
        ),
        (
            json,
            b"{\"a\":1,}".to_vec(),
            "INVALID_PARAMETER_VALUE",
            "line 1 column 8",
        ),
        (
            json,
            b"[1]".to_vec(),
            "INVALID_PARAMETER_VALUE",
            "expected one JSON object",
        ),
        (
            json,
            b"\"text\"".to_vec(),
            "INVALID_PARAMETER_VALUE",
            "expected one JSON object",
        ),
        (json, b"{\"a\":\"\xff\"}".to_vec(), "INVALID_PARAMETER_CHAR", ""),
        (json, b"{\"a\":\"\\u0000\"}".to_vec(), "INVALID_PARAMETER_CHAR", ""),
        (
            json,
            b"{\"a\":\"\\ud800\"}".to_vec(),
            "INVALID_PARAMETER_VALUE",
            "broken JSON",
        ),
        (
            json,
            deep_json.into_bytes(),
            "INVALID_PARAMETER_VALUE",
            "nested deeper than 10 levels",
        ),
        (
            json,
            deeper_json.into_bytes(),
            "INVALID_PARAMETER_VALUE",
            "broken JSON: EOF",
        ),
        (
            form,
            format!("{good}&name=%zz").into_bytes(),
            "INVALID_PARAMETER_VALUE",
            "broken percent-encoding",
        ),
        (
            form,
            format!("{good}&name=100%").into_bytes(),
            "INVALID_PARAMETER_VALUE",
            "broken percent-encoding",
        ),
        (
            form,
            format!("{good}&name=%FF").into_bytes(),
            "INVALID_PARAMETER_CHAR",
            "",
        ),
        (
            form,
            [good.as_bytes(), b"&name=\xff"].concat(),
            "INVALID_PARAMETER_CHAR",
            "",
        ),
        (
            form,
            format!("{good}&name=%1B[31m").into_bytes(),
            "INVALID_PARAMETER_CHAR",
            "",
        ),
        (
            form,
            format!("{good}{many}").into_bytes(),
            "INVALID_PARAMETER_VALUE",
            "at most 5000 parameters",
        ),
        (
            form,
            deep_form.into_bytes(),
            "INVALID_PARAMETER_VALUE",
            "nested deeper than 10 levels",
        ),
        (
            multipart,
            b"--xyz\r\nnonsense".to_vec(),
            "INVALID_PARAMETER_VALUE",
            "broken multipart",
        ),
        (
            "multipart/form-data",
            b"--xyz--".to_vec(),
            "INVALID_PARAMETER_VALUE",
            "broken multipart",
        ),
        (
            "text/xml",
            b"<xml/>".to_vec(),
            "INVALID_PARAMETER_VALUE",
            "text/xml is not served",
        ),
    ] {
        let answer = post(&appliance, content_type, &body);
        let exception = answer.json();
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(
            (answer.status, code(&exception)),
            (200, expected),
            "{shown}: {exception}"
        );
        let given = exception["args"]["REASON"].as_str().unwrap_or("");
        assert!(given.contains(reason), "{shown}: {given:?} without {reason:?}");
    }
    assert_eq!(appliance.list(&ks, &[("filter[statusIn]", "1,2,3")]), (vec![], 0));
}

#[test]
fn oversized_body_is_rejected_and_its_connection_closed() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let fits = format!("ks={ks}&shortLink[systemName]=NAME&shortLink[fullUrl]=https://example.com/&pad=");
    let padded = |length: usize| format!("{fits}{}", "x".repeat(length - fits.len()));
    let form = "application/x-www-form-urlencoded";
    assert_eq!(code(&post(&appliance, form, padded(MEBIBYTE).as_bytes()).json()), "");
    let refused = post(&appliance, form, padded(MEBIBYTE + 1).as_bytes());
    assert_eq!((refused.status, refused.header("connection")), (413, "close"));
    assert_eq!(
        refused.json()["args"]["REASON"],
        "larger than the limit of 1048576 bytes"
    );

    // Chunked, without Content-Length.
    let host = appliance.admin.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!("POST {ADD}?format=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let piece = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
    for _ in 0..MEBIBYTE / 0x10000 {
        stream.write_all(&piece).unwrap();
    }
    stream.write_all(b"1\r\nx\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(
        answer.starts_with(b"HTTP/1.1 413 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );

    let appliance = Appliance::start_with("[admin]\nmax_body_bytes = 32768\n");
    assert_eq!(post(&appliance, form, padded(40_000).as_bytes()).status, 413);
}

#[test]
fn parameter_of_the_wrong_type_is_named() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    for (body, name) in [
        (r#"{"ks":{"a":"b"}}"#.to_owned(), "ks"),
        (format!(r#"{{"ks":"{ks}","shortLink":"text"}}"#), "shortLink"),
        (
            format!(r#"{{"ks":"{ks}","shortLink":{{"fullUrl":{{"a":"b"}}}}}}"#),
            "shortLink:fullUrl",
        ),
        (
            format!(r#"{{"ks":"{ks}","shortLink":{{"expiresAt":"1.5x"}}}}"#),
            "shortLink:expiresAt",
        ),
        (format!(r#"{{"ks":"{ks}","service":{{"a":"b"}}}}"#), "service"),
    ] {
        let target = if name == "service" {
            "/api_v3/?format=1".to_owned()
        } else {
            format!("{ADD}?format=1")
        };
        let headers = [("Content-Type", "application/json")];
        let exception = request(&appliance.admin, "POST", &target, &headers, body.as_bytes()).json();
        assert_eq!(code(&exception), "INVALID_PARAMETER_VALUE", "{body}: {exception}");
        assert_eq!(exception["args"]["PARAM_NAME"], name);
    }
}

#[test]
fn malformed_http_closes_the_connection() {
    let appliance = Appliance::start();
    for base in [&appliance.public, &appliance.admin] {
        let host = base.strip_prefix("http://").unwrap();
        for (raw, status) in [
            ("nonsense\r\n\r\n", 400),
            ("GET /\r\n\r\n", 400),
            ("GET / HTTP/9.9\r\n\r\n", 505),
            ("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        ] {
            let answer = exchange(host, raw.as_bytes());
            assert_eq!(answer.status, status, "{raw:?}");
        }
        let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100_000));
        assert!([414, 431].contains(&exchange(host, long.as_bytes()).status));
    }
    assert_eq!(appliance.get_admin("/healthz").status, 200);
}

#[test]
fn error_headers_cannot_be_forged() {
    let appliance = Appliance::start();
    let target = "/api_v3/service/x%0d%0aSet-Cookie:%20a=b/action/y?format=1";
    let answer = appliance.get_admin(target);
    assert!(!answer.headers.contains_key("set-cookie"));
    assert_eq!(answer.header("x-kaltura"), "error-SERVICE_DOES_NOT_EXISTS");
    assert!(answer.header("x-kaltura-app").contains("x%0D%0ASet-Cookie: a=b"));
}

/// Regression: a response was delayed while bytes after its request stayed in the read buffer.
#[test]
fn response_does_not_wait_for_the_next_request() {
    let appliance = Appliance::start();
    let form = "format=1";
    let ping = format!(
        "POST /api_v3/service/system/action/ping HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    for following in ["\r\n", "GET /healthz HTTP/1.1\r\nHo", ""] {
        let mut stream = TcpStream::connect(appliance.admin.strip_prefix("http://").unwrap()).unwrap();
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(20)))
            .unwrap();
        stream.write_all(format!("{ping}{following}").as_bytes()).unwrap();
        let mut answer = String::new();
        let mut buffer = [0; 1024];
        while !answer.ends_with("\r\n\r\ntrue") {
            let length = stream.read(&mut buffer).expect("an answer");
            assert_ne!(length, 0, "closed after {answer:?}");
            answer.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
    }
}

#[test]
fn echoed_header_values_are_truncated() {
    let appliance = Appliance::start();
    let ks = appliance.admin_ks();
    let long = "ü".repeat(100_000);
    let answer = appliance.post(
        "shortlink_shortlink",
        "get",
        &[("format", "1"), ("ks", &ks), ("id", &long)],
    );
    // The body repeats at most 256 bytes of it too.
    let cut = format!("{}…", "ü".repeat(126));
    assert_eq!(answer.json()["args"]["ID"], cut);
    assert!(answer.header("x-kaltura-app").len() < 1_000);
    assert!(appliance.goto(&"%ff".repeat(4_000)).header("x-kaltura-app").len() < 1_500);
}
