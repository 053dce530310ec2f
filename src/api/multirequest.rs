//! Several calls in one request (docs/kaltura-api.md#multirequest).

use std::time::Instant;

use hyper::StatusCode;

use crate::api::caller::REQUEST_TIMEOUT;
use crate::api::params::{Param, Params};
use crate::api::{Api, Caller, Outcome, Running, check_room, transfer};
use crate::http::Reservation;
use crate::kaltura::ApiError;
use crate::kaltura::format::{Format, ListWriter, Value};
use crate::links::ReadContext;

/// Calls in one request at most.
const CALLS_MAX: usize = 200;

/// Results of one request at most, in bytes as written and in bytes of memory: a page of 500 links with the longest
/// destinations has four million, in XML up to six times as many. The last call ends before they are sent.
const RESULTS_MAX_BYTES: usize = 32 * 1024 * 1024;

/// Bytes that the references of one request may stand for: as many as the default of the largest body.
const RESOLVED_MAX_BYTES: usize = 1024 * 1024;

/// Parameters outside the groups that hold for every call without its own. `clientTag` is not among them: no action
/// reads it.
const SHARED: [&str; 5] = ["ks", "partnerId", "format", "callback", "ignoreNull"];

/// Longest value of a shared parameter, in bytes: each call gets a copy. A session is the longest.
const SHARED_MAX_BYTES: usize = 16 * 1024;

/// Digits of a reference's number at most: as many as a `u64` has.
const NUMBER_MAX_DIGITS: usize = 20;
/// Bytes of a reference's path at most. The longest that leads anywhere, `:objects:499:partnerId`, has 22.
const PATH_MAX_BYTES: usize = 256;

impl Api {
    pub(super) async fn run_multirequest(&self, running: &mut Running, format: &Format) -> Result<Outcome, ApiError> {
        let Running {
            params,
            caller,
            reservation,
            started,
        } = running;
        let calls = groups(params)?;
        let mut shared = Shared::from_params(params)?;
        let has_references = shared.has_reference() || calls.iter().any(has_reference);
        let mut results = Results {
            written: ListWriter::new(format),
            kept: has_references.then(Vec::new),
            kept_bytes: 0,
            is_refused: false,
        };
        let mut resolved_bytes = 0;
        let mut status = StatusCode::OK;
        for mut call in calls {
            let earlier = results.kept.as_deref().unwrap_or_default();
            shared.give_to(&mut call, earlier);
            let ready = check_time(caller)
                .and_then(|()| results.check_room(reservation))
                .and_then(|()| self.prepare(&mut call, caller, earlier, &mut resolved_bytes));
            let is_stream = is(&call, "service", transfer::SERVICE);
            let outcome = match ready {
                // What it sends is no result among others.
                Ok(()) if is_stream => Err(ApiError::invalid("service", "tinyd is not served in a multirequest")),
                Ok(()) => self.call(&call, caller).await,
                Err(fault) => Err(fault),
            };
            let kept = match outcome {
                Ok(Outcome::Value(value, _turn)) => {
                    let item = results.written.item(&value);
                    let kept = self.reserve_result(&call, reservation, item.len() + results.memory_of(&value));
                    kept.map(|()| results.push(&item, value))
                }
                // A redirect is the whole response.
                Ok(response) => return Ok(response),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = kept {
                results.is_refused |= matches!(fault, ApiError::Overloaded);
                // A write that was not acknowledged is not dressed up as success, wherever it stood.
                if fault.api_status() != StatusCode::OK {
                    status = fault.api_status();
                }
                let exception = Value::Exception(fault.exception());
                let item = results.written.item(&exception);
                // It is short, and the client needs it to read the results of the other calls.
                reservation.grow_anyway(item.len() + results.memory_of(&exception));
                results.push(&item, exception);
            }
        }
        Ok(Outcome::Written(results.written.finish(started.elapsed()), status))
    }

    /// Puts earlier results in the place of references in a call: in its session first, and in the rest only if that
    /// session is valid, so that strangers make no work. Starting a session needs none.
    fn prepare(
        &self,
        call: &mut Params,
        caller: &Caller,
        results: &[Value],
        resolved_bytes: &mut usize,
    ) -> Result<(), ApiError> {
        if let Ok(Some(text)) = call.text("ks")
            && let Ok(Some((resolved, _))) = resolve_text("ks", text, results)
        {
            call.set("ks", Param::Text(resolved));
        }
        let is_session_start = is(call, "service", "session") && is(call, "action", "start");
        let may_resolve = || is_session_start || self.check_session(call, caller).is_ok();
        if has_reference(call) && may_resolve() {
            resolve(call, results, resolved_bytes, &["ks"])?;
        }
        Ok(())
    }
}

/// Begins no more calls once the time of the request is over, or its client has left.
fn check_time(caller: &Caller) -> Result<(), ApiError> {
    let ReadContext { deadline, left, .. } = &caller.reading;
    if Instant::now() >= *deadline || *left.borrow() {
        return Err(ApiError::TookTooLong {
            seconds: REQUEST_TIMEOUT.as_secs(),
        });
    }
    Ok(())
}

struct Results<'f> {
    /// For the client.
    written: ListWriter<'f>,
    /// For the references of later calls, if any.
    kept: Option<Vec<Value>>,
    kept_bytes: usize,
    /// Whether memory for one was missing: then later calls would be in vain.
    is_refused: bool,
}

