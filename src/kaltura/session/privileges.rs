//! The privileges that a KS carries: names, each with or without a value.

use std::collections::BTreeMap;

/// Privileges by name. Unknown ones are kept and ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Privileges(pub(super) BTreeMap<String, String>);

impl Privileges {
    /// Reads `name`, `name:value`, separated by commas; white space around each is dropped. `*` is `all:*`.
    pub fn parse(text: &str) -> Self {
        let named = text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(|one| {
            let one = if one == "*" { "all:*" } else { one };
            let (name, value) = one.split_once(':').unwrap_or((one, ""));
            (name.to_owned(), value.to_owned())
        });
        named.collect()
    }

    /// The value of a privilege, empty if it has none; `None` if it is absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl FromIterator<(String, String)> for Privileges {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(named: I) -> Self {
        let mut all = BTreeMap::<String, String>::new();
        for (name, value) in named {
            // A name that comes twice allows what either of them allows; Kaltura joins the values with slashes.
            let joined = all.entry(name).or_default();
            if !joined.is_empty() && !value.is_empty() {
                joined.push('/');
            }
            joined.push_str(&value);
        }
        Self(all)
    }
}
