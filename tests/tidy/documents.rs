//! Rules for documents: width, links and headings.

use std::collections::{BTreeMap, BTreeSet};

use crate::code::public_types;
use crate::files::{File, assert_none, code, documents, files, numbered, read};

/// Longest line of Markdown, in characters. Tables, code and URLs may be longer.
const MARKDOWN_MAX_COLUMNS: usize = 100;

/// The lines outside code blocks.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_fenced = false;
    numbered(text).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        !is_fenced && !is_fence && !line.starts_with("    ")
    })
}

fn wide_prose(file: &File) -> Vec<String> {
    let is_wide = |line: &str| {
        line.chars().count() > MARKDOWN_MAX_COLUMNS && !line.trim_start().starts_with('|') && !line.contains("://")
    };
    let wide = prose(&file.text).filter(|(_, line)| is_wide(line));
    wide.map(|(number, line)| format!("{}:{number}: {} columns", file.path, line.chars().count()))
        .collect()
}

/// The anchors that GitHub gives to the headings of a page.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let mut anchors = BTreeSet::new();
    for heading in headings(page) {
        let anchor: String = heading
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let count = seen.entry(anchor.clone()).or_default();
        anchors.insert(if *count == 0 {
            anchor
        } else {
            format!("{anchor}-{count}")
        });
        *count += 1;
    }
    anchors
}

/// The headings of a page as they are shown: of a link, its text.
fn headings(page: &str) -> Vec<String> {
    let headings = prose(page).filter_map(|(_, line)| {
        let text = line.trim_start_matches('#');
        (text.len() < line.len()).then(|| text.strip_prefix(' ')).flatten()
    });
    let shown = |heading: &str| {
        let mut shown = String::new();
        let mut rest = heading.trim();
        while let Some((before, after)) = rest.split_once("](") {
            shown.push_str(&before.replacen('[', "", 1));
            rest = after.split_once(')').map_or("", |(_, after)| after);
        }
        shown + rest
    };
    headings.map(shown).collect()
}

/// The pages and headings that a file cites: `docs/page.md#heading` anywhere, `page.md#heading` and `#heading` in the
/// links of a document.
fn citations(file: &File) -> Vec<(usize, String, String)> {
    let mut citations = Vec::new();
    let word = |text: &str, more: &[char]| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || more.contains(c))
            .collect()
    };
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    for (number, line) in numbered(&file.text) {
        for (position, _) in line.match_indices("docs/") {
            let page = word(&line[position..], &['/', '-', '_', '.']);
            let anchor = line[position + page.len()..]
                .strip_prefix('#')
                .map(|rest| word(rest, &['-', '_']));
            let is_path = !line[..position].ends_with(|c: char| c.is_alphanumeric() || "/._-".contains(c));
            if page.ends_with(".md") && is_path {
                citations.push((number, page, anchor.unwrap_or_default()));
            }
        }
    }
    if file.path.ends_with(".md") {
        for (number, line) in prose(&file.text) {
            for (position, _) in line.match_indices("](") {
                let target = line[position + 2..].split(')').next().unwrap();
                let (page, anchor) = target.split_once('#').unwrap_or((target, ""));
                if target.contains("://") || !(page.is_empty() || page.ends_with(".md")) {
                    continue;
                }
                let page = match page {
                    "" => file.path.clone(),
                    page => resolved(folder, page),
                };
                citations.push((number, page, anchor.to_owned()));
            }
        }
    }
    citations
}

