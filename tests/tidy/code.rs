//! Rules for code: width, names, imports inside a room, and the manifests.

use std::collections::{BTreeMap, BTreeSet};

use crate::files::{File, assert_none, code, files, numbered, read};
use crate::sources;

/// Longest line of code, in characters. URLs may be longer.
const CODE_MAX_COLUMNS: usize = 120;
/// Longest name of a test.
const TEST_NAME_MAX: usize = 60;

/// Names that several rooms give to a public type, and why.
const SHARED_NAMES: [(&str, &str); 3] = [
    ("Error", "each room has its own"),
    ("Metrics", "each room counts its own"),
    ("Settings", "each room has its own, read by config"),
];

/// The public types by name, with the rooms that declare them.
pub fn public_types() -> BTreeMap<String, BTreeSet<String>> {
    let mut types = BTreeMap::<String, BTreeSet<String>>::new();
    for source in sources() {
        for (_, line) in source.program() {
            // A macro that declares a type indents it.
            if let Some(name) = public_type(line.strip_prefix("    ").unwrap_or(line)) {
                types.entry(name.to_owned()).or_default().insert(source.room.clone());
            }
        }
    }
    types
}

/// The name of the public type that a line declares.
fn public_type(line: &str) -> Option<&str> {
    let declared = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) "))?;
    let (kind, rest) = declared.split_once(' ')?;
    let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    ["struct", "enum", "trait", "type"].contains(&kind).then_some(name)
}

fn wide_code(file: &File) -> Vec<String> {
    let is_wide = |line: &str| line.chars().count() > CODE_MAX_COLUMNS && !line.contains("://");
    let wide = numbered(&file.text).filter(|(_, line)| is_wide(line));
    wide.map(|(number, line)| format!("{}:{number}: {} columns", file.path, line.chars().count()))
        .collect()
}

/// The names of tests that are too long: functions marked `#[test]`, and those that the harness of tests/tools runs.
fn long_names(file: &File) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for (_, line) in numbered(&file.text) {
        let code = line.trim_start();
        if code.starts_with("#[test]") {
            is_test = true;
        } else if let Some(rest) = code.strip_prefix("fn ") {
            if std::mem::take(&mut is_test) {
                names.extend(rest.split('(').next());
            }
        } else if let Some(path) = code.strip_prefix("test!(") {
            names.extend(path.split([',', ')']).next().unwrap().rsplit("::").next());
        }
    }
    let long = names.into_iter().filter(|name| name.len() > TEST_NAME_MAX);
    long.map(|name| format!("{}: {name}: {} characters", file.path, name.len()))
        .collect()
}

/// The dependencies of a manifest that stand before one that sorts lower.
fn unsorted(manifest: &str) -> Vec<String> {
    let mut before = "";
    let mut unsorted = Vec::new();
    let mut is_table = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_table = line.ends_with("dependencies]");
            before = "";
        } else if is_table && let Some((name, _)) = line.split_once(" = ") {
            if name < before {
                unsorted.push(format!("{name} stands after {before}"));
            }
            before = name;
        }
    }
    unsorted
}

/// The modules of `src` by path, `["store", "format"]`, and what each imports.
#[derive(Default)]
struct Modules {
    modules: BTreeSet<Vec<String>>,
    /// What the file of a module passes on under its own name: `pub use child::Name`.
    exports: BTreeMap<(Vec<String>, String), Vec<String>>,
    imports: Vec<(Vec<String>, Vec<String>)>,
}

impl Modules {
    fn of(program: &[(String, String)]) -> Self {
        let mut all = Self::default();
        for (path, _) in program {
            all.modules.insert(module(path));
        }
        for (path, text) in program {
            let here = module(path);
            for (is_public, import) in imports(text) {
                let Some(import) = absolute(&here, &import, &all.modules) else {
                    continue;
                };
                if is_public && let Some(name) = import.last() {
                    all.exports.insert((here.clone(), name.clone()), import.clone());
                }
                all.imports.push((here.clone(), import));
            }
        }
        all
    }

    /// The module that declares what a path names.
    fn declaring(&self, path: &[String]) -> Vec<String> {
        let mut length = path.len();
        while !self.modules.contains(&path[..length]) {
            length -= 1;
        }
        let (module, rest) = path.split_at(length);
        let export = rest
            .first()
            .and_then(|name| self.exports.get(&(module.to_vec(), name.clone())));
        match export {
            Some(export) if export[..] != *path => self.declaring(export),
            _ => module.to_vec(),
        }
    }