impl Results<'_> {
    /// Bytes of memory that a result takes beside its written form.
    fn memory_of(&self, result: &Value) -> usize {
        self.kept.as_ref().map_or(0, |_| result.memory_bytes())
    }

    fn push(&mut self, item: &[u8], result: Value) {
        self.written.push(item);
        self.kept_bytes += self.memory_of(&result);
        if let Some(kept) = &mut self.kept {
            kept.push(result);
        }
    }

    fn check_room(&self, reservation: &Reservation) -> Result<(), ApiError> {
        if self.is_refused {
            return Err(ApiError::Overloaded);
        }
        check_room(reservation)?;
        if self.written.bytes().max(self.kept_bytes) > RESULTS_MAX_BYTES {
            let reason = format!("the results so far have more than {RESULTS_MAX_BYTES} bytes: ask for less at once");
            return Err(ApiError::invalid("multirequest", reason));
        }
        Ok(())
    }
}

/// The parameters that hold for every call without its own.
struct Shared(Vec<SharedText>);

struct SharedText {
    name: &'static str,
    text: String,
    /// Whether nothing is left to resolve.
    is_final: bool,
}

impl Shared {
    fn from_params(params: &Params) -> Result<Self, ApiError> {
        let mut shared = Vec::new();
        for name in SHARED {
            let Some(text) = params.text(name)? else { continue };
            if text.len() > SHARED_MAX_BYTES {
                let reason = format!("a parameter of all calls has at most {SHARED_MAX_BYTES} bytes");
                return Err(ApiError::invalid(name, reason));
            }
            shared.push(SharedText {
                name,
                text: text.to_owned(),
                is_final: !text.contains('{'),
            });
        }
        Ok(Self(shared))
    }

    fn has_reference(&self) -> bool {
        self.0.iter().any(|shared| !shared.is_final)
    }

    /// Gives a call what it does not have itself. A reference is resolved once: from the first call on for which
    /// there is the result that it stands for, as with a session that the first call starts.
    fn give_to(&mut self, call: &mut Params, results: &[Value]) {
        for SharedText { name, text, is_final } in &mut self.0 {
            if call.get(name).is_some() {
                continue;
            }
            if *name == "ks"
                && !*is_final
                && let Ok(Some((resolved, _))) = resolve_text(name, text, results)
            {
                (*text, *is_final) = (resolved, true);
            }
            call.set(name, Param::Text(text.clone()));
        }
    }
}

/// Whether a call names this service or action.
fn is(call: &Params, name: &str, value: &str) -> bool {
    let text = call.text(name);
    text.is_ok_and(|text| text.is_some_and(|text| text.eq_ignore_ascii_case(value)))
}

/// Whether a text of the call may hold a reference.
fn has_reference(params: &Params) -> bool {
    params.named.values().any(|param| match param {
        Param::Object(object) => has_reference(object),
        Param::Text(text) => text.contains('{'),
        Param::Refused(_) => false,
    })
}

/// The calls in their order: numbered from 0 or 1, up to the first gap.
fn groups(params: &Params) -> Result<Vec<Params>, ApiError> {
    let group = |number: usize| match params.get(&number.to_string()) {
        Some(Param::Object(group)) => Some(group.clone()),
        _ => None,
    };
    let first = usize::from(group(0).is_none());
    let calls: Vec<Params> = (first..=first + CALLS_MAX).map_while(group).collect();
    if calls.len() > CALLS_MAX {
        let reason = format!("a multirequest has at most {CALLS_MAX} calls");
        return Err(ApiError::invalid("multirequest", reason));
    }
    Ok(calls)
}

/// Puts earlier results in the place of references, in every text but those under the names of `left`.
fn resolve(params: &mut Params, results: &[Value], resolved_bytes: &mut usize, left: &[&str]) -> Result<(), ApiError> {
    for (name, param) in params
        .named
        .iter_mut()
        .filter(|(name, _)| !left.contains(&name.as_str()))
    {
        match param {
            Param::Object(object) => resolve(object, results, resolved_bytes, &[])?,
            Param::Refused(_) => {}
            Param::Text(text) => {
                if let Some((resolved, bytes)) = resolve_text(name, text, results)? {
                    let total = *resolved_bytes + bytes;
                    if total > RESOLVED_MAX_BYTES {
                        let reason =
                            format!("references stand for more than {RESOLVED_MAX_BYTES} bytes in this request");
                        return Err(ApiError::invalid(name, reason));
                    }
                    *resolved_bytes = total;
                    *text = resolved;
                }
            }
        }
    }
    Ok(())
}

