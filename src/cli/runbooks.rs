//! The commands in the documents and in `--help` are ones that the program takes.

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use crate::cli::Cli;

/// The simple commands of a line of shell, each as words without quotes.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let (mut quote, mut depth) = (None, 0);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            // A substitution is one word with what is around it.
            (_, '$') if characters.peek() == Some(&'(') => {
                depth += 1;
                word.get_or_insert_default().push('$');
            }
            (_, ')') if depth > 0 => {
                depth -= 1;
                word.get_or_insert_default().push(')');
            }
            (None, '#') if word.is_none() && depth == 0 => break,
            (None, ' ') if depth == 0 => words.extend(word.take()),
            (None, '>') if word.as_deref() == Some("2") => word = None,
            (None, '|' | '&' | ';' | '(' | ')' | '{' | '}' | '<' | '>') if depth == 0 => {
                words.extend(word.take());
                commands.push(std::mem::take(&mut words));
            }
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    commands.push(words);
    commands
}

/// The arguments of tinyd in a simple command, which may run it by another program.
fn arguments(words: &[String]) -> Option<&[String]> {
    let is_assignment = |word: &&String| word.split_once('=').is_some_and(|(name, _)| name.starts_with("TINYD_"));
    let skipped = words
        .iter()
        .take_while(|word| *word == "$" || is_assignment(word))
        .count();
    let words = words.get(skipped..)?;
    let is_tinyd = |word: &String| ["tinyd", "tinyd-admin"].contains(&word.rsplit('/').next().unwrap_or(word));
    let is_known = |word: &String| Cli::command().find_subcommand(word).is_some();
    let runs = |at: &usize| is_tinyd(&words[*at]) && (*at == 0 || words.get(at + 1).is_some_and(is_known));
    let at = (0..words.len()).rev().find(runs)?;
    words.get(at + 1..).filter(|arguments| !arguments.is_empty())
}

/// What is wrong with the commands of a line. In the middle of a sentence, they may lack arguments.
fn wrong(line: &str, is_complete: bool) -> Vec<String> {
    let commands = commands(line);
    let judged = commands.iter().filter_map(|words| {
        let arguments = arguments(words)?.iter().filter(|word| *word != "…");
        let kind = Cli::command()
            .no_binary_name(true)
            .try_get_matches_from(arguments)
            .err()?
            .kind();
        // xargs adds arguments.
        let is_complete = is_complete && words.first().is_none_or(|first| first != "xargs");
        let is_fine = match kind {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
            ErrorKind::MissingRequiredArgument
            | ErrorKind::MissingSubcommand
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::InvalidValue => !is_complete,
            _ => false,
        };
        (!is_fine).then(|| format!("{}: {kind}", words.join(" ")))
    });
    judged.collect()
}

/// Lines that end with a backslash go on in the next one.
fn joined(text: &str) -> String {
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |joined, part| {
        joined.trim_end().to_owned() + " " + part.trim_start()
    })
}

/// The lines of code, joined where they go on, and the code within sentences.
fn code(page: &str) -> (Vec<String>, Vec<String>) {
    let (mut lines, mut prose) = (Vec::new(), String::new());
    let mut is_fenced = false;
    for line in joined(page).lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        if is_fenced || line.starts_with("    ") {
            lines.push(line.trim().to_owned());
        } else if !is_fence {
            prose.push_str(line.trim());
            prose.push(if line.is_empty() { '\n' } else { ' ' });
        }
    }
    let spans = prose
        .lines()
        .flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2));
    // As a table writes it.
    (lines, spans.map(|span| span.replace("\\|", "|")).collect())
}

fn wrong_in_page(page: &str) -> Vec<String> {
    let (lines, spans) = code(page);
    let lines = lines.iter().flat_map(|line| wrong(line, true));
    lines.chain(spans.iter().flat_map(|span| wrong(span, false))).collect()
}

fn wrong_in_help(command: &clap::Command) -> Vec<String> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let help = joined(&help);
    let examples = help.lines().filter(|line| line.starts_with("  "));
    // What follows two spaces says what the example does.
    let examples = examples.map(|line| line.trim().split("  ").next().unwrap_or_default().to_owned());
    let own: Vec<_> = examples.flat_map(|example| wrong(&example, true)).collect();
    own.into_iter()
        .chain(command.get_subcommands().flat_map(wrong_in_help))
        .collect()
}

#[test]
fn commands_of_documents_and_help_exist() {
    for (page, expected) in [
        ("    $ tinyd-admin link lst", 1),
        ("    TINYD_LOG=debug tinyd serve --colour | tinyd ks", 1),
        ("    runuser -u tinyd -- tinyd compact --stor x", 1),
        ("```sh\n/usr/bin/tinyd backup\n```", 1),
        (
            "Run `tinyd backup`, `systemctl stop tinyd --now` or `tinyd\nbackupp FILE`.",
            1,
        ),
        (
            "    tinyd link add 'https://a/?b=c&d' --system-name \"A $(date +%F)\" # --x",
            0,
        ),
        ("    tinyd: an error --that is printed", 0),
    ] {
        assert_eq!(wrong_in_page(page).len(), expected, "{page}: {:?}", wrong_in_page(page));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents = fs::read_dir(root.join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let documents = documents.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut all = wrong_in_help(&Cli::command());
    let mut found = 0;
    for path in documents.chain([root.join("README.md")]) {
        let page = fs::read_to_string(&path).unwrap();
        let (lines, _) = code(&page);
        found += lines
            .iter()
            .filter(|line| commands(line).iter().any(|words| arguments(words).is_some()))
            .count();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        all.extend(wrong_in_page(&page).into_iter().map(|wrong| format!("{name}: {wrong}")));
    }
    assert!(all.is_empty(), "\n{}\n", all.join("\n"));
    assert!(found > 50, "only {found} commands were found");
}