    /// Which module of a room needs which. What a folder's own file declares is for all in it.
    fn needs(&self) -> BTreeMap<String, BTreeMap<String, BTreeSet<String>>> {
        let mut needs = BTreeMap::<String, BTreeMap<String, BTreeSet<String>>>::new();
        for (here, import) in &self.imports {
            let there = self.declaring(import);
            let is_beside = !here.starts_with(&there) && !there.starts_with(here);
            if let (Some((room, one)), Some((other_room, other))) = (here.split_first(), there.split_first())
                && room == other_room
                && is_beside
            {
                let modules = needs.entry(room.clone()).or_default();
                modules.entry(one.join("/")).or_default().insert(other.join("/"));
            }
        }
        needs
    }

    fn cycles(&self) -> Vec<String> {
        let mut cycles = Vec::new();
        for (room, needs) in self.needs() {
            let reached = |from: &str| {
                let mut reached = BTreeSet::new();
                let mut next: Vec<_> = needs.get(from).into_iter().flatten().collect();
                while let Some(name) = next.pop() {
                    if reached.insert(name.clone()) {
                        next.extend(needs.get(name).into_iter().flatten());
                    }
                }
                reached
            };
            let circular: Vec<_> = needs.keys().filter(|name| reached(name).contains(*name)).collect();
            for name in &circular {
                let others = needs[*name]
                    .iter()
                    .filter(|other| circular.contains(other) && reached(other).contains(*name));
                let others: Vec<_> = others.map(String::as_str).collect();
                cycles.push(format!("{room}: {name} -> {}", others.join(", ")));
            }
        }
        cycles
    }
}

/// The path of the module in a file of `src`.
fn module(path: &str) -> Vec<String> {
    let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').map(str::to_owned).collect()
}

/// The paths in a text: all of its imports, and those in its code that begin with `crate` or `super`; and whether
/// `pub use` exports them.
fn imports(text: &str) -> Vec<(bool, Vec<String>)> {
    let code: String = numbered(text)
        .map(|(_, line)| line.split("//").next().unwrap())
        .collect::<Vec<_>>()
        .join("\n");
    let mut found = Vec::new();
    for statement in code.split_inclusive(';') {
        let lines = statement.trim_end_matches(';');
        let begin = lines.rfind("\nuse ").or_else(|| lines.rfind("\npub use ")).or_else(|| {
            let places = ["\npub(super) use ", "\npub(crate) use "];
            places.iter().filter_map(|place| lines.rfind(place)).max()
        });
        let (before, import) = match begin {
            Some(begin) => lines.split_at(begin),
            None if lines.starts_with("use ") => ("", lines),
            None => (lines, ""),
        };
        if let Some((visibility, tree)) = import.trim_start().split_once("use ") {
            let tree: String = tree.split_whitespace().collect::<Vec<_>>().join(" ");
            let is_public = visibility.starts_with("pub");
            found.extend(expanded(&tree).into_iter().map(|path| (is_public, path)));
        }
        for word in before.split(|c: char| !c.is_alphanumeric() && !"_:".contains(c)) {
            if ["crate::", "super::"].iter().any(|start| word.starts_with(start)) {
                found.push((false, word.split("::").map(str::to_owned).collect()));
            }
        }
    }
    found
}

/// The paths of a tree of imports: `a::{b, c::d}`.
fn expanded(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim().split(" as ").next().unwrap();
    let Some((start, rest)) = tree.split_once('{') else {
        return vec![tree.split("::").map(|part| part.trim().to_owned()).collect()];
    };
    let start: Vec<_> = start
        .split("::")
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty())
        .collect();
    let (mut depth, mut part, mut parts) = (0, String::new(), Vec::new());
    for c in rest.trim_end().trim_end_matches('}').chars() {
        depth += i32::from(c == '{') - i32::from(c == '}');
        if c == ',' && depth == 0 {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(c);
        }
    }
    parts.push(part);
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts
        .flat_map(|part| expanded(&close(part)))
        .map(|part| [start.clone(), part].concat())
        .collect()
}

/// With the closing braces that were cut off.
fn close(part: &str) -> String {
    let open = part.matches('{').count().saturating_sub(part.matches('}').count());
    format!("{part}{}", "}".repeat(open))
}

/// A path of an import in a module from the root of `src`; nothing if it leads to another crate.
fn absolute(here: &[String], path: &[String], modules: &BTreeSet<Vec<String>>) -> Option<Vec<String>> {
    let mut base = here.to_vec();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => (base, rest) = (Vec::new(), &path[1..]),
        "self" => rest = &path[1..],
        "super" => {
            while let Some(("super", after)) = rest.split_first().map(|(first, after)| (first.as_str(), after)) {
                base.pop();
                rest = after;
            }
        }
        child if modules.contains(&[here, &[child.to_owned()]].concat()) => {}
        _ => return None,
    }
    let path = [&base, rest].concat();
    (!path.is_empty() && modules.contains(&path[..1])).then_some(path)
}