/// The text with its references replaced, and for how many bytes these stood; `None` if it has none. What a result
/// holds is not looked at again. The work grows with the length of the text, whatever is in it.
fn resolve_text(name: &str, text: &str, results: &[Value]) -> Result<Option<(String, usize)>, ApiError> {
    let mut resolved = String::new();
    // Beyond the last brace nothing can end. Looked for once: what comes behind it may be long.
    let (references, end) = text.split_at(text.rfind('}').map_or(0, |last| last + 1));
    let (mut rest, mut found, mut bytes) = (references, false, 0);
    while let Some((before, reference)) = next_reference(rest) {
        let Reference { number, path, after } = reference;
        let reason = || format!("{{{number}:result{path}}} stands for no text or number among the results so far");
        let value = look_up(number, path, results).ok_or_else(|| ApiError::invalid(name, reason()))?;
        resolved.push_str(before);
        resolved.push_str(&value);
        bytes += value.len();
        // Not only in the end: one text could stand for gigabytes.
        if bytes > RESOLVED_MAX_BYTES {
            let reason = format!("its references stand for more than {RESOLVED_MAX_BYTES} bytes");
            return Err(ApiError::invalid(name, reason));
        }
        (rest, found) = (after, true);
    }
    if !found {
        return Ok(None);
    }
    resolved.push_str(rest);
    resolved.push_str(end);
    Ok(Some((resolved, bytes)))
}

/// `{N:result}` or `{N:result:path}` in a text.
struct Reference<'a> {
    number: usize,
    /// Empty, or starts with a colon.
    path: &'a str,
    after: &'a str,
}

/// The first reference in a text, and what comes before it.
fn next_reference(text: &str) -> Option<(&str, Reference<'_>)> {
    text.match_indices('{')
        .filter_map(|(start, _)| Some((text.get(..start)?, parse_reference(text.get(start + 1..)?)?)))
        .next()
}

#[cfg(fuzzing)]
pub(super) fn fuzz(text: &str, results: &[Value]) {
    if let Ok(Some((resolved, bytes))) = resolve_text("x", text, results) {
        assert!(bytes <= RESOLVED_MAX_BYTES && resolved.len() <= text.len() + bytes);
    }
}

/// Reads a reference from behind its opening brace. Looks at a bounded part of the text only.
fn parse_reference(text: &str) -> Option<Reference<'_>> {
    let digits = text.bytes().take(NUMBER_MAX_DIGITS).take_while(u8::is_ascii_digit);
    let (number, rest) = text.split_at_checked(digits.count())?;
    let rest = rest.strip_prefix(":result")?;
    let end = rest.bytes().take(PATH_MAX_BYTES + 1).position(|byte| byte == b'}')?;
    let (path, after) = (rest.get(..end)?, rest.get(end + 1..)?);
    if !path.is_empty() && !path.starts_with(':') {
        return None;
    }
    let number = number.parse().ok()?;
    Some(Reference { number, path, after })
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
    use proptest::prelude::*;

    fn results() -> Vec<Value> {
        let link = |id: &str| {
            let fields = vec![
                ("id", Value::text(id)),
                ("status", Value::Int(2)),
                ("name", Value::Null),
            ];
            Value::object("KalturaShortLink", fields)
        };
        let fields = vec![
            ("objects", Value::List(vec![link("{1:result}")])),
            ("totalCount", Value::Int(1)),
        ];
        let listing = Value::object("KalturaShortLinkListResponse", fields);
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

    /// Braces that nothing closes, or that close far behind: with a search for the end of each, this would take hours.
    #[test]
    fn text_full_of_braces_takes_no_longer_than_other_text() {
        for unit in ["{", "{1:result", "{1:result:", "{{", "}{", "{1:result:id", "{1}"] {
            let text = unit.repeat(1_000_000 / unit.len());
            assert_eq!(resolve_text("x", &text, &results()), Ok(None), "{unit}");
            let closed = format!("{text}{}}}", "x".repeat(PATH_MAX_BYTES));
            assert_eq!(resolve_text("x", &closed, &results()), Ok(None), "{unit}");
        }
        let tail = "x".repeat(2_000_000);
        let (resolved, bytes) = resolve_text("x", &format!("{}{tail}", "{1:result}".repeat(100_000)), &results())
            .unwrap()
            .unwrap();
        assert_eq!((resolved.len(), bytes), (2_200_000, 200_000));
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
