//! Several calls in one request (contract, section 7).

use hyper::StatusCode;

use crate::api::params::{Param, Params};
use crate::api::{Api, Caller, Outcome, transfer};
use crate::http::Fault;
use crate::wire::Value;

/// Calls in one request at most.
const CALLS_MAX: usize = 200;

/// Results of one request at most, in bytes: a page of 500 links with the longest destinations has four million. They are
/// held in memory until the last call has been made.
const RESULTS_MAX_BYTES: usize = 32 * 1024 * 1024;

/// What references may stand for in one request, in bytes in all: as much as the largest body where nothing else is set.
const RESOLVED_MAX_BYTES: usize = 1024 * 1024;

/// Parameters outside the groups that hold for every call without its own.
const SHARED: [&str; 6] = ["ks", "partnerId", "clientTag", "format", "callback", "ignoreNull"];

impl Api {
    pub(super) async fn run_multirequest(
        &self,
        params: &Params,
        caller: &Caller,
    ) -> Result<(Outcome, StatusCode), Fault> {
        let calls = groups(params)?;
        let mut results = Vec::with_capacity(calls.len());
        let (mut results_bytes, mut resolved_bytes) = (0, 0);
        let mut status = StatusCode::OK;
        for mut call in calls {
            for name in SHARED {
                if let (None, Some(shared)) = (call.get(name), params.get(name)) {
                    call.set(name, shared.clone());
                }
            }
            let ready = check_room(results_bytes).and_then(|()| prepare(&mut call, &results, &mut resolved_bytes));
            let is_stream = call
                .text("service")
                .is_ok_and(|service| service.is_some_and(transfer::is_service));
            let outcome = match ready {
                // What it sends is no result among others.
                Ok(()) if is_stream => Err(Fault::invalid("service", "tinyd is not served in a multirequest")),
                Ok(()) => self.call(&call, caller).await,
                Err(fault) => Err(fault),
            };
            let result = match outcome {
                Ok(Outcome::Value(value)) => value,
                // A redirect is the whole response.
                Ok(response @ Outcome::Response(_)) => return Ok((response, StatusCode::OK)),
                Err(fault) => {
                    // A write that was not acknowledged is not dressed up as success, wherever it stood.
                    if fault.api_status() != StatusCode::OK {
                        status = fault.api_status();
                    }
                    Value::Exception(fault.exception())
                }
            };
            results_bytes += result.size_bytes();
            results.push(result);
        }
        Ok((Value::List(results).into(), status))
    }
}

fn check_room(results_bytes: usize) -> Result<(), Fault> {
    if results_bytes > RESULTS_MAX_BYTES {
        let reason = format!("the results so far have more than {RESULTS_MAX_BYTES} bytes: ask for less at once");
        return Err(Fault::invalid("multirequest", reason));
    }
    Ok(())
}

/// The calls in their order: numbered from 0 or 1, up to the first gap.
fn groups(params: &Params) -> Result<Vec<Params>, Fault> {
    let group = |number: usize| match params.get(&number.to_string()) {
        Some(Param::Object(group)) => Some(group.clone()),
        _ => None,
    };
    let first = usize::from(group(0).is_none());
    let calls: Vec<Params> = (first..=first + CALLS_MAX).map_while(group).collect();
    if calls.len() > CALLS_MAX {
        let reason = format!("a multirequest has at most {CALLS_MAX} calls");
        return Err(Fault::invalid("multirequest", reason));
    }
    Ok(calls)
}

/// Puts earlier results in the place of references in a call.
fn prepare(call: &mut Params, results: &[Value], resolved_bytes: &mut usize) -> Result<(), Fault> {
    // A session that is shared by all calls may be the result of the first one, which needs none.
    if let Ok(Some(text)) = call.text("ks")
        && let Ok(Some((resolved, _))) = resolve_text("ks", text, results)
    {
        call.set("ks", Param::Text(resolved));
    }
    resolve(call, results, resolved_bytes, &["ks"])
}

/// Puts earlier results in the place of references, in every text but those under the names of `left`.
fn resolve(params: &mut Params, results: &[Value], resolved_bytes: &mut usize, left: &[&str]) -> Result<(), Fault> {
    for (name, param) in params.values_mut().filter(|(name, _)| !left.contains(name)) {
        match param {
            Param::Object(object) => resolve(object, results, resolved_bytes, &[])?,
            Param::Text(text) => {
                if let Some((resolved, bytes)) = resolve_text(name, text, results)? {
                    let total = *resolved_bytes + bytes;
                    if total > RESOLVED_MAX_BYTES {
                        let reason =
                            format!("references stand for more than {RESOLVED_MAX_BYTES} bytes in this request");
                        return Err(Fault::invalid(name, reason));
                    }
                    *resolved_bytes = total;
                    *text = resolved;
                }
            }
        }
    }
    Ok(())
}