/// The program's files by path from `src`, without tests.
fn program() -> Vec<(String, String)> {
    let program = sources()
        .into_iter()
        .filter(|source| !source.is_test() && !source.room.ends_with(".rs"));
    let text = |source: crate::Source| {
        let path = source
            .path
            .strip_prefix(crate::files::root().join("src"))
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let lines: Vec<_> = source.program().map(|(_, line)| line).collect();
        (path, lines.join("\n"))
    };
    program.map(text).collect()
}

#[test]
fn code_lines_fit_120_columns() {
    let file = |text: String| File {
        path: "a.rs".to_owned(),
        text,
    };
    let long = "x".repeat(121);
    assert_eq!(wide_code(&file(format!("ok\n{long}"))), ["a.rs:2: 121 columns"]);
    assert_none(&wide_code(&file(format!("https://{long}"))));
    assert_none(&code().iter().flat_map(wide_code).collect::<Vec<_>>());
}

#[test]
fn test_names_have_at_most_60_characters() {
    let long = "a".repeat(61);
    let text =
        format!("#[test]\nfn {long}() {{\nfn {long}x() {{\n    test!(tools::{long}, Bash),\n#[test]\nfn short() {{\n");
    let path = "a.rs".to_owned();
    let found = long_names(&File { path, text });
    assert_eq!(
        found,
        [
            format!("a.rs: {long}: 61 characters"),
            format!("a.rs: {long}: 61 characters")
        ]
    );
    assert_none(&code().iter().flat_map(long_names).collect::<Vec<_>>());
}

#[test]
fn public_type_names_are_unique_across_rooms() {
    assert_eq!(public_type("pub struct Shard<T> {"), Some("Shard"));
    assert_eq!(public_type("pub(super) enum Private {"), None);
    assert_eq!(public_type("    pub struct Inner;"), None);
    let shared = public_types()
        .into_iter()
        .filter(|(name, rooms)| rooms.len() > 1 && !SHARED_NAMES.iter().any(|(shared, _)| shared == name));
    let named = |(name, rooms): (String, BTreeSet<String>)| {
        format!("{name}: {}", rooms.into_iter().collect::<Vec<_>>().join(", "))
    };
    assert_none(&shared.map(named).collect::<Vec<_>>());
}

#[test]
fn dependencies_are_sorted() {
    let manifest =
        "[dependencies]\nb = \"1\"\na = \"1\"\n[dev-dependencies]\na = \"1\"\nc = { x = 1 }\n[package]\nb = 1\na = 2\n";
    assert_eq!(unsorted(manifest), ["a stands after b"]);
    for path in ["Cargo.toml", "fuzz/Cargo.toml"] {
        assert_none(
            &unsorted(&read(path))
                .iter()
                .map(|line| format!("{path}: {line}"))
                .collect::<Vec<_>>(),
        );
    }
}

#[test]
fn no_path_climbs_two_modules() {
    let climbs = |file: &File| {
        let lines = numbered(&file.text).filter(|(_, line)| line.contains(concat!("super::", "super::")));
        lines
            .map(|(number, _)| format!("{}:{number}: name the module from the crate", file.path))
            .collect::<Vec<_>>()
    };
    let text = concat!("use super::", "super::x;").to_owned();
    let path = "a.rs".to_owned();
    assert_eq!(climbs(&File { path, text }), ["a.rs:1: name the module from the crate"]);
    assert_none(
        &files(&["src", "tests", "benches"], &[".rs"])
            .iter()
            .flat_map(climbs)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn modules_of_a_room_form_no_cycle() {
    let cycles = |files: &[(&str, &str)]| {
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect();
        Modules::of(&files).cycles()
    };
    let circle = ["room: a -> b", "room: b -> a"];
    for (a, b) in [
        ("use super::b::X;", "use crate::room::a::Y;"),
        ("use crate::room::{b::{X, Z}, c};", "fn f() { crate::room::a::y() }"),
        ("use super::X;", "use super::a;"),
    ] {
        let files = [
            ("room/mod.rs", "mod a;\nmod b;\nmod c;\n\npub use b::X;\npub use a::Y;"),
            ("room/a.rs", a),
            ("room/b.rs", b),
            ("room/c.rs", "// use super::a;"),
        ];
        assert_eq!(cycles(&files), circle, "{a} {b}");
    }
    let inside = [
        ("room/mod.rs", "mod a;"),
        ("room/a/mod.rs", "mod b;\nmod c;\npub struct Shared;"),
        ("room/a/b.rs", "use super::c::X;\nuse super::Shared;"),
        ("room/a/c.rs", "use crate::other::b;\nuse super::b::Y;"),
        ("other/mod.rs", "mod b;"),
        ("other/b.rs", "use crate::room::a;"),
    ];
    assert_eq!(cycles(&inside), ["room: a/b -> a/c", "room: a/c -> a/b"]);

    assert_none(&Modules::of(&program()).cycles());
}