/// A relative path from a folder.
fn resolved(folder: &str, path: &str) -> String {
    let mut parts: Vec<_> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn dead_citations(file: &File, pages: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let is_dead = |(_, page, anchor): &(usize, String, String)| match pages.get(page) {
        None => true,
        Some(anchors) => !anchor.is_empty() && !anchors.contains(anchor),
    };
    let dead = citations(file).into_iter().filter(is_dead);
    dead.map(|(number, page, anchor)| format!("{}:{number}: no {page}#{anchor}", file.path))
        .collect()
}

/// The words of the glossary that are neither a type nor in a heading.
fn undefined_words(glossary: &str, types: &BTreeSet<String>, headings: &[String]) -> Vec<String> {
    let plain = |text: &str| text.to_lowercase().replace(['-', ' '], "");
    let types: BTreeSet<_> = types.iter().map(|name| plain(name)).collect();
    let headings: Vec<_> = headings.iter().map(|heading| plain(heading)).collect();
    let words = prose(glossary).filter_map(|(_, line)| {
        let start = line.trim_start_matches(['-', '*', ' ', '|']);
        let bold = &line[..line.len() - start.len()];
        bold.contains("**").then(|| start.split("**").next()).flatten()
    });
    let undefined = words
        .filter(|word| !types.contains(&plain(word)) && !headings.iter().any(|heading| heading.contains(&plain(word))));
    undefined.map(str::to_owned).collect()
}

fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

#[test]
fn markdown_lines_fit_100_columns() {
    let long = "x".repeat(101);
    assert_eq!(wide_prose(&file("a.md", &long)), ["a.md:1: 101 columns"]);
    for fine in [
        format!("| {long} |"),
        format!("```\n{long}\n```"),
        format!("https://{long}"),
    ] {
        assert_none(&wide_prose(&file("a.md", &fine)));
    }
    assert_none(&documents().iter().flat_map(wide_prose).collect::<Vec<_>>());
}

#[test]
fn cited_pages_and_headings_exist() {
    let page = "# The `[fetch]` section: 2 limits\n## [A link](x.md)\n## Same\n## Same\n```\n# code\n```\n";
    let expected = ["a-link", "same", "same-1", "the-fetch-section-2-limits"];
    assert_eq!(anchors(page).into_iter().collect::<Vec<_>>(), expected);
    let pages = BTreeMap::from([("docs/a.md".to_owned(), anchors(page))]);
    let source = file("src/x.rs", "// docs/a.md#same, docs/a.md#other, docs/b.md\n");
    let expected = ["src/x.rs:1: no docs/a.md#other", "src/x.rs:1: no docs/b.md#"];
    assert_eq!(dead_citations(&source, &pages), expected);
    let document = file(
        "docs/a.md",
        "[a](#same) [b](a.md#same-1) [c](../docs/a.md#gone) [d](b.md) [e](https://x/y.md)\n",
    );
    let expected = ["docs/a.md:1: no docs/a.md#gone", "docs/a.md:1: no docs/b.md#"];
    assert_eq!(dead_citations(&document, &pages)[..], expected);

    let pages = documents();
    let pages: BTreeMap<_, _> = pages
        .iter()
        .map(|page| (page.path.clone(), anchors(&page.text)))
        .collect();
    let mut citing = files(&["README.md", "docs", "systemd", "benches", ".ci", "Cargo.toml"], &[""]);
    // The examples of this file cite pages that do not exist.
    citing.extend(code().into_iter().filter(|file| file.path != "tests/tidy/documents.rs"));
    citing.extend(documents());
    let dead: BTreeSet<_> = citing.iter().flat_map(|file| dead_citations(file, &pages)).collect();
    assert_none(&dead.into_iter().collect::<Vec<_>>());
}

#[test]
fn each_page_is_linked_from_the_index() {
    let index = read("docs/README.md");
    let pages = files(&["docs"], &[".md"]);
    let names = pages.iter().filter_map(|page| page.path.strip_prefix("docs/"));
    let missing = names.filter(|name| *name != "README.md" && !index.contains(&format!("]({name}")));
    assert_none(
        &missing
            .map(|name| format!("docs/README.md does not link {name}"))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn each_word_of_the_glossary_is_a_type_or_heading() {
    let types = BTreeSet::from(["ConnectionSet".to_owned()]);
    let glossary = "**connection set** all of them\n- **drain**: the end\n| **crowd** | x |\nwith a **bold** word\n";
    assert_eq!(
        undefined_words(glossary, &types, &["Drain and restart".to_owned()]),
        ["crowd"]
    );

    let types = public_types().into_keys().collect();
    let headings: Vec<_> = documents().iter().flat_map(|page| headings(&page.text)).collect();
    assert_none(&undefined_words(&read("docs/glossary.md"), &types, &headings));
}