/// The text with its references replaced, and for how many bytes these stood; `None` if it has none. What a result holds
/// is not looked at again.
fn resolve_text(name: &str, text: &str, results: &[Value]) -> Result<Option<(String, usize)>, Fault> {
    let mut resolved = String::new();
    let (mut rest, mut found, mut bytes) = (text, false, 0);
    while let Some(start) = rest.find('{') {
        let (before, from_brace) = rest.split_at(start);
        resolved.push_str(before);
        let reference = from_brace.get(1..).unwrap_or("");
        let parsed = reference
            .split_once('}')
            .and_then(|(inside, after)| Some((parse_reference(inside)?, after)));
        if let Some(((number, path), after)) = parsed {
            let reason = || format!("{{{number}:result{path}}} stands for no text or number among the results so far");
            let value = look_up(number, path, results).ok_or_else(|| Fault::invalid(name, reason()))?;
            resolved.push_str(&value);
            bytes += value.len();
            // Not only in the end: one text could stand for gigabytes.
            if bytes > RESOLVED_MAX_BYTES {
                let reason = format!("its references stand for more than {RESOLVED_MAX_BYTES} bytes");
                return Err(Fault::invalid(name, reason));
            }
            (rest, found) = (after, true);
        } else {
            resolved.push('{');
            rest = reference;
        }
    }
    resolved.push_str(rest);
    Ok(found.then_some((resolved, bytes)))
}

#[cfg(fuzzing)]
pub(super) fn fuzz(text: &str, results: &[Value]) {
    if let Ok(Some((resolved, bytes))) = resolve_text("x", text, results) {
        assert!(bytes <= RESOLVED_MAX_BYTES && resolved.len() <= text.len() + bytes);
    }
}

/// Reads `N:result` and what follows it, which is empty or starts with a colon.
fn parse_reference(inside: &str) -> Option<(usize, &str)> {
    let (number, rest) = inside.split_once(':')?;
    let path = rest.strip_prefix("result")?;
    if !path.is_empty() && !path.starts_with(':') {
        return None;
    }
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, path))
}

fn look_up(number: usize, path: &str, results: &[Value]) -> Option<String> {
    let mut value = results.get(number.checked_sub(1)?)?;
    for step in path.split(':').skip(1) {
        value = match value {
            Value::Object(object) => &object.fields.iter().find(|(name, _)| *name == step)?.1,
            Value::List(items) => items.get(step.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(if *flag { "1" } else { "0" }.to_owned()),
        Value::Null | Value::List(_) | Value::Object(_) | Value::Exception(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Object;
    use proptest::prelude::*;

    fn results() -> Vec<Value> {
        let link = |id: &str| {
            Value::Object(Object {
                class: "KalturaShortLink",
                fields: vec![
                    ("id", Value::text(id)),
                    ("status", Value::Int(2)),
                    ("name", Value::Null),
                ],
            })
        };
        let listing = Value::Object(Object {
            class: "KalturaShortLinkListResponse",
            fields: vec![
                ("objects", Value::List(vec![link("{1:result}")])),
                ("totalCount", Value::Int(1)),
            ],
        });
        vec![Value::text("ks"), link("abcd"), listing]
    }

    #[test]
    fn references_stand_for_earlier_results() {
        for (text, expected) in [
            ("{1:result}", Some("ks")),
            ("{2:result:id}", Some("abcd")),
            (
                "https://e.example/{2:result:id}/{2:result:status}",
                Some("https://e.example/abcd/2"),
            ),
            ("{3:result:totalCount}", Some("1")),
            ("{{2:result:id}}", Some("{abcd}")),
            ("{3:result:objects:0:id}", Some("{1:result}")),
            ("no reference", None),
            ("{x:result}", None),
            ("{1:results}", None),
            ("{1:result", None),
            ("{}{:result}", None),
        ] {
            let resolved = resolve_text("x", text, &results()).unwrap();
            assert_eq!(resolved.map(|(text, _)| text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn references_to_nothing_are_refused() {
        for text in [
            "{0:result}",
            "{4:result}",
            "{2:result}",
            "{2:result:name}",
            "{2:result:none}",
            "{3:result:objects:1:id}",
            "{1:result:id}",
            "{99999999999999999999:result:id}",
        ] {
            let resolved = resolve_text("x", text, &results());
            let untouched = text.starts_with("{9999");
            assert_eq!(resolved.is_err(), !untouched, "{text}");
        }
    }

    #[test]
    fn calls_are_numbered_from_zero_or_one_up_to_the_first_gap() {
        let numbered = |numbers: &[usize]| {
            let mut params = Params::default();
            for number in numbers {
                params.insert(&format!("{number}:service"), "system".into()).unwrap();
            }
            groups(&params).map(|calls| calls.len())
        };
        assert_eq!(numbered(&[0, 1, 2]), Ok(3));
        assert_eq!(numbered(&[1, 2]), Ok(2));
        assert_eq!(numbered(&[1, 2, 4]), Ok(2));
        assert_eq!(numbered(&[2, 3]), Ok(0));
        assert_eq!(numbered(&(1..=CALLS_MAX).collect::<Vec<_>>()), Ok(CALLS_MAX));
        assert!(numbered(&(0..=CALLS_MAX).collect::<Vec<_>>()).is_err());
    }

    proptest! {
        #[test]
        fn resolving_is_total(text in "[{}0-9:a-z]{0,30}|.{0,30}|\\{[0-9]:result(:[a-z0-9]{1,8}){0,3}\\}") {
            let _ = resolve_text("x", &text, &results());
        }
    }
}
